"""What would change a decision: the features of another image's parts, or attention that looks elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from attrs import define, evolve
from torch import Tensor

import explainkit as ek
from explainkit.data.types import Batch, ImageDataset
from explainkit.explainers.interface import Explainer
from explainkit.explanations.counts import check_count
from explainkit.explanations.edits import ScoreEdits
from explainkit.explanations.factored_maps import FactoredMaps
from explainkit.explanations.sentences import listed
from explainkit.explanations.spatial import best_cells
from explainkit.questions.goals import Goals
from explainkit_macnn.explainer import part_names
from explainkit_macnn.model import MACNNNetwork

ALL_SUBSETS_OF = 6
"""Up to so many parts all sets of them are tried; of more, the parts that gain most, one after the other."""

Size = Sequence[int]
"""Height and width."""

CHUNK = 2**22
"""Most logits that are worked out at once."""


@define(eq=False, kw_only=True)
class PartSwap(ek.CounterfactualMethod):
    """The fewest parts whose features would have to be those of an image of the target, and of which image.

    ``S_c(A) = sum_(i in A) C_i P'_i + sum_(i not in A) C_i P_i + c`` for every set A of parts and every
    exemplar; of the smallest sets that reach the target, the one that moves the part features least. The
    head is additive in parts, so that nothing is approximated. Whether such an image exists is not claimed.

    Parameters
    ----------
    exemplars : int
        Images of the target that are tried, the first of the distractors.
    """

    needs_distractors: ClassVar[bool] = True

    exemplars: int = 20

    def __attrs_post_init__(self) -> None:
        check_count("exemplars", self.exemplars)

    @classmethod
    def supports(cls, explainer: Explainer) -> bool:
        """Networks of this plugin alone."""
        return isinstance(explainer.network, MACNNNetwork)

    def search(self, question: ek.CounterfactualQuestion) -> ScoreEdits:
        """The part features with those that were swapped in, and what the network's head says of them."""
        network = _network(question)
        scores = question.explanations.scores
        after, texts = scores.clone(), _no_texts(len(scores))
        for kind in question.goals.kind.unique().tolist():
            rows = (question.goals.kind == kind).nonzero()[:, 0]
            ids, sources = self._exemplars(question, int(rows[0]))
            if not len(ids):
                continue
            chosen, swapped, is_reached = part_swaps(
                network, scores[rows], sources.to(scores), question.goals.select(rows)
            )
            after[rows] = torch.where(
                swapped.repeat_interleave(network.channels, 1), sources.to(scores)[chosen], scores[rows]
            )
            for row, source, parts, has_edit in zip(
                rows.tolist(), ids[chosen.cpu()].tolist(), swapped.tolist(), is_reached.tolist(), strict=True
            ):
                if has_edit and any(parts):
                    texts[row] = _swap_text(parts, source)
        return evolve(question.score_edits(after), descriptions=tuple(texts))

    def _exemplars(self, question: ek.CounterfactualQuestion, row: int) -> tuple[Tensor, Tensor]:
        """Ids (M,) of images that are what image `row` shall become, and their part features (M, K)."""
        goals, distractors = question.goals, question.distractors
        target, wanted = int(goals.targets[row]), bool(goals.wanted[row])
        split = distractors.train if isinstance(distractors, ImageDataset) else distractors
        assert split is not None  # needs_distractors
        classes = question.explanations.logits.shape[1]
        truth = goals.decision.truth(split.labels.cpu(), classes)[:, target]
        positions = (truth == wanted).nonzero()[: self.exemplars, 0]
        if isinstance(split, Batch):
            images, ids = split.images[positions.to(split.images.device)], split.ids.cpu()[positions]
        else:
            images, ids = split.batch(positions).images, positions
        if not len(positions):
            return ids, question.explanations.scores[:0]
        images = question.explainer.input_spec.from_unit(images)
        sources = question.explainer.explain(images, target, maps=None, batch_size=question.batch_size)
        return ids, sources.scores


def part_swaps(
    network: MACNNNetwork, scores: Tensor, sources: Tensor, goals: Goals
) -> tuple[Tensor, Tensor, Tensor]:
    """The fewest parts to swap in each of N images, and from which of M exemplars.

    Parameters
    ----------
    scores, sources : Tensor, (N, P D) and (M, P D)
        Part features of the images, and of the exemplars.
    goals : Goals
        Of the images.

    Returns
    -------
    exemplars : Tensor, (N,), int64
    swapped : Tensor, (N, P), bool
        Nothing where no set of parts reaches the goal.
    is_reached : Tensor, (N,), bool
    """
    parts, classes = network.parts, network.heads.bias.shape[1]
    sets = 2**parts if parts <= ALL_SUBSETS_OF else parts + 1
    step = max(1, CHUNK // (len(sources) * sets * classes))
    chunks = torch.arange(len(scores), device=scores.device).split(step)
    columns = zip(*(_part_swaps(network, scores[i], sources, goals.select(i)) for i in chunks), strict=True)
    exemplars, swapped, is_reached = (torch.cat(column) for column in columns)
    return exemplars, swapped, is_reached


def _part_swaps(
    network: MACNNNetwork, scores: Tensor, sources: Tensor, goals: Goals
) -> tuple[Tensor, Tensor, Tensor]:
    """`part_swaps` of few images."""
    shape = (network.parts, network.channels)
    own, other = scores.unflatten(1, shape), sources.unflatten(1, shape)
    with torch.no_grad():
        of_own, of_other = (network.scale * network.heads(part) for part in (own, other))  # (., P, C)
    before, added = of_own.sum(1), of_other - of_own[:, None]  # (N, C), (N, M, P, C)
    if network.parts <= ALL_SUBSETS_OF:
        subsets = _all_subsets(network.parts, added).expand(*added.shape[:2], -1, -1)  # (N, M, S, P)
    else:
        subsets = largest_gains(part_gains(added, before.argmax(1), goals))
    logits = before[:, None, None] + torch.einsum("nmsp,nmpc->nmsc", subsets, added)
    (n, _, s), parts = subsets.shape[:3], subsets.sum(3)
    is_reached = _are_reached(logits, goals)
    moved = (other - own[:, None]).square().sum(3)  # (N, M, P)
    least = parts.where(is_reached, torch.inf).amin((1, 2), keepdim=True)
    distance = torch.einsum("nmsp,nmp->nms", subsets, moved)
    distance = distance.where(is_reached & (parts == least), torch.inf)
    best, rows = distance.flatten(1).argmin(1), torch.arange(n, device=distance.device)
    has_edit = is_reached.flatten(1).any(1)
    swapped = subsets.flatten(1, 2)[rows, best].bool() & has_edit[:, None]
    return best // s, swapped, has_edit


def part_gains(added: Tensor, foils: Tensor, goals: Goals) -> Tensor:
    """How much closer each of `added` logits (N, ..., C) brings the goal, (N, ...).

    The head is additive in parts: of all sets of m parts, that of the m largest gains closes the gap to
    `foils` (N,), the classes that win as it is, most.
    """
    index = goals.targets.view(-1, *[1] * (added.ndim - 1)).expand(*added.shape[:-1], 1)
    own = added.gather(-1, index)[..., 0]
    if not goals.decision.is_exclusive:
        return own * goals.signs(own).view(-1, *[1] * (own.ndim - 1))
    foil = foils.view(-1, *[1] * (added.ndim - 1)).expand(*added.shape[:-1], 1)
    return own - added.gather(-1, foil)[..., 0]


def largest_gains(gains: Tensor) -> Tensor:
    """Of P gains (..., P) none, the largest, the two largest …: sets of parts, 0 or 1, (..., P + 1, P)."""
    rank = gains.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    sizes = torch.arange(gains.shape[-1] + 1, device=gains.device)[:, None]
    return (rank[..., None, :] < sizes).to(gains)


def _all_subsets(parts: int, like: Tensor) -> Tensor:
    """All sets of parts, 0 or 1, (2^P, P)."""
    numbers = torch.arange(2**parts, device=like.device)[:, None]
    return ((numbers >> torch.arange(parts, device=like.device)) & 1).to(like)


def _are_reached(logits: Tensor, goals: Goals) -> Tensor:
    """Whether each of several logits (N, ..., C) reaches the goal of its image, (N, ...)."""
    shape = logits.shape[:-1]
    rows = torch.arange(len(logits), device=goals.targets.device).repeat_interleave(shape[1:].numel())
    return goals.select(rows).are_reached(logits.reshape(-1, logits.shape[-1])).view(shape)


@define(eq=False, kw_only=True)
class AttentionMove(ek.CounterfactualMethod):
    """The nearest cell that one part would have to look at, and nowhere else, for the target to win.

    The features stay as they are. The attention of part i is 1 at a cell q and 0 elsewhere, so that its
    logits are ``C_i A(:, q) + c_i``, known for all cells at once. Where no cell of a single part is enough,
    parts look at the cells that argue most for the target, those first that gain most.
    """

    @classmethod
    def supports(cls, explainer: Explainer) -> bool:
        """Networks of this plugin alone."""
        return isinstance(explainer.network, MACNNNetwork)

    def search(self, question: ek.CounterfactualQuestion) -> ScoreEdits:
        """The part features with attention elsewhere, and what the network's head says of them."""
        network, maps = _network(question), question.decomposition.maps
        assert isinstance(maps, FactoredMaps)  # all maps are kept where counterfactuals are sought
        grid, peaks = maps.shape[2:], best_cells(maps.attention)
        cells = attention_moves(network, maps.features, peaks, question.explanations.scores, question.goals)
        looked_at = maps.features.flatten(2).mT.gather(
            1, cells.clamp(min=0)[..., None].expand(-1, -1, network.channels)
        )  # (N, P, D)
        own = question.explanations.scores.unflatten(1, (network.parts, network.channels))
        after = torch.where((cells >= 0)[..., None], network.enabled(looked_at), own)
        size = question.images.shape[2:]
        texts = [
            _move_text(*items, grid=grid, size=size)
            for items in zip(peaks.tolist(), cells.tolist(), strict=True)
        ]
        return evolve(question.score_edits(after.flatten(1)), descriptions=tuple(texts))


def attention_moves(
    network: MACNNNetwork, features: Tensor, peaks: Tensor, scores: Tensor, goals: Goals
) -> Tensor:
    """The cell that each part would have to look at alone, (N, P); -1 for parts that stay as they are.

    All are -1 where nothing that was tried reaches the goal.

    Parameters
    ----------
    features : Tensor, (N, D, h, w)
    peaks : Tensor, (N, P)
        Where attention is, as cells counted along rows.
    scores : Tensor, (N, P D)
        Part features as they are.
    """
    per_image = network.parts * features.shape[2] * features.shape[3] * network.heads.bias.shape[1]
    chunks = torch.arange(len(scores), device=scores.device).split(max(1, CHUNK // per_image))
    return torch.cat([
        _attention_moves(network, features[i], peaks[i], scores[i], goals.select(i)) for i in chunks
    ])  # fmt: skip


def added_logits(network: MACNNNetwork, features: Tensor, scores: Tensor) -> Tensor:
    """What is added to the logits where part i looks at cell q alone, (N, P, h w, C)."""
    parts = scores.unflatten(1, (network.parts, network.channels))
    with torch.no_grad():
        weight = network.enabled(network.heads.weight.transpose(0, 1)).transpose(0, 1)  # (P, C, D)
        at_cells = torch.einsum("ndq,pcd->npqc", features.flatten(2), weight)
        as_it_is = torch.einsum("npd,pcd->npc", parts, weight)
    return network.scale * (at_cells - as_it_is[:, :, None])


def _attention_moves(
    network: MACNNNetwork, features: Tensor, peaks: Tensor, scores: Tensor, goals: Goals
) -> Tensor:
    """`attention_moves` of few images."""
    n, parts, width = len(scores), network.parts, features.shape[3]
    added = added_logits(network, features, scores)  # (N, P, q, C)
    with torch.no_grad():
        before = (network.scale * network.heads(scores.unflatten(1, (parts, -1)))).sum(1)
    gains = part_gains(added, before.argmax(1), goals)  # (N, P, q)
    is_reached = _are_reached(before[:, None, None] + added, goals)
    cell = torch.arange(added.shape[2], device=peaks.device)
    down = cell // width - (peaks // width)[..., None]
    along = cell % width - (peaks % width)[..., None]
    distance = (down.square() + along.square()).to(gains).where(is_reached, torch.inf)
    is_nearest = distance == distance.amin((1, 2), keepdim=True)
    best = gains.where(is_nearest & is_reached, -torch.inf).flatten(1).argmax(1)
    moved = torch.full((n, parts), -1, device=peaks.device)
    moved.scatter_(1, (best // added.shape[2])[:, None], (best % added.shape[2])[:, None])
    # several parts, each at its best cell
    gain, at = gains.max(2)
    of_best = added.gather(2, at[..., None, None].expand(-1, -1, 1, added.shape[3]))[:, :, 0]  # (N, P, C)
    subsets = largest_gains(gain)  # (N, P + 1, P)
    several = _are_reached(before[:, None] + torch.einsum("nsp,npc->nsc", subsets, of_best), goals)
    fewest = subsets[torch.arange(n, device=at.device), several.to(torch.uint8).argmax(1)].bool()
    all_at = torch.where(fewest & several.any(1)[:, None], at, -1)
    is_already = _are_reached(before, goals)[:, None]
    found = torch.where(is_reached.flatten(1).any(1)[:, None], moved, all_at)
    return torch.where(is_already, -1, found)


def _no_texts(count: int) -> list[str | None]:
    return [None] * count


def _network(question: ek.CounterfactualQuestion) -> MACNNNetwork:
    network = question.explainer.network
    assert isinstance(network, MACNNNetwork)  # see supports
    return network


def _swap_text(parts: Sequence[bool], source: int) -> str:
    """What was swapped, as the beginning of a sentence."""
    named = [name for name, is_swapped in zip(part_names(len(parts)), parts, strict=True) if is_swapped]
    return f"With the features of {listed(named)} taken from image {source} of the bank"


def _move_text(peaks: Sequence[int], cells: Sequence[int], grid: Size, size: Size) -> str | None:
    """Where parts look instead, as the beginning of a sentence; ``None`` where none does."""
    moves = []
    for name, peak, cell in zip(part_names(len(cells)), peaks, cells, strict=True):
        if cell < 0:
            continue
        down = round((cell // grid[1] - peak // grid[1]) * size[0] / grid[0])
        along = round((cell % grid[1] - peak % grid[1]) * size[1] / grid[1])
        steps = [
            f"{abs(pixels)} pixel{'' if abs(pixels) == 1 else 's'} {ways[pixels > 0]}"
            for pixels, ways in ((down, ("higher", "lower")), (along, ("to the left", "to the right")))
            if pixels
        ]
        moves.append(f"{name} looking {' and '.join(steps) or 'at the middle of its map alone'}")
    return f"With {listed(moves)}" if moves else None
