"""Regions of another image, swapped in so that the network really says the target.

Choice: which image of distractors, under which shift, and which cells of it, is read off the evidence of both
images for target and prediction, cell by cell: swapping a cell brings what the other image has there and
takes what this one has. Sorted and summed up, that tells for every candidate at once how few cells should
do. For linear sums of means it is exact; Goyal et al.: Counterfactual Visual Explanations, ICML 2019,
arXiv:1904.07451, search for it.

Proof: the swap is made in pixels and the network asked. Receptive fields reach over edges, so that evidence
alone promises too much: cells are added until the network says the target, then each that is not needed is
taken back. All cells are from one image under one shift, so that neighbors fit.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from attrs import define, frozen
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.state import undisturbed
from explainkit.explanations.decisions import Decision
from explainkit.explanations.decomposition import Decomposition, concat
from explainkit.explanations.edits import RegionSwaps
from explainkit.explanations.factored_maps import concat_maps
from explainkit.explanations.spatial import is_pooled_by, saliency_grid
from explainkit.explanations.units import Units
from explainkit.questions.counterfactual_methods import CounterfactualMethod, CounterfactualQuestion
from explainkit.questions.goals import Goals
from explainkit.questions.swap_cells import cells_of

EXEMPLARS = 16
"""Images of each class in the distractors that are looked at, each also in its mirror."""

TRIED = 4
"""Candidates of each image that are tried in pixels."""

LABELS = 4096
"""Labels of distractors that are compared with all classes at once."""

LARGEST = 2**22
"""Most cells of maps that evidence is read off at once."""

MOST = 0.5
"""The share of cells from which on a swap is no edit of this image any more, but another image."""


@frozen(eq=False, kw_only=True)
class Distractors:
    """Images of T kinds of goal that the network classifies correctly: E of each, mirrored ones last.

    Attributes
    ----------
    row : Tensor, (C,), or (2 C,) for labels
        Which of the T a kind is; -1 for one that is no goal.
    images : Tensor, (T, E, 3, H, W)
    ids : Tensor, (T, E)
        -1 where there are fewer.
    decomposition : Decomposition
        Of all T x E, in that order.
    """

    row: Tensor
    images: Tensor
    ids: Tensor
    decomposition: Decomposition


def swap_regions(
    explainer: Explainer,
    images: Tensor,
    decomposition: Decomposition,
    goals: Goals,
    source: ImageDataset | Batch,
) -> RegionSwaps:
    """Swap as few regions as will do, each image's from one image in `source` that is what it shall be.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), or rows (N, F)
    decomposition : Decomposition
        Of the images.
    goals : Goals
        What the network shall say of each.
    source : ImageDataset or Batch
        Where the other images are taken from; of a data set, its training images.
    """
    units = explainer.units
    assert units is not None
    with undisturbed(explainer.network), torch.no_grad():
        distractors = gather_distractors(explainer, source, goals, images)
        batches = [
            _RegionSwapSearch(
                explainer, units, images[rows], decomposition.select(rows), goals.select(rows), distractors
            ).run()
            for rows in torch.arange(len(images), device=images.device).split(_images_at_once(distractors))
        ]
    names = (
        "images", "regions", "success", "logits", "exemplars", "sources", "shifts", "mirrored",
        "predicted_size",
    )  # fmt: skip
    columns: dict[str, Any] = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}
    return RegionSwaps(**columns, num_forwards=sum(batch.num_forwards for batch in batches))


def gather_distractors(
    explainer: Explainer, source: ImageDataset | Batch, goals: Goals, like: Tensor
) -> Distractors:
    """The first correctly classified images of each goal's kind, and those of their mirrors that are, too.

    Raises
    ------
    InputError
        For images of another size than `like`.
    """
    decision, kinds = goals.decision, goals.kind.cpu().unique()
    split = source.train if isinstance(source, ImageDataset) else None
    labels = (source.train if isinstance(source, ImageDataset) else source).labels.cpu()
    num_classes = len(explainer.classes)
    is_example = torch.cat(
        [decision.kinds(decision.truth(part, num_classes))[:, kinds] for part in labels.split(LABELS)]
    )  # (M, T)
    ids_by_kind = [
        column.nonzero()[: 2 * EXEMPLARS, 0] for column in is_example.T
    ]  # a kind's first; some of them are not classified correctly
    ids = torch.cat(ids_by_kind) if ids_by_kind else torch.zeros(0, dtype=torch.long)
    class_row = torch.repeat_interleave(
        torch.arange(len(kinds)), torch.tensor([len(i) for i in ids_by_kind], dtype=torch.long)
    )
    if split is None or not len(ids):
        images = like[:0] if split is not None else source.images[ids]  # type: ignore[union-attr]
    else:
        images = split.batch(ids).images
    images = explainer.input_spec.from_unit(images) if len(ids) else images
    if images.shape[1:] != like.shape[1:]:
        raise InputError(
            f"Expected distractors of images like those explained, {tuple(like.shape[1:])}; got "
            f"{tuple(images.shape[1:])}."
        )
    images = images.to(like)
    outputs = [explainer.network(chunk).cpu() for chunk in images.split(256) if len(chunk)]
    logits = torch.cat([torch.zeros(0, num_classes), *outputs])
    is_correct = _is_kind(decision, logits, kinds[class_row])
    has_mirrors = cells_of(like).has_mirrors
    height = EXEMPLARS * (2 if has_mirrors else 1)
    num_kinds = num_classes * (1 if decision.is_exclusive else 2)
    row = torch.full((num_kinds,), -1).index_put((kinds,), torch.arange(len(kinds)))
    distractor_ids = torch.full((len(kinds), height), -1)
    distractor_images = images.new_zeros(len(kinds), height, *images.shape[1:])
    rank = _rank_within_class(class_row, is_correct)
    is_used = is_correct & (rank < EXEMPLARS)
    index = (class_row[is_used], rank[is_used])
    distractor_images[index] = images[is_used.to(images.device)]
    distractor_ids[index] = ids[is_used]
    if has_mirrors:
        distractor_images[:, EXEMPLARS:] = distractor_images[:, :EXEMPLARS].flip(-1)
        distractor_ids[:, EXEMPLARS:] = distractor_ids[:, :EXEMPLARS]
    decompose = explainer.network.decompose
    decompositions = [decompose(chunk) for chunk in distractor_images.flatten(0, 1).split(256)]  # type: ignore[operator]
    all_maps = [item.maps for item in decompositions if item.maps is not None]
    decomposition = concat(decompositions, concat_maps(all_maps) if all_maps else None)
    is_right = _is_kind(decision, decomposition.logits.cpu(), kinds.repeat_interleave(height))
    return Distractors(
        row=row, images=distractor_images, decomposition=decomposition,
        ids=distractor_ids.masked_fill(~is_right.view(len(kinds), height), -1),
    )  # fmt: skip


def _images_at_once(distractors: Distractors) -> int:
    """How many images are searched at once: so few that maps of the distractors of each are not many."""
    maps = distractors.decomposition.maps
    cells = 0 if maps is None else distractors.ids.shape[1] * maps.shape[1:].numel()
    return max(1, min(16, LARGEST // max(1, cells)))


def _is_kind(decision: Decision, logits: Tensor, kinds: Tensor) -> Tensor:
    """Whether the network says of each image, by logits (M, C), that it is of its kind (M,)."""
    return decision.kinds(decision.holds(logits)).gather(1, kinds[:, None])[:, 0]


def _rank_within_class(class_row: Tensor, is_counted: Tensor) -> Tensor:
    """The position of each image among those of its class that are counted, in order: (M,)."""
    member = F.one_hot(class_row, int(class_row.max()) + 1 if len(class_row) else 1) * is_counted[:, None]
    return (member.cumsum(0) - 1).gather(1, class_row[:, None])[:, 0]


@define(eq=False, kw_only=True)
class RegionSwap(CounterfactualMethod):
    """Regions of images of the target, swapped in until the network says it; columns of rows likewise."""

    needs_distractors: ClassVar[bool] = True

    def search(self, question: CounterfactualQuestion) -> RegionSwaps:
        """The smallest swap that was found for each image, of which the network was asked."""
        assert question.distractors is not None
        return swap_regions(
            question.explainer, question.images, question.decomposition, question.goals, question.distractors
        )


class _RegionSwapSearch:
    """One search over a few images, all candidates at once."""

    def __init__(
        self,
        explainer: Explainer,
        units: Units,
        images: Tensor,
        decomposition: Decomposition,
        goals: Goals,
        distractors: Distractors,
    ) -> None:
        self.explainer, self.units, self.distractors = explainer, units, distractors
        self.images, self.decomposition, self.goals = images, decomposition, goals
        self.predicted = decomposition.logits.argmax(1)
        self.cells, self.device = cells_of(images), images.device
        self.grid, self.shifts = self.cells.grid, self.cells.shifts
        self.num_forwards = 0

    def run(self) -> RegionSwaps:
        """The smallest swap that was found for each image."""
        n, num_cells = len(self.images), self.grid[0] * self.grid[1]
        order, lengths, chosen, shift = self._candidates()
        sources = self._shift_images(chosen, shift)  # (N, Q, 3, H, W)
        ids = self._distractor_ids().gather(1, chosen)
        masks = self._extend_until_success(order, lengths, sources, ids >= 0)
        masks = self._prune_cells(masks, order, sources)
        size = masks.sum(2).masked_fill(~masks.any(2), num_cells + 1)  # (N, Q)
        is_target = self.goals.are_reached(self.decomposition.logits)
        rows, best = torch.arange(n, device=self.device), size.min(1).indices
        regions = masks[rows, best] & ~is_target[:, None]
        source = sources[rows, best]
        images = self.cells.swap(self.images, source, regions)
        logits = self._forward(images)
        success = self.goals.are_reached(logits)
        failed = ~success & regions.any(1)  # another batch rounds otherwise
        images[failed], logits[failed] = self.images[failed], self.decomposition.logits[failed]
        regions = regions & ~failed[:, None]
        is_swapped = regions.any(1)
        is_mirror = (
            chosen[rows, best] >= EXEMPLARS if self.cells.has_mirrors else torch.zeros_like(is_swapped)
        )
        return RegionSwaps(
            images=images, regions=regions.view(n, *self.grid), success=success, logits=logits,
            exemplars=ids[rows, best].masked_fill(~is_swapped, -1),
            sources=source, shifts=self.shifts.to(self.device)[shift[rows, best]],
            mirrored=is_mirror & is_swapped,
            predicted_size=lengths[rows, best], num_forwards=self.num_forwards,
        )  # fmt: skip

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The most promising: order of cells (N, Q, P), how many should do, image and shift (N, Q)."""
        gains = self._gains()  # (N, E, S, P)
        s, p = gains.shape[2:]
        gaps = self.goals.gaps(self.decomposition.logits)
        sorted_gains = gains.sort(3, descending=True)
        total = sorted_gains.values.clamp(min=0).cumsum(3)
        is_enough = total > gaps[:, None, None, None]
        count = torch.where(is_enough.any(3), is_enough.int().argmax(3) + 1, p + 1)  # (N, E, S)
        reached = total.gather(3, (count - 1).clamp(max=p - 1)[..., None])[..., 0]
        is_image = (self._distractor_ids() >= 0)[:, :, None].expand_as(count)
        worth = torch.where(is_image, -count + 0.5 * (reached / (1 + reached.amax())), -torch.inf).flatten(1)
        top = worth.topk(min(TRIED, worth.shape[1]), 1).indices  # (N, Q)
        cells = top[..., None].expand(-1, -1, p)
        order = sorted_gains.indices.flatten(1, 2).gather(1, cells)
        is_valid = sorted_gains.values.isfinite().flatten(1, 2).gather(1, cells)
        self.num_valid_cells = is_valid.sum(2)
        return order, count.flatten(1).gather(1, top), top // s, top % s

    def _gains(self) -> Tensor:
        """What swapping each cell adds to the target's margin over the prediction: (N, E, S, P)."""
        size = self.images.shape[2:]
        evidence = self._evidence_by_cell(self.decomposition, size, self.goals, self.predicted)
        if evidence is None:
            return self._gradient_gains()
        n, e = self._distractor_ids().shape
        class_row = self.distractors.row.to(self.device)[self.goals.kind]
        rows = (class_row[:, None] * e + torch.arange(e, device=self.device)).flatten()
        image = torch.arange(n, device=self.device).repeat_interleave(e)
        replacement = self._evidence_by_cell(
            self.distractors.decomposition.select(rows), size, self.goals.select(image), self.predicted[image]
        )
        assert replacement is not None
        shifted = self._shift_cells(replacement.view(n, e, *self.grid))  # (N, E, S, h, w)
        return (shifted - evidence[:, None, None]).flatten(3)

    def _evidence_by_cell(
        self, decomposition: Decomposition, size: torch.Size, goals: Goals, foils: Tensor
    ) -> Tensor | None:
        """Evidence for `goals` less that for `foils`, (M, h, w); None where units have no place."""
        maps, pooling = decomposition.maps, self.units.pooling
        if maps is None or pooling == "none":
            return None
        weights = goals.weights(decomposition, foils)
        reference, scores = self.units.reference, decomposition.scores
        if reference is not None:  # of means and sums it cancels
            cancels = is_pooled_by(self.units.poolings, "mean", "sum").to(scores.device)
            scores = scores - reference.to(scores).masked_fill(cancels, 0)
        return saliency_grid(
            weights * scores, maps, pooling, self.grid, image_size=size, boxes=decomposition.boxes,
            group=self.units.group,
        )  # fmt: skip

    def _gradient_gains(self) -> Tensor:
        """The same by the margin's slope in pixels, for units without a place: right for small changes."""
        with torch.enable_grad():
            inputs = self.images.detach().clone().requires_grad_()
            margin = self.goals.lead(self.explainer.network(inputs), self.predicted)
            (slope,) = torch.autograd.grad(margin.sum(), inputs)
        gains = []
        e = self.distractors.ids.shape[1]
        for s in range(len(self.shifts)):
            shift = torch.full((len(self.images), e), s, device=self.device)
            chosen = torch.arange(e, device=self.device).expand(len(self.images), e)
            change = (self._shift_images(chosen, shift) - self.images[:, None]) * slope[:, None]
            gains.append(self.cells.total(change))
        total = torch.stack(gains, 2)
        # -inf where nothing is laid over
        return total + self._shift_cells(total.new_zeros(1, 1, *self.grid)).flatten(3)

    def _distractor_ids(self) -> Tensor:
        """The ids of the distractors' images for each target, (N, E); -1 where there is none."""
        row = self.distractors.row[self.goals.kind.cpu()]
        return self.distractors.ids[row].masked_fill((row < 0)[:, None], -1).to(self.device)

    def _shift_cells(self, cells: Tensor) -> Tensor:
        """Cells (N, E, h, w) under every shift: (N, E, S, h, w); -inf where nothing comes to lie."""
        h, w = self.grid
        reach = int(self.shifts.abs().max())
        padded = F.pad(cells, [reach] * 4, value=-torch.inf)
        starts = (reach - self.shifts).tolist()
        return torch.stack([padded[..., y : y + h, x : x + w] for y, x in starts], 2)

    def _shift_images(self, chosen: Tensor, shift: Tensor) -> Tensor:
        """The distractors' images `chosen` (N, Q) under their shifts, (N, Q, D, H, W)."""
        row = self.distractors.row.to(self.device)[self.goals.kind]
        return self.cells.shift(
            self.distractors.images[row[:, None], chosen], self.shifts.to(self.device)[shift]
        )

    def _forward(self, images: Tensor) -> Tensor:
        """The network's logits of images (M, 3, H, W), counted in `num_forwards`."""
        self.num_forwards += len(images)
        return torch.cat([self.explainer.network(chunk) for chunk in images.split(256)])

    def _extend_until_success(
        self, order: Tensor, lengths: Tensor, sources: Tensor, is_image: Tensor
    ) -> Tensor:
        """For each candidate the shortest tried run of its cells that gives the target: (N, Q, P), bool."""
        n, q, p = order.shape
        rank = order.argsort(2)
        limit = torch.tensor(max(1, int(MOST * p)), device=self.device)
        longest = torch.minimum(self.num_valid_cells, limit)
        length = torch.minimum(lengths, longest)
        masks = torch.zeros(n, q, p, dtype=torch.bool, device=self.device)
        is_pending = is_image & ~self.goals.are_reached(self.decomposition.logits)[:, None]
        while is_pending.any():
            tried = rank < length[..., None]
            image, slot = is_pending.nonzero(as_tuple=True)
            has_won = self._gives_target(image, sources[image, slot], tried[image, slot])
            won = (image[has_won], slot[has_won])
            masks[won] = tried[won]
            is_pending = is_pending & (length < longest)
            is_pending[won] = False
            length = torch.minimum((length * 1.3).ceil().long().clamp(min=1), longest)
        return masks

    def _prune_cells(self, masks: Tensor, order: Tensor, sources: Tensor) -> Tensor:
        """Without the cells that are not needed: each is undone, the weakest first, until none can be."""
        masks = masks.clone()
        changed = masks.any(2)
        while changed.any():
            changed_again = torch.zeros_like(changed)
            for position in range(order.shape[2] - 1, -1, -1):
                cell = order[:, :, position : position + 1]
                is_swapped = masks.gather(2, cell)[..., 0] & changed
                image, slot = is_swapped.nonzero(as_tuple=True)
                if not len(image):
                    continue
                tried = masks[image, slot].scatter(1, cell[image, slot], False)
                has_won = self._gives_target(image, sources[image, slot], tried) & tried.any(1)
                won = (image[has_won], slot[has_won])
                masks[won] = tried[has_won]
                changed_again[won] = True
            changed = changed_again
        return masks

    def _gives_target(self, image: Tensor, sources: Tensor, regions: Tensor) -> Tensor:
        """Whether the images of index `image` (M,) are their targets with `regions` of `sources`: (M,)."""
        swapped = self.cells.swap(self.images[image], sources, regions)
        return self.goals.select(image).are_reached(self._forward(swapped))
