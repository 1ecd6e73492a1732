"""Whether what an explanation shows at a place came from there; see `explainkit.questions.leak`."""

from __future__ import annotations

import torch
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.leak import Leak
from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.results import metric
from explainkit.questions.leak import leak_of


@metric(better="lower", unit="share of the maps", note="0 is what a receptive field claims")
def cell_leak(output: ExplainerOutput) -> Tensor:
    """How much a cell's maps change once all that it cannot see is another scene's; 0 where the claim holds.

    Over the best cells of the two strongest units and two by chance, with scenes of the same class and of
    another; eight further runs of the network for each image. NaN where cells see all, or hold nothing.
    """
    leak = _measured(output, cells=True)
    if leak.cell_leak is None:
        raise InputError(leak.cell_reason or "")
    return leak.cell_leak


@metric(better="lower", unit="share of the score", note="of the three strongest units")
def region_leak(output: ExplainerOutput) -> Tensor:
    """How much a unit's score on its region changes once all outside is another scene's.

    Over the three strongest units, with scenes of the same class and of another; six further runs of the
    network for each image. In the spirit of the misalignment scores of Sacha et al., AAAI 2024,
    arXiv:2308.08162; the outside is another scene here.
    """
    leak = _measured(output, regions=True)
    if leak.region_leak is None:
        raise InputError(leak.region_reason or "")
    return leak.region_leak


def _measured(output: ExplainerOutput, *, regions: bool = False, cells: bool = False) -> Leak:
    context, explanations = output.context, output.explanations
    if output.explainer is None:
        raise InputError(f"{output.name} comes without the explainer that could be asked again.")
    with torch.inference_mode(False):
        return leak_of(
            output.explainer, context.dataset, context.split, context.ids, explanations=explanations,
            seed=context.seed, regions=regions, cells=cells,
        )  # fmt: skip
