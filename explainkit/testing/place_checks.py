"""Checks of what is claimed of places."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.errors import ConformanceError, ExplainKitError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.isolation import running
from explainkit.explanations.batch import Explanations
from explainkit.explanations.factored_maps import dense_maps
from explainkit.questions.leak import maps_at
from explainkit.testing.assertions import check

ROUNDING = 1e-5
"""Largest change of a cell, as a share of the largest value of all maps, that counts as rounding."""

MOST_PIXELS = 2**22
"""Pixels of all images together that are asked about at once: large networks are asked about fewer cells."""

CELLS = 4
"""Cells along each side of the grid that are looked at, the outermost among them."""


def check_cell_leak(explainer: Explainer, images: Tensor) -> None:
    """Where a receptive field is claimed, no pixel outside of it changes a cell, and none has a gradient.

    Images are enlarged until cells do not see all of them, where the network takes images of other sizes; a
    claim that every cell sees the whole image is no claim.
    """
    field = None if explainer.units is None else explainer.units.receptive_field
    if field is None:
        return
    side = field.size + CELLS * field.stride
    explained = _explained_at(explainer, images[:2], side)
    if explained is None:
        explained = explainer.explain(images[:2])
    if explained.maps is None or explained.boxes is not None:
        raise ConformanceError(
            f"Expected maps over the whole image beside a claim of what their cells see, {field}; got "
            f"{'none' if explained.maps is None else 'maps in boxes'}. Leave units.receptive_field out."
        )
    size, grid = explained.images.shape[-2:], explained.maps.shape[2:]
    seen = field.seen(grid, size).flatten(0, 1).to(explained.images.device)  # (h w, H, W)
    cells = _spread_cells(grid).to(seen.device)
    cells = cells[~seen[cells].flatten(1).all(1)]
    if not len(cells):
        return
    most = max(1, MOST_PIXELS // (len(explained) * size.numel()))
    cells = cells[torch.linspace(0, len(cells) - 1, min(most, len(cells))).round().long()]
    rows, cells = (part.flatten() for part in torch.meshgrid(
        torch.arange(len(explained), device=cells.device), cells, indexing="ij"
    ))  # fmt: skip
    is_seen = seen[cells][:, None]  # (M, 1, H, W)
    _check_values(explainer, explained, rows, cells, is_seen)
    _check_gradients(explainer, explained.images[rows], cells, is_seen)


def _explained_at(explainer: Explainer, images: Tensor, side: int) -> Explanations | None:
    """`images` enlarged to `side` pixels at least, and explained; ``None`` where the network refuses them."""
    scale = side / min(images.shape[-2:])
    if scale <= 1:
        return explainer.explain(images)
    size = [math.ceil(length * scale) for length in images.shape[-2:]]
    low, high = images.aminmax()
    larger = F.interpolate(images.float(), size, mode="bilinear").clamp(low, high).to(images)
    try:
        return explainer.explain(larger)
    except (ExplainKitError, RuntimeError, ValueError):
        return None  # it takes images of one size


def _check_values(
    explainer: Explainer, explained: Explanations, rows: Tensor, cells: Tensor, is_seen: Tensor
) -> None:
    """Hold cells to what they are once all pixels that they cannot see are others."""
    assert explained.maps is not None
    whole = explained.images
    low, high = whole.aminmax()
    noise = torch.rand(whole.shape, generator=torch.Generator().manual_seed(0)).to(whole)
    others = low + (high - low) * noise
    mixed = torch.where(is_seen, whole[rows], others[rows])
    after = explainer.explain(mixed, explained.targets[rows]).maps
    assert after is not None
    at = torch.arange(len(rows), device=rows.device)
    change = (maps_at(after, at, cells) - maps_at(explained.maps, rows, cells)).abs().amax(1)
    largest, limit = int(change.argmax()), ROUNDING * float(dense_maps(explained.maps).abs().amax())
    moved, columns = float(change[largest]), explained.maps.shape[3]
    cell = divmod(int(cells[largest]), columns)
    check(
        moved <= limit,
        f"cells that no pixel outside of {explained.units.receptive_field} changes; cell {cell} sees "
        f"{int(is_seen[largest].sum())} of {is_seen[largest].numel()} pixels by that claim, and changes by "
        f"{moved:.3g} when all others do, of at most {limit:.3g} for rounding. Claim a larger field, or none",
    )


def _check_gradients(explainer: Explainer, images: Tensor, cells: Tensor, is_seen: Tensor) -> None:
    """Hold the gradient of cells to exactly 0 outside of what they see, where the maps have one."""
    if not hasattr(explainer.network, "decompose"):
        return
    with running(explainer.network) as network, torch.inference_mode(False), torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        maps = network.decompose(inputs).maps  # type: ignore[operator]
        held = dense_maps(maps).flatten(2)
        if not held.requires_grad:
            return
        chosen = held[torch.arange(len(cells), device=cells.device), :, cells]
        (slopes,) = torch.autograd.grad(chosen.sum(), inputs)
    outside = slopes.abs().masked_fill(is_seen, 0).flatten(1).amax(1)
    largest = int(outside.argmax())
    check(
        not outside.any(),
        f"gradients of 0 outside of {_claim(explainer)}; that of cell number {int(cells[largest])} is "
        f"{float(outside[largest]):.3g} there. Claim a larger field, or none",
    )


def _claim(explainer: Explainer) -> object:
    return None if explainer.units is None else explainer.units.receptive_field


def _spread_cells(grid: torch.Size) -> Tensor:
    """Numbers of cells spread over a grid (h, w), its corners among them."""
    rows, columns = (torch.linspace(0, cells - 1, min(CELLS, cells)).round().long() for cells in grid)
    return (rows[:, None] * grid[1] + columns).flatten()
