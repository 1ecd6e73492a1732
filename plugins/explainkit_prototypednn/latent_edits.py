"""Counterfactuals by the least move of the latent point: decoded, encoded again, and asked again.

Distances to prototypes are all of one point, so that none of them can change alone. What is moved is the
point.
"""

from __future__ import annotations

import torch
from attrs import define, field, frozen
from torch import Tensor

import explainkit as ek
from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.edits import ImageEdits
from explainkit.explanations.sentences import number
from explainkit.questions.goals import Goals
from explainkit_prototypednn.explainer import PrototypeDNN
from explainkit_prototypednn.geometry import constraints_for, nearest_points, quadratic_form
from explainkit_prototypednn.model import LATENT, PrototypeDNNNetwork, squared_distances

GROWTH = 2.0
"""By how much the margin grows from attempt to attempt."""


@frozen(eq=False, kw_only=True)
class LatentMoves:
    """For N images, the nearest latent points at which the goal is reached, and what is decoded there.

    Attributes
    ----------
    before, after : Tensor, (N, q)
        Latent points; equal where none was found.
    lengths, lower_bound : Tensor, (N,)
        Of the moves; and below which no move reaches the goal with the margin of the first attempt.
    margins : Tensor, (N,)
        The lead over all other classes, in logits, that `after` was found for: that of the first attempt
        whose picture holds, else of the first.
    is_excluded : Tensor, (N,), bool
        Whether it is proved that no latent point reaches the goal.
    logits : Tensor, (N, C)
        At `after`, by the network's head.
    holds : Tensor, (N,), bool
        Whether those reach the goal.
    distances_before, distances_after : Tensor, (N, K)
    pictures : Tensor, (N, D, H, W), in [0, 1]
        Decoded from `after`; the images where nothing was found.
    picture_logits : Tensor, (N, C)
        Of `pictures`, encoded again.
    picture_holds : Tensor, (N,), bool
        Whether those reach the goal.
    """

    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    lengths: Tensor
    lower_bound: Tensor
    margins: Tensor
    is_excluded: Tensor
    logits: Tensor = field(repr=False)
    holds: Tensor
    distances_before: Tensor = field(repr=False)
    distances_after: Tensor = field(repr=False)
    pictures: Tensor = field(repr=False)
    picture_logits: Tensor = field(repr=False)
    picture_holds: Tensor

    def __len__(self) -> int:
        return len(self.before)


@frozen(eq=False, kw_only=True)
class NearestImages:
    """For N latent points, the nearest image of some data that the network says the goal of.

    Attributes
    ----------
    ids : Tensor, (N,), int64
        -1 where it says so of none.
    distances : Tensor, (N,)
        In the latent space, not squared; infinite where there is none.
    images : Tensor, (N, D, H, W), in [0, 1]
    """

    ids: Tensor
    distances: Tensor
    images: Tensor = field(repr=False)


@define(eq=False, kw_only=True)
class LatentEdit(ek.CounterfactualMethod):
    """The least move of the latent point that flips the decision, and the picture that is decoded there.

    The point is found in closed form where one boundary decides, see `geometry.nearest_points`. The decoder
    loses something, so that the picture is encoded and asked again: where it does not hold, the move goes on
    to a lead of twice the margin, and so on. Success is that of the picture; the sentence says of both.

    Parameters
    ----------
    margin : float
        Lead over all other classes, or past the threshold of a label, in logits.
    attempts : int
        How many margins are tried, each twice the one before; 1: the least move alone.
    with_nearest : bool
        Also look for the nearest image among the distractors that the network says the target of, which is
        real where the picture is drawn. It takes a pass over them.
    """

    margin: float = 0.01
    attempts: int = 12
    with_nearest: bool = True

    def __attrs_post_init__(self) -> None:
        if isinstance(self.margin, bool) or not isinstance(self.margin, int | float) or not (
            0 < self.margin < float("inf")
        ):  # fmt: skip
            raise InputError(
                f"Expected a margin above 0, in logits; got {self.margin!r}. At 0 two classes are equal."
            )
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise InputError(f"Expected attempts as a whole number from 1 on; got {self.attempts!r}.")
        if not isinstance(self.with_nearest, bool):
            raise InputError(f"Expected with_nearest as True or False; got {self.with_nearest!r}.")

    @classmethod
    def supports(cls, explainer: Explainer) -> bool:
        """PrototypeDNN alone: others have no decoder, and no latent point that all scores follow from."""
        return isinstance(explainer, PrototypeDNN)

    def search(self, question: ek.CounterfactualQuestion) -> ImageEdits:
        """The decoded pictures; in words how far each is and whether it holds, or why there is none."""
        explainer, goals = question.explainer, question.goals
        assert isinstance(explainer, PrototypeDNN)
        latent = question.decomposition.extras[LATENT]
        moves = self.moves(explainer, question.images, latent, goals, question.batch_size)
        nearest = None
        if self.with_nearest and question.distractors is not None:
            nearest = nearest_images(explainer, question.distractors, latent, goals, question.batch_size)
        from_unit = explainer.input_spec.from_unit
        is_edited = moves.picture_holds & ~goals.are_reached(question.explanations.logits)
        images = torch.where(is_edited[:, None, None, None], from_unit(moves.pictures), question.images)
        sources = None
        if nearest is not None and (nearest.ids >= 0).all():
            sources = from_unit(nearest.images)
        names = _target_names(question)
        rows = range(len(moves))
        return ImageEdits(
            images=images, sources=sources, source_label="nearest image of the data taken for",
            descriptions=tuple(_description(moves, nearest, row, names[row]) for row in rows),
            failures=tuple(_failure(moves, nearest, row, names[row]) for row in rows),
        )  # fmt: skip

    @torch.no_grad()
    def moves(
        self, explainer: PrototypeDNN, images: Tensor, latent: Tensor, goals: Goals, batch_size: int = 256
    ) -> LatentMoves:
        """The moves of `latent` (N, q), of `images` (N, D, H, W) as the network takes them."""
        network = explainer.prototype_network
        form = quadratic_form(network)
        n, device = len(latent), latent.device
        before = latent.detach().double()
        margin = torch.full((n,), float(self.margin), dtype=before.dtype, device=device)
        points = nearest_points(constraints_for(form, goals, margin), before, network.upper)
        after, lengths, margins = points.latent, points.lengths, margin.clone()
        pictures, picture_logits = self._asked(explainer, images, after, points.is_found, batch_size)
        holds_picture = goals.are_reached(picture_logits) & points.is_found
        for _ in range(self.attempts - 1):
            rows = (points.is_found & ~holds_picture).nonzero()[:, 0]
            if not len(rows):
                break
            margin = margin * GROWTH
            of_rows = goals.select(rows)
            farther = nearest_points(
                constraints_for(form, of_rows, margin[rows]), before[rows], network.upper
            )
            drawn, logits = self._asked(explainer, images[rows], farther.latent, farther.is_found, batch_size)
            is_better = farther.is_found & of_rows.are_reached(logits)
            rows, better = rows[is_better], is_better.nonzero()[:, 0]
            after[rows], lengths[rows] = farther.latent[better], farther.lengths[better]
            margins[rows], holds_picture[rows] = margin[rows], True
            pictures[rows], picture_logits[rows] = drawn[better], logits[better]
        rounded = after.to(latent.dtype)
        distances_after = squared_distances(rounded, network.prototypes)
        distances_after = torch.where(network.unit_mask, distances_after, network.reference)
        logits = network.head(distances_after)
        distances_before = squared_distances(latent, network.prototypes)
        return LatentMoves(
            before=latent, after=rounded, lengths=lengths.to(latent.dtype),
            lower_bound=points.lower_bound.to(latent.dtype), margins=margins.to(latent.dtype),
            is_excluded=points.is_excluded, logits=logits, holds=goals.are_reached(logits) & points.is_found,
            distances_before=torch.where(network.unit_mask, distances_before, network.reference),
            distances_after=distances_after, pictures=pictures, picture_logits=picture_logits,
            picture_holds=holds_picture,
        )  # fmt: skip

    def _asked(
        self, explainer: PrototypeDNN, images: Tensor, latent: Tensor, is_found: Tensor, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """What is decoded, in [0, 1], and its logits, asked as any other image; as it is where not found."""
        network, spec = explainer.prototype_network, explainer.input_spec
        points = latent.to(network.prototypes.dtype).split(batch_size)
        pictures = torch.cat([network.pictures(part).clamp(0, 1) for part in points])
        pictures = torch.where(is_found[:, None, None, None], pictures, spec.to_unit(images))
        return pictures, explainer.predict(spec.from_unit(pictures), batch_size=batch_size)


@torch.no_grad()
def nearest_images(
    explainer: PrototypeDNN,
    dataset: ImageDataset | Batch,
    latent: Tensor,
    goals: Goals,
    batch_size: int = 256,
) -> NearestImages:
    """The training image of `dataset` nearest to each of `latent` (N, q) of which the network says the goal."""
    network: PrototypeDNNNetwork = explainer.prototype_network
    batches = dataset.batches("train", batch_size) if isinstance(dataset, ImageDataset) else [dataset]
    distances = torch.full((len(latent),), torch.inf, device=latent.device, dtype=latent.dtype)
    ids = torch.full((len(latent),), -1, device=latent.device)
    images = torch.zeros(
        len(latent), network.image_channels, *network.input_size, device=latent.device, dtype=latent.dtype
    )
    for batch in batches:
        inputs = explainer.read_images(batch)
        decomposition = explainer.network.decompose(inputs)  # type: ignore[operator]
        is_goal = _reached(goals, decomposition.logits)  # (N, n)
        apart = torch.cdist(latent, decomposition.extras[LATENT]).masked_fill(~is_goal, torch.inf)
        least, index = apart.min(1)
        is_nearer = least < distances
        distances = torch.where(is_nearer, least, distances)
        ids = torch.where(is_nearer, batch.ids.to(ids.device)[index], ids)
        unit = explainer.input_spec.to_unit(inputs)
        images = torch.where(is_nearer[:, None, None, None], unit[index], images)
    return NearestImages(ids=ids, distances=distances, images=images)


def _reached(goals: Goals, logits: Tensor) -> Tensor:
    """Which of n images with logits (n, C) are what each of N goals wants, (N, n)."""
    if goals.decision.is_exclusive:
        return logits.argmax(1) == goals.targets[:, None]
    return goals.decision.holds(logits).T[goals.targets] == goals.wanted[:, None]


def _target_names(question: ek.CounterfactualQuestion) -> list[str]:
    """What each image shall be, in words."""
    classes, goals = question.explanations.classes, question.goals
    pairs = zip(goals.targets.tolist(), goals.wanted.tolist(), strict=True)
    return [classes[label] if wanted else goals.decision.absent(classes[label]) for label, wanted in pairs]


def _description(moves: LatentMoves, nearest: NearestImages | None, row: int, target: str) -> str | None:
    """How far the latent point moved, and what the real image nearest to it is, if it holds."""
    if not moves.picture_holds[row]:
        return None
    return (
        f"Moved by {_length(moves, row)} in the latent space, decoded and encoded again, it is {target}"
        f"{_real(nearest, row, target)}"
    )


def _failure(moves: LatentMoves, nearest: NearestImages | None, row: int, target: str) -> str | None:
    """Why no picture is the target: none can be, none was found, or it is lost by the decoder."""
    if moves.picture_holds[row]:
        return None
    if moves.is_excluded[row]:
        return (
            f"{target} is out of reach{_real(nearest, row, target)}: at no latent point is it ahead by "
            f"{number(moves.margins[row].item())}."
        )
    if not moves.holds[row]:
        return f"No latent point was found at which it would be {target}{_real(nearest, row, target)}."
    return (
        f"Moved by {_length(moves, row)} in the latent space it would be {target}, but the picture that is "
        f"decoded there is not, once it is encoded again{_real(nearest, row, target)}."
    )


def _length(moves: LatentMoves, row: int) -> str:
    """How far, beside how far the latent point is from 0."""
    return (
        f"{number(moves.lengths[row].item())} (its point is {number(moves.before[row].norm().item())} long)"
    )


def _real(nearest: NearestImages | None, row: int, target: str) -> str:
    """Which real image is nearest, in brackets."""
    if nearest is None:
        return ""
    if nearest.ids[row] < 0:
        return f" (no image of the data is taken for {target})"
    return (
        f" (image {int(nearest.ids[row])} of the data, {number(nearest.distances[row].item())} away, is the "
        f"nearest that is taken for {target})"
    )
