"""How good an explanation is, one number an image, or the reason why there is none.

- `score`: what a metric gives, and how a function becomes a metric;
- `exam`: what explainers of one network are asked, and what they answer;
- `truth`: what each part is truly worth to a network;
- `faithfulness`, `pixel_curves`, `localisation`, `interpretability`, `cost`: the metrics, by family;
- `baselines`: the rows without which no number means anything;
- `table`: all of it for several explainers.
"""

from explainkit.metrics.exam import Answer, Exam
from explainkit.metrics.score import Score, metric
from explainkit.metrics.table import MetricTable, Row, measure
from explainkit.metrics.truth import PartTruth, part_truth, shapley

__all__ = [
    "Answer",
    "Exam",
    "MetricTable",
    "PartTruth",
    "Row",
    "Score",
    "measure",
    "metric",
    "part_truth",
    "shapley",
]
