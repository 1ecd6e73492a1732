"""The least move of the latent point that reaches a goal, decoded, encoded again, and asked again.

Distances to prototypes are all of one point, so that none of them can change alone. What is moved is the
point.
"""

from __future__ import annotations

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit.data.types import Batch, ImageDataset
from explainkit.explainers.interface import Explainer
from explainkit.questions.goals import Goals
from explainkit_prototypednn.geometry import constraints_for, nearest_points, quadratic_form
from explainkit_prototypednn.model import LATENT, own_network

MARGIN, ATTEMPTS = 0.01, 12
"""The least lead over all other classes, in logits, and how many leads are tried, unless said."""

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


@torch.no_grad()
def find_moves(
    explainer: Explainer,
    images: Tensor,
    latent: Tensor,
    goals: Goals,
    margin: float,
    attempts: int,
    batch_size: int = 256,
) -> LatentMoves:
    """The moves of `latent` (N, q), of `images` (N, D, H, W) as the network takes them.

    The first is the least with a lead of `margin`. While the picture that is decoded does not hold, the lead
    is `GROWTH` times the one before, `attempts` times in all; a move whose picture never holds is the first.
    """
    network = own_network(explainer.network)
    form, before = quadratic_form(network), latent.detach().double()
    margins = torch.full_like(before[:, 0], margin)
    points = nearest_points(constraints_for(form, goals, margins), before, network.upper)
    after, lengths = points.latent, points.lengths
    pictures, logits = _asked(explainer, images, after, points.is_found, batch_size)
    holds = goals.are_reached(logits) & points.is_found
    for attempt in range(1, attempts):
        rows = (points.is_found & ~holds).nonzero()[:, 0]
        if not len(rows):
            break
        of_rows, lead = goals.select(rows), margins[rows] * GROWTH**attempt
        farther = nearest_points(constraints_for(form, of_rows, lead), before[rows], network.upper)
        drawn, said = _asked(explainer, images[rows], farther.latent, farther.is_found, batch_size)
        better = (farther.is_found & of_rows.are_reached(said)).nonzero()[:, 0]
        rows = rows[better]
        after[rows], lengths[rows] = farther.latent[better], farther.lengths[better]
        margins[rows], holds[rows] = lead[better], True
        pictures[rows], logits[rows] = drawn[better], said[better]
    rounded = after.to(latent.dtype)
    distances = network.distances(rounded)
    at_point = network.head(distances)
    return LatentMoves(
        before=latent, after=rounded, lengths=lengths.to(latent.dtype),
        lower_bound=points.lower_bound.to(latent.dtype), margins=margins.to(latent.dtype),
        is_excluded=points.is_excluded, logits=at_point,
        holds=goals.are_reached(at_point) & points.is_found,
        distances_before=network.distances(latent), distances_after=distances, pictures=pictures,
        picture_logits=logits, picture_holds=holds,
    )  # fmt: skip


def _asked(
    explainer: Explainer, images: Tensor, latent: Tensor, is_found: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """What is decoded, in [0, 1], and its logits, asked as any other image; the image where not found."""
    network, spec = own_network(explainer.network), explainer.input_spec
    points = latent.to(network.prototypes.dtype).split(batch_size)
    pictures = torch.cat([network.pictures(part).clamp(0, 1) for part in points])
    pictures = torch.where(is_found[:, None, None, None], pictures, spec.to_unit(images))
    return pictures, explainer.predict(spec.from_unit(pictures), batch_size=batch_size)


@torch.no_grad()
def nearest_images(
    explainer: Explainer,
    dataset: ImageDataset | Batch,
    latent: Tensor,
    goals: Goals,
    batch_size: int = 256,
) -> NearestImages:
    """The image of `dataset` nearest to each of `latent` (N, q) of which the network says the goal."""
    network = own_network(explainer.network)
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
