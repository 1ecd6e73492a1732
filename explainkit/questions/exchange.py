"""Regions of another image, swapped in so that the network really says the target.

Choice: which image of a bank, under which shift, and which cells of it, is read off the evidence of both
images for target and prediction, cell by cell: swapping a cell brings what the other image has there and
takes what this one has. Sorted and summed up, that tells for every candidate at once how few cells should
do. For linear sums of means it is exact; Goyal et al.: Counterfactual Visual Explanations, ICML 2019,
arXiv:1904.07451, search for it.

Proof: the swap is made in pixels and the network asked. Receptive fields reach over edges, so that evidence
alone promises too much: cells are added until the network says the target, then each that is not needed is
taken back. All cells are from one image under one shift, so that neighbours fit.
"""

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.images import Batch, ImageData
from explainkit.decomposition import Decomposition, join, spread_out
from explainkit.errors import InputError
from explainkit.explanation import Units
from explainkit.interfaces import InterpretableExplainer, undisturbed

GRID = (8, 8)
"""Cells that are swapped: of an image; the columns of a table are swapped one by one."""

EXEMPLARS = 16
"""Images of each class in the bank that are looked at, each also in its mirror."""

SHIFT = 2
"""By how many cells another image may be shifted, up to, along either side."""

TRIED = 4
"""Candidates of each image that are tried in pixels."""

MOST = 0.5
"""The share of cells from which on a swap is no edit of this image any more, but another image."""


@frozen(eq=False, kw_only=True)
class RealisedEdits:
    """For N images, the regions that were swapped in and what the network then said.

    Attributes
    ----------
    images : Tensor, (N, 3, H, W)
        With the swapped regions; as they were where no swap succeeds.
    regions : Tensor, (N, h, w), bool
        Which cells were swapped.
    success : Tensor, (N,), bool
        Whether the network says the target: it was asked.
    logits : Tensor, (N, C)
        Of `images`.
    exemplars : Tensor, (N,)
        Ids in the bank; -1 where nothing was swapped.
    sources : Tensor, (N, 3, H, W)
        The bank's images, as they were laid over: shifted and mirrored.
    shifts : Tensor, (N, 2)
        Down and right, in cells.
    mirrored : Tensor, (N,), bool
    promised : Tensor, (N,)
        How many cells the evidence alone said would do.
    passes : int
        Images that the network was asked about.
    """

    images: Tensor = field(repr=False)
    regions: Tensor = field(repr=False)
    success: Tensor
    logits: Tensor = field(repr=False)
    exemplars: Tensor
    sources: Tensor = field(repr=False)
    shifts: Tensor = field(repr=False)
    mirrored: Tensor = field(repr=False)
    promised: Tensor
    passes: int

    @property
    def size(self) -> Tensor:
        """How many cells were swapped, (N,)."""
        return self.regions.flatten(1).sum(1)


@frozen(eq=False, kw_only=True)
class Bank:
    """Images of the T classes asked for that the network knows rightly: E of each, mirrored ones last.

    Attributes
    ----------
    row : Tensor, (C,)
        Which of the T a class is; -1 for a class that has none.
    images : Tensor, (T, E, 3, H, W)
    ids : Tensor, (T, E)
        -1 where there are fewer.
    parts : Decomposition
        Of all T x E, in that order.
    """

    row: Tensor
    images: Tensor
    ids: Tensor
    parts: Decomposition


def exchange(
    explainer: InterpretableExplainer[Any],
    images: Tensor,
    parts: Decomposition,
    targets: Tensor,
    source: ImageData | Batch,
) -> RealisedEdits:
    """Swap as few regions as will do, each image's from one image of its target class in `source`.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), or rows (N, F)
    parts : Decomposition
        Of them.
    targets : Tensor, (N,)
    """
    units = explainer.units
    assert units is not None
    with undisturbed(explainer.network), torch.no_grad():
        bank = gather(explainer, source, targets, images)
        pieces = [
            _Search(explainer, units, images[rows], parts.rows(rows), targets[rows], bank).run()
            for rows in torch.arange(len(images), device=images.device).split(16)
        ]
    columns = (
        "images",
        "regions",
        "success",
        "logits",
        "exemplars",
        "sources",
        "shifts",
        "mirrored",
        "promised",
    )
    return RealisedEdits(
        **{name: torch.cat([getattr(piece, name) for piece in pieces]) for name in columns},
        passes=sum(piece.passes for piece in pieces),
    )


def gather(
    explainer: InterpretableExplainer[Any], source: ImageData | Batch, targets: Tensor, like: Tensor
) -> Bank:
    """The first images of each target class that the network knows rightly, and their mirrors that it does.

    Raises
    ------
    InputError
        For images of another size.
    """
    wanted = targets.unique()
    split = source.train if isinstance(source, ImageData) else None
    labels = (source.train if isinstance(source, ImageData) else source).labels.cpu()
    found = [
        (labels == label).nonzero()[: 2 * EXEMPLARS, 0] for label in wanted.tolist()
    ]  # a class's first; some of them are not known rightly
    ids = torch.cat(found) if found else torch.zeros(0, dtype=torch.long)
    if split is None or not len(ids):
        images = like[:0] if split is not None else source.images[ids]  # type: ignore[union-attr]
    else:
        images = split.batch(ids).images
    if images.shape[1:] != like.shape[1:]:
        raise InputError(
            f"Expected a bank of images like those explained, {tuple(like.shape[1:])}; got "
            f"{tuple(images.shape[1:])}."
        )
    images = images.to(like)
    told = [explainer.network(some).argmax(1).cpu() for some in images.split(256) if len(some)]
    right = torch.cat([torch.zeros(0, dtype=torch.long), *told]) == labels[ids]
    mirrors = like.ndim == 4
    height = EXEMPLARS * (2 if mirrors else 1)
    row = torch.full((len(explainer.classes),), -1).index_put((wanted.cpu(),), torch.arange(len(wanted)))
    kept_ids = torch.full((len(wanted), height), -1)
    kept = images.new_zeros(len(wanted), height, *images.shape[1:])
    of = row[labels[ids]]
    rank = _ranks(of, right)
    use = right & (rank < EXEMPLARS)
    kept[of[use], rank[use]] = images[use.to(images.device)]
    kept_ids[of[use], rank[use]] = ids[use]
    if mirrors:
        kept[:, EXEMPLARS:] = kept[:, :EXEMPLARS].flip(-1)
        kept_ids[:, EXEMPLARS:] = kept_ids[:, :EXEMPLARS]
    pieces = [explainer.network.decompose(some) for some in kept.flatten(0, 1).split(256)]  # type: ignore[operator]
    maps = None if pieces[0].maps is None else torch.cat([piece.maps for piece in pieces])
    parts = join(pieces, maps)
    agreed = parts.logits.argmax(1).view(len(wanted), height).cpu() == wanted.cpu()[:, None]
    return Bank(row=row, images=kept, ids=kept_ids.masked_fill(~agreed, -1), parts=parts)


def _ranks(of: Tensor, counted: Tensor) -> Tensor:
    """The place of each among those `counted` of its own kind, in order: (M,)."""
    member = F.one_hot(of, int(of.max()) + 1 if len(of) else 1) * counted[:, None]
    return (member.cumsum(0) - 1).gather(1, of[:, None])[:, 0]


class _Search:
    """One search over a few images, all candidates at once."""

    def __init__(
        self,
        explainer: InterpretableExplainer[Any],
        units: Units,
        images: Tensor,
        parts: Decomposition,
        targets: Tensor,
        bank: Bank,
    ) -> None:
        self.explainer, self.units, self.bank = explainer, units, bank
        self.images, self.parts, self.targets = images, parts, targets
        self.of_rows = images.ndim == 2
        self.grid = (1, images.shape[1]) if self.of_rows else GRID
        self.device = images.device
        reach = 0 if self.of_rows else SHIFT
        steps = torch.arange(-reach, reach + 1)
        self.shifts = torch.cartesian_prod(steps, steps) if reach else torch.zeros(1, 2, dtype=torch.long)
        self.passes = 0

    def run(self) -> RealisedEdits:
        """The smallest swap that was found for each image."""
        n, cells = len(self.images), self.grid[0] * self.grid[1]
        order, lengths, chosen, shift = self._candidates()
        sources = self._laid(chosen, shift)  # (N, Q, 3, H, W)
        ids = self._ids().gather(1, chosen)
        masks = self._grown(order, lengths, sources, ids >= 0)
        masks = self._pruned(masks, order, sources)
        size = masks.sum(2).masked_fill(~masks.any(2), cells + 1)  # (N, Q)
        already = self.parts.logits.argmax(1) == self.targets
        best = size.min(1)
        rows = torch.arange(n, device=self.device)
        regions = masks[rows, best.indices] & ~already[:, None]
        source = sources[rows, best.indices]
        mixed = self._mixed(self.images, source, regions)
        logits = self._asked(mixed)
        success = logits.argmax(1) == self.targets
        failed = ~success & regions.any(1)  # another batch rounds otherwise
        mixed[failed], logits[failed] = self.images[failed], self.parts.logits[failed]
        regions = regions & ~failed[:, None]
        swapped = regions.any(1)
        height = EXEMPLARS if not self.of_rows else self.bank.ids.shape[1] + 1
        return RealisedEdits(
            images=mixed, regions=regions.view(n, *self.grid), success=success, logits=logits,
            exemplars=ids[rows, best.indices].masked_fill(~swapped, -1),
            sources=source, shifts=self.shifts.to(self.device)[shift[rows, best.indices]],
            mirrored=(chosen[rows, best.indices] >= height) & swapped,
            promised=lengths[rows, best.indices], passes=self.passes,
        )  # fmt: skip

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The most promising: order of cells (N, Q, P), how many should do, image and shift (N, Q)."""
        gains = self._gains()  # (N, E, S, P)
        s, p = gains.shape[2:]
        gaps = self.parts.logits.amax(1) - self.parts.logits.gather(1, self.targets[:, None])[:, 0]
        sizes = gains.sort(3, descending=True)
        total = sizes.values.clamp(min=0).cumsum(3)
        enough = total > gaps[:, None, None, None]
        count = torch.where(enough.any(3), enough.int().argmax(3) + 1, p + 1)  # (N, E, S)
        reached = total.gather(3, (count - 1).clamp(max=p - 1)[..., None])[..., 0]
        known = (self._ids() >= 0)[:, :, None].expand_as(count)
        worth = torch.where(known, -count + 0.5 * (reached / (1 + reached.amax())), -torch.inf).flatten(1)
        top = worth.topk(min(TRIED, worth.shape[1]), 1).indices  # (N, Q)
        order = sizes.indices.flatten(1, 2).gather(1, top[..., None].expand(-1, -1, p))
        valid = sizes.values.isfinite().flatten(1, 2).gather(1, top[..., None].expand(-1, -1, p))
        self.valid = valid.sum(2)
        return order, count.flatten(1).gather(1, top), top // s, top % s

    def _gains(self) -> Tensor:
        """What swapping each cell adds to the target's margin over the prediction: (N, E, S, P)."""
        predicted = self.parts.logits.argmax(1)
        own = self._cells(self.parts, self.images.shape[2:], self.targets, predicted)
        if own is None:
            return self._slopes(predicted)
        n, e = self._ids().shape
        flat = self.bank.row.to(self.device)[self.targets][:, None] * e + torch.arange(e, device=self.device)
        rows = flat.flatten()
        theirs = self._cells(
            self.bank.parts.rows(rows), self.images.shape[2:],
            self.targets.repeat_interleave(e), predicted.repeat_interleave(e),
        )  # fmt: skip
        assert theirs is not None
        shifted = self._shifted(theirs.view(n, e, *self.grid))  # (N, E, S, h, w)
        return (shifted - own[:, None, None]).flatten(3)

    def _cells(self, parts: Decomposition, size: torch.Size, one: Tensor, other: Tensor) -> Tensor | None:
        """Evidence for `one` less that for `other`, (M, h, w); None where units have no place."""
        if parts.maps is None or self.units.pooling == "none":
            return None
        weights = parts.weights_for(one) - parts.weights_for(other)
        reference, scores = self.units.reference, parts.scores
        if reference is not None and self.units.pooling not in ("mean", "sum"):  # of sums it cancels
            scores = scores - reference.to(scores)
        return spread_out(
            weights * scores, parts.maps, self.units.pooling, self.grid, image_size=size, boxes=parts.boxes,
            group=self.units.group,
        )  # fmt: skip

    def _slopes(self, predicted: Tensor) -> Tensor:
        """The same by the margin's slope in pixels, for units without a place: right for small changes."""
        with torch.enable_grad():
            inputs = self.images.detach().clone().requires_grad_()
            logits = self.explainer.network(inputs)
            margin = logits.gather(1, self.targets[:, None]) - logits.gather(1, predicted[:, None])
            (slope,) = torch.autograd.grad(margin.sum(), inputs)
        found = []
        e = self.bank.ids.shape[1]
        for s in range(len(self.shifts)):
            index = torch.full((len(self.images), e), s, device=self.device)
            chosen = torch.arange(e, device=self.device).expand(len(self.images), e)
            other = self._laid(chosen, index)
            change = (other - self.images[:, None]) * slope[:, None]
            if self.of_rows:
                found.append(change)
                continue
            pooled = F.adaptive_avg_pool2d(change.sum(2), self.grid).flatten(2)
            found.append(pooled * (change[0, 0, 0].numel() / pooled.shape[2]))
        gains = torch.stack(found, 2)
        inside = self._shifted(gains.new_zeros(1, 1, *self.grid)).flatten(
            3
        )  # -inf where nothing is laid over
        return gains + inside

    def _ids(self) -> Tensor:
        """Of the bank's images for each target, (N, E); -1 where there is none."""
        row = self.bank.row[self.targets.cpu()]
        return self.bank.ids[row].masked_fill((row < 0)[:, None], -1).to(self.device)

    def _shifted(self, cells: Tensor) -> Tensor:
        """Cells (N, E, h, w) under every shift: (N, E, S, h, w); -inf where nothing comes to lie."""
        h, w = self.grid
        reach = int(self.shifts.abs().max())
        padded = F.pad(cells, [reach] * 4, value=-torch.inf)
        starts = (reach - self.shifts).tolist()
        return torch.stack([padded[..., y : y + h, x : x + w] for y, x in starts], 2)

    def _laid(self, chosen: Tensor, shift: Tensor) -> Tensor:
        """The bank's images `chosen` (N, Q) under their shifts, (N, Q, 3, H, W)."""
        row = self.bank.row.to(self.device)[self.targets]
        images = self.bank.images[row[:, None], chosen]
        if self.of_rows:
            return images
        size = images.shape[-2:]
        moves = self.shifts.to(self.device)[shift]  # (N, Q, 2)
        places = []
        for axis in range(2):
            step = (moves[..., axis] * size[axis] / self.grid[axis]).round().long()
            along = torch.arange(size[axis], device=self.device) - step[..., None]
            places.append(along.clamp(0, size[axis] - 1))
        n, q = chosen.shape
        image = torch.arange(n * q, device=self.device).view(n * q, 1, 1)
        y, x = places[0].view(n * q, -1, 1), places[1].view(n * q, 1, -1)
        laid = images.flatten(0, 1).permute(0, 2, 3, 1)[image, y, x]
        return laid.permute(0, 3, 1, 2).unflatten(0, (n, q))

    def _mixed(self, images: Tensor, sources: Tensor, regions: Tensor) -> Tensor:
        """Images (M, 3, H, W) with cells `regions` (M, P) of `sources` laid over."""
        if self.of_rows:
            return torch.where(regions, sources, images)
        mask = F.interpolate(regions.view(-1, 1, *self.grid).float(), images.shape[-2:], mode="nearest") > 0
        return torch.where(mask, sources, images)

    def _asked(self, images: Tensor) -> Tensor:
        self.passes += len(images)
        return torch.cat([self.explainer.network(some) for some in images.split(256)])

    def _grown(self, order: Tensor, lengths: Tensor, sources: Tensor, known: Tensor) -> Tensor:
        """For each candidate the shortest run of its cells, of those tried, that does: (N, Q, P)."""
        n, q, p = order.shape
        rank = order.argsort(2)
        most = torch.minimum(self.valid, torch.tensor(max(1, int(MOST * p)), device=self.device))
        length = torch.minimum(lengths, most)
        masks = torch.zeros(n, q, p, dtype=torch.bool, device=self.device)
        pending = known & (self.parts.logits.argmax(1) != self.targets)[:, None]
        while pending.any():
            tried = rank < length[..., None]
            image, place = pending.nonzero(as_tuple=True)
            mixed = self._mixed(self.images[image], sources[image, place], tried[image, place])
            won = self._asked(mixed).argmax(1) == self.targets[image]
            masks[image[won], place[won]] = tried[image[won], place[won]]
            pending = pending & (length < most)
            pending[image[won], place[won]] = False
            length = torch.minimum((length * 1.3).ceil().long().clamp(min=1), most)
        return masks

    def _pruned(self, masks: Tensor, order: Tensor, sources: Tensor) -> Tensor:
        """Without the cells that are not needed: each is undone, the weakest first, until none can be."""
        masks = masks.clone()
        changed = masks.any(2)
        while changed.any():
            changing = torch.zeros_like(changed)
            for place in range(order.shape[2] - 1, -1, -1):
                cell = order[:, :, place : place + 1]
                there = masks.gather(2, cell)[..., 0] & changed
                image, which = there.nonzero(as_tuple=True)
                if not len(image):
                    continue
                tried = masks[image, which].scatter(1, cell[image, which], False)
                mixed = self._mixed(self.images[image], sources[image, which], tried)
                won = (self._asked(mixed).argmax(1) == self.targets[image]) & tried.any(1)
                masks[image[won], which[won]] = tried[won]
                changing[image[won], which[won]] = True
            changed = changing
        return masks
