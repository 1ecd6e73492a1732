"""What a graph computes: a network with the algebra behind it, for predicted classes or for given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from explainkit.explanations.decomposition import Decomposition, Pooling
from explainkit.explanations.factored_maps import UnitMaps, dense_maps
from explainkit.explanations.spatial import is_pooled_by, saliency_grid
from explainkit.explanations.strongest import strongest
from explainkit.explanations.units import Units

Output = Literal["logits", "base", "contributions", "scores", "weights", "maps", "saliency"]
"""What a graph can be asked to give."""

MEANING: Mapping[str, str] = {
    "logits": "(N, C): the network's outputs",
    "targets": "(N,): the explained class of each image, the one with the largest output",
    "base": "(N,): the bias of the explained class, and its weighted reference scores",
    "units": "(N, k): numbers of the units with the largest contributions, for or against",
    "contributions": "(N, K): weight * (score - reference) for the explained class",
    "remainder": "(N,): the sum of all contributions that are not given",
    "scores": "(N, K): how much of each unit is in the image",
    "weights": "(N, K): what one unit of score is worth to the explained class",
    "maps": "(N, K, h, w): where each score came from, never negative",
    "boxes": "(N, G, 4): x0, y0, x1, y1 in pixels, where the maps of each group of units lie in the image",
    "saliency": "(N, H, W): the contributions where they came from, summed over units",
}
"""All outputs that a graph may have, in their order; with `top` K is k, but for saliency."""

OF_TARGETS = ("base", "contributions", "weights", "saliency")
"""Outputs about one class, which `targets` then says."""

OF_UNITS = ("contributions", "scores", "weights", "maps")
"""Outputs with a number or a map for each unit; with `top`, of those that `units` then says."""


class ExplainedNetwork(nn.Module):
    """A network that gives its decomposition as a tuple of tensors; each but the first two names is chosen.

    Parameters
    ----------
    network : nn.Module
        With `decompose`.
    units : Units
    outputs : sequence of str
        Of `Output`; maps and saliency are left out where units have no places.
    image_size : (int, int) or None
        Height and width of the images, and of saliency; ``None`` for rows of a table.
    top : int or None
        How many of the strongest units of each image are given; ``None``: all, in their order.
    """

    reference: Tensor | None
    group: Tensor | None
    from_best_cell: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        units: Units,
        outputs: Sequence[str],
        image_size: Sequence[int] | None,
        top: int | None,
    ) -> None:
        super().__init__()
        self.network, self.outputs, self.image_size, self.top = network, tuple(outputs), image_size, top
        self.pooling: Pooling = units.pooling if isinstance(units.pooling, str) else "sum"
        constants = {
            "reference": units.reference,
            "group": units.group,
            "from_best_cell": None if isinstance(units.pooling, str) else is_pooled_by(units.poolings, "max"),
        }
        for name, value in constants.items():
            if value is None:
                setattr(self, name, None)  # torch.export counts buffers that are None, and misses others
            else:
                self.register_buffer(name, value, persistent=False)

    def columns(self, images: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        """The outputs by name, in the order of `MEANING`."""
        decomposition: Decomposition = self.network.decompose(images)  # type: ignore[operator]
        columns = {"logits": decomposition.logits}
        if targets is None:
            targets = columns["targets"] = decomposition.logits.argmax(1)
        weights, above = decomposition.weights_for(targets), decomposition.scores
        columns["base"] = decomposition.bias_for(targets)
        if self.reference is not None:
            above = above - self.reference.to(above.dtype)
            columns["base"] = columns["base"] + (weights * self.reference.to(weights.dtype)).sum(1)
        contributions = weights * above
        of_units = {"contributions": contributions, "scores": decomposition.scores, "weights": weights}
        maps, boxes = decomposition.maps, decomposition.boxes
        if maps is not None and "maps" in self.outputs:
            of_units["maps"] = dense_maps(maps)
            if boxes is not None:
                columns["boxes"] = boxes
        if self.top is not None:
            top = strongest(contributions, self.top)
            columns["units"], columns["remainder"] = top.unit, top.remainder
            of_units = {name: _taken(values, top.unit) for name, values in of_units.items()}
        if maps is not None and self.image_size is not None and "saliency" in self.outputs:
            columns["saliency"] = self._saliency(contributions, maps, boxes)
        columns |= of_units
        return {name: columns[name] for name in self._names() if name in columns}

    def _names(self) -> list[str]:
        """Those of all outputs, in their order: what was asked for, and what it takes to read it."""
        names = {*self.outputs, "boxes"}
        if self.top is not None and names & set(OF_UNITS):
            names |= {"units", "targets"}
        if names & set(OF_TARGETS):
            names.add("targets")
        if "contributions" in names:
            names.add("remainder")
        return [name for name in MEANING if name in names]

    def forward(self, images: Tensor, targets: Tensor | None = None) -> tuple[Tensor, ...]:
        """The outputs in the order of `MEANING`."""
        return tuple(self.columns(images, targets).values())

    def _saliency(self, contributions: Tensor, maps: UnitMaps, boxes: Tensor | None) -> Tensor:
        """`Explanations.saliency`; units are divided by pooling before it is traced."""
        assert self.image_size is not None
        held, size, group = dense_maps(maps), self.image_size, self.group
        if self.from_best_cell is None:
            return saliency_grid(
                contributions, held, self.pooling, size, image_size=size, boxes=boxes, group=group
            )
        peaks = contributions * self.from_best_cell
        shares = contributions - peaks
        return saliency_grid(
            peaks, held, "max", size, image_size=size, boxes=boxes, group=group
        ) + saliency_grid(shares, held, "sum", size, image_size=size, boxes=boxes, group=group)


def _taken(values: Tensor, units: Tensor) -> Tensor:
    """Of values (N, K, ...) those of `units` (N, k), (N, k, ...)."""
    index = units.view(*units.shape, *(1,) * (values.ndim - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))
