"""How good an explanation is, one number an image, or the reason why there is none.

- `context`: what the explainers of one network are evaluated on, and the output of one of them;
- `results`: scores, how a function becomes a metric, and tables of scores;
- `ground_truth`: what each part is truly worth to a network;
- `faithfulness`, `localization`, `leak`, `interpretability`, `cost`: the metrics, by family;
- `unit_parts`: location instability and part interpretability, of units rather than images;
- `concepts`: how well a unit agrees with a concept, for naming units;
- `baselines`: the rows without which no number means anything;
- `table`, `table_text`: all of it for several explainers, as values and as words;
- `posthoc`, `posthoc_comparison`: a network's own explanation beside post-hoc methods on the same network;
- `funnybirds`, `funnybirds_rows`, `funnybirds_table`: FunnyBirds' scores, what explanations say of parts for
  them, and their table;
- `part_agreement`: whether prototypes and swapped regions show the part that they stand for;
- `mutual_information`: what units' scores tell of classes.
"""

from explainkit.metrics.context import EvalContext, ExplainerOutput
from explainkit.metrics.funnybirds_table import FunnyBirdsTables, evaluate_funnybirds
from explainkit.metrics.ground_truth import PartTruth, part_truth, shapley
from explainkit.metrics.part_agreement import unreasonable_prototypes, unreasonable_swaps
from explainkit.metrics.results import MetricTable, Row, Score, metric
from explainkit.metrics.table import evaluate_explanations

__all__ = [
    "EvalContext",
    "ExplainerOutput",
    "FunnyBirdsTables",
    "MetricTable",
    "PartTruth",
    "Row",
    "Score",
    "evaluate_explanations",
    "evaluate_funnybirds",
    "metric",
    "part_truth",
    "shapley",
    "unreasonable_prototypes",
    "unreasonable_swaps",
]
