"""How much there is to read: few strong reasons are easier to follow than many weak ones, true or not."""

import torch
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.spatial import resize
from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.results import metric

GRID = (8, 8)
"""The cells that the evenness of every map is judged on, so that a fine grid is no advantage."""


@metric(better="lower", unit="units", note="to reach 95 % of all |contribution|")
def units_to_95_percent(output: ExplainerOutput) -> Tensor:
    """How many units, the strongest first, hold 95 % of the sum of |contribution|; NaN where that is 0.

    The effective size of an explanation; compare Nauta et al., ACM Computing Surveys 55 (13s), 2023,
    arXiv:2201.08164, under compactness.
    """
    if output.explanations.units.kind == "pixels":
        raise InputError("Its units are the pixels for and the pixels against: there are always two.")
    return units_to_reach(output.explanations.contributions)


@metric(better=None, unit="0 even … 1 in one cell")
def gini(output: ExplainerOutput) -> Tensor:
    """How unevenly |evidence| is spread over an 8 x 8 grid; NaN for a map of zeros.

    Hurley, Rickard: Comparing Measures of Sparsity, IEEE Transactions on Information Theory 55 (10), 2009,
    arXiv:0811.4706; for attributions Chalasani et al., ICML 2020, arXiv:1810.06583.
    """
    return gini_index(resize(output.saliency, GRID).flatten(1))


def units_to_reach(contributions: Tensor, share: float = 0.95) -> Tensor:
    """How many of contributions (N, K) hold `share` of the sum of their sizes: (N,)."""
    sizes = contributions.double().abs().sort(1, descending=True).values
    total = sizes.sum(1)
    reached = sizes.cumsum(1) >= share * total[:, None] * (1 - 1e-12)
    return torch.where(total > 0, reached.double().argmax(1) + 1.0, torch.nan)


def gini_index(values: Tensor) -> Tensor:
    """The Gini index of the sizes of `values` (N, M), (N,): 0 where all are equal, 1 - 1/M if one is all."""
    sizes = values.double().abs().sort(1).values
    count = sizes.shape[1]
    rank = torch.arange(1, count + 1, device=sizes.device, dtype=sizes.dtype)
    total = sizes.sum(1)
    uneven = 1 - 2 * (sizes * (count - rank + 0.5)).sum(1) / (count * total.where(total > 0, 1))
    return torch.where(total > 0, uneven, torch.nan)
