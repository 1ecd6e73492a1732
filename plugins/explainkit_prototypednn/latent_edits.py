"""The counterfactual method of PrototypeDNN: what is decoded where the least move of the point ends."""

from __future__ import annotations

import torch
from attrs import define

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.edits import ImageEdits
from explainkit.explanations.sentences import number
from explainkit_prototypednn.explainer import PrototypeDNN
from explainkit_prototypednn.latent_moves import (
    ATTEMPTS,
    MARGIN,
    LatentMoves,
    NearestImages,
    find_moves,
    nearest_images,
)
from explainkit_prototypednn.model import LATENT


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

    margin: float = MARGIN
    attempts: int = ATTEMPTS
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
        latent = question.decomposition.extras[LATENT]
        moves = find_moves(
            explainer, question.images, latent, goals, self.margin, self.attempts, question.batch_size
        )
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
