"""What is said of parts and of filters: sums both ways, places, and which true part each part is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import explainkit as ek
from explainkit.data.types import ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.isolation import running
from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_level import ClassExplanations
from explainkit.explanations.factored_maps import FactoredMaps
from explainkit.explanations.sentences import listed, percent, signed
from explainkit.explanations.single import Explanation
from explainkit.explanations.spatial import distribute_sum
from explainkit.questions.true_scores import check_study
from explainkit_macnn.attention import on_image, peak_points
from explainkit_macnn.callbacks import correct_by_part
from explainkit_macnn.explainer import part_names
from explainkit_macnn.model import MACNNNetwork

CROP_SHARE = 96 / 448
"""The side of a part's crop as a share of the image's: 96 pixels of 448 in the paper."""

NEAR = 0.1
"""How far from a true part a peak is near it, as a share of the image's shorter side."""

MINOR = 0.05
"""The share of all parts' evidence, for and against, below which a sentence leaves a part out."""


def filter_contributions(explanations: Explanations) -> Tensor:
    """What each filter adds at all parts together, (N, D); `Explanations.parent_contributions` is by part.

    Raises
    ------
    InputError
        For explanations by another architecture.
    """
    parts = _count_parts(explanations)
    return explanations.contributions.unflatten(1, (parts, -1)).sum(1)


def part_saliency(explanations: Explanations) -> Tensor:
    """Where the evidence of each part lies, on the grid of its map: (N, P, h, w).

    ``M_i(p) C_i[c] . A(:, p)``; sums to what the part adds. Of a contrast, the difference of both classes.

    Raises
    ------
    InputError
        For explanations by another architecture, and for those without all maps.
    """
    parts, maps = _count_parts(explanations), _factored(explanations)
    contributions = explanations.contributions
    is_of_part = maps.part == torch.arange(parts, device=maps.device)[:, None]  # (P, K)
    return distribute_sum(contributions[:, None] * is_of_part, maps, explanations.units.pooling)


def part_points(explanations: Explanations) -> Tensor:
    """Where the attention of each part peaks, x and y in pixels, (N, P, 2), finer than the grid's cells.

    Raises
    ------
    InputError
        For explanations by another architecture, and for those without all maps.
    """
    attention = _factored(explanations).attention
    peaks = peak_points(attention, refine=True)
    return on_image(peaks, attention.shape[2:], explanations.images.shape[2:])


def part_boxes(explanations: Explanations, share: float = CROP_SHARE) -> Tensor:
    """Squares around the peaks, x0, y0, x1, y1 in pixels, (N, P, 4), int64; moved into the image.

    Parameters
    ----------
    share : float, in (0, 1]
        Side of a square, as a share of the shorter side of the image.
    """
    if not 0 < share <= 1:
        raise InputError(f"Expected share in (0, 1]; got {share!r}.")
    height, width = explanations.images.shape[-2:]
    side = max(1, round(share * min(height, width)))
    limit = torch.tensor([width, height], device=explanations.logits.device) - side
    start = (part_points(explanations) - side / 2).round().long()
    start = torch.minimum(start.clamp(min=0), limit)
    return torch.cat([start, start + side], 2)


def part_sentence(explanation: Explanation) -> str:
    """What each part adds, in words, the largest first; parts that add next to nothing are left out.

    Raises
    ------
    InputError
        For an explanation by another architecture.
    """
    _count_parts(explanation.batch)
    sums = explanation.parent_contributions
    size = sum(map(abs, sums.values()))
    named = sorted(
        (item for item in sums.items() if abs(item[1]) > MINOR * size), key=lambda item: -abs(item[1])
    )
    sides = [
        f"{word} {listed([f'{name} ({signed(value)})' for name, value in named if (value > 0) == is_for])}"
        for word, is_for in (("for it", True), ("against it", False))
        if any((value > 0) == is_for for _, value in named)
    ]
    foil = f" rather than {explanation.foil_name}" if explanation.foil_name else ""
    reasons = ", ".join(sides) or "no part adds anything"
    return f"{explanation.target_name}{foil}: {reasons}."


def class_part_contributions(explanations: ClassExplanations) -> Tensor:
    """What each part adds to the logit of each class, in the mean over images of the class: (M, P).

    Raises
    ------
    InputError
        For explanations by another architecture.
    """
    units = explanations.units
    if units.parent is None or units.parents is None:
        raise InputError(f"Expected explanations whose units are of parts; got {units.kind}s without them.")
    sums = explanations.contributions.new_zeros(len(explanations.contributions), len(units.parents))
    return sums.index_add(1, units.parent, explanations.contributions)


def logits_without_filters(explainer: Explainer, images: Tensor, filters: Sequence[int]) -> Tensor:
    """Logits (N, F, C) of the network where each of F filters in turn responds nowhere.

    Unlike a unit that is switched off, after attention, this moves attention too. So the logit changes by
    something else than `filter_contributions` says, and the difference is what the filter does by steering.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W)
        As the network takes them.

    Raises
    ------
    InputError
        For an explainer of another architecture, and for filters that there are not.
    """
    network = network_of(explainer)
    if not all(type(j) is int and 0 <= j < network.channels for j in filters):
        raise InputError(f"Expected filters as numbers in 0 … {network.channels - 1}; got {filters!r}.")
    with running(network) as twin, torch.no_grad():
        assert isinstance(twin, MACNNNetwork)
        features = twin.features(explainer.read_images(images))
        keeps = features.new_ones(len(filters), network.channels)
        keeps[torch.arange(len(filters)), list(filters)] = 0
        silenced = features[:, None] * keeps[:, :, None, None]  # (N, F, D, h, w)
        return twin.attend(silenced.flatten(0, 1)).logits.unflatten(0, silenced.shape[:2])


@frozen(eq=False, kw_only=True)
class PartMatch:
    """Which of Q true parts each of P parts is taken for, each true part once.

    Attributes
    ----------
    true_part : Tensor, (P,), int64
        -1 where there are more parts than true ones.
    near : Tensor, (P, Q)
        In which share of the images where a true part is seen each part's peak is near it.
    """

    true_part: Tensor
    near: Tensor = field(repr=False)


def match_parts(points: Tensor, key_points: Tensor, radius: float) -> PartMatch:
    """The assignment of parts to true parts by which most peaks are within `radius` of theirs (Kuhn, 1955).

    Parameters
    ----------
    points : Tensor, (N, P, 2)
        x and y in pixels.
    key_points : Tensor, (N, Q, 3)
        x and y in pixels, and 1 where the true part is seen.
    radius : float
        In pixels.
    """
    points, key_points = points.double().cpu(), key_points.double().cpu()
    is_seen = key_points[:, None, :, 2] > 0
    is_near = (torch.cdist(points, key_points[..., :2]) <= radius) & is_seen  # (N, P, Q)
    near = is_near.double().sum(0) / is_seen.sum(0).clamp(min=1)
    rows, columns = linear_sum_assignment(near.numpy(), maximize=True)
    true_part = torch.full((points.shape[1],), -1)
    true_part[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return PartMatch(true_part=true_part, near=near)


def matched_distances(points: Tensor, key_points: Tensor, true_part: Tensor) -> Tensor:
    """How far each part's peak is from its true part, (N, P) in pixels; NaN where that is not seen."""
    index = true_part.clamp(min=0)
    there = key_points.double().cpu()[:, index]  # (N, P, 3)
    gap = (points.double().cpu() - there[..., :2]).norm(dim=2)
    return gap.where((there[..., 2] > 0) & (true_part >= 0), torch.nan)


def are_near(points: Tensor, key_points: Tensor, true_part: Tensor, radius: float) -> Tensor:
    """Whether each part's peak is within `radius` of its true part, (N, P), 0 or 1; NaN where that is unseen.

    Its mean is the share of correct key points (Yang and Ramanan, TPAMI 35, 2013).
    """
    distance = matched_distances(points, key_points, true_part)
    return (distance <= radius).double().where(~distance.isnan(), torch.nan)


@frozen(eq=False, kw_only=True)
class PartReport:
    """What parts are, on the images of a split.

    Attributes
    ----------
    names : tuple of str, P
    true_parts : tuple of str or None, P
        What each is taken for, on other images; ``None`` for data without key points.
    distance : Tensor, (P,)
        Of its peak from there, in pixels, in the mean over images; NaN where not known.
    near : Tensor, (P,)
        In which share of images with that true part the peak is within `radius` of it.
    radius : float
        In pixels.
    accuracy : Tensor, (P,)
        How often the part alone is right.
    num_filters : Tensor, (P,)
        Filters that belong to it more than to no part, in the mean over images.
    stability : Tensor, (P,)
        Standard deviation of the membership of filters over images, in the mean over filters: 0 where
        grouping does not depend on the image.
    filters : tuple of tuple of int, P
        The filters that belong to it most.
    """

    names: tuple[str, ...]
    true_parts: tuple[str | None, ...]
    distance: Tensor
    near: Tensor
    radius: float
    accuracy: Tensor
    num_filters: Tensor
    stability: Tensor
    filters: tuple[tuple[int, ...], ...]

    def text(self) -> str:
        """As plain text, a line a part."""
        lines = []
        for i, name in enumerate(self.names):
            place = "no true parts are known"
            if self.true_parts[i] is not None:
                near = f"within {self.radius:.1f} of it in {percent(float(self.near[i]))}"
                place = f"{self.true_parts[i]}, {float(self.distance[i]):.1f} pixels off, {near}"
            numbers = ", ".join(map(str, self.filters[i]))
            lines.append(
                f"{name}: {place}; alone right in {percent(float(self.accuracy[i]))}; "
                f"{float(self.num_filters[i]):.1f} filters, such as {numbers}; "
                f"membership varies by {float(self.stability[i]):.3f}"
            )
        return "\n".join(lines)


def part_report(
    explainer: Explainer,
    dataset: ImageDataset,
    split: str = "test",
    *,
    match_split: str = "validation",
    shown: int = 4,
    batch_size: int = 128,
) -> PartReport:
    """What each part is: which true part, how right alone, and of which filters.

    Which true part a part is taken for is settled on `match_split`, so that chance does not choose the best.

    Raises
    ------
    NotFittedError
        Before `fit`.
    InputError
        For an explainer of another architecture, a data set of other classes, and a split without images.
    """
    check_study(explainer, dataset)
    network = network_of(explainer)
    explainer.check_classes(dataset)
    for name in (split, match_split):
        if not len(dataset.split(name)):
            raise InputError(f"Expected images in the split {name!r}; {dataset.name} has none there.")
    seen = _look(explainer, network, dataset, split, batch_size)
    radius = NEAR * min(dataset.size)
    missing = torch.full((network.parts,), torch.nan, dtype=torch.float64)
    true_parts: tuple[str | None, ...] = (None,) * network.parts
    distance, near = missing, missing
    if seen.key_points is not None:
        other = _look(explainer, network, dataset, match_split, batch_size)
        assert other.key_points is not None
        true_part = match_parts(other.points, other.key_points, radius).true_part
        distance = matched_distances(seen.points, seen.key_points, true_part).nanmean(0)
        near = are_near(seen.points, seen.key_points, true_part, radius).nanmean(0)
        true_parts = tuple(dataset.parts[q] if q >= 0 else None for q in true_part.tolist())
    strongest = seen.membership.mean(0).argsort(dim=1, descending=True)[:, :shown].tolist()
    return PartReport(
        names=tuple(part_names(network.parts)), true_parts=true_parts, distance=distance, near=near,
        radius=radius, accuracy=seen.correct.mean(0),
        num_filters=(seen.membership > 0.5).sum(2).double().mean(0),
        stability=seen.membership.std(0, correction=0).mean(1), filters=tuple(map(tuple, strongest)),
    )  # fmt: skip


@frozen(eq=False, kw_only=True)
class _Seen:
    """What one pass over a split gives."""

    points: Tensor  # (N, P, 2), pixels
    membership: Tensor  # (N, P, D)
    correct: Tensor  # (N, P)
    key_points: Tensor | None  # (N, Q, 3)


def _look(
    explainer: Explainer, network: MACNNNetwork, dataset: ImageDataset, split: str, batch_size: int
) -> _Seen:
    points, membership, correct, key_points = [], [], [], []
    with running(network) as twin, torch.no_grad():
        assert isinstance(twin, MACNNNetwork)
        for batch in dataset.batches(split, batch_size):
            images = explainer.read_images(batch)
            outputs = twin.outputs(images)
            peaks = peak_points(outputs.attention, refine=True)
            points.append(on_image(peaks, outputs.attention.shape[2:], images.shape[2:]).cpu())
            membership.append(outputs.membership_logits.sigmoid().double().cpu())
            correct.append(correct_by_part(outputs, batch, dataset).double().cpu())
            if batch.key_points is not None:
                key_points.append(batch.key_points)
    return _Seen(
        points=torch.cat(points), membership=torch.cat(membership), correct=torch.cat(correct),
        key_points=torch.cat(key_points) if key_points else None,
    )  # fmt: skip


def network_of(explainer: Explainer) -> MACNNNetwork:
    """The network of an explainer of this architecture.

    Raises
    ------
    InputError
        For another one.
    """
    network = explainer.network
    if not isinstance(network, MACNNNetwork):
        raise InputError(f"Expected an explainer of MA-CNN; got {explainer.card.title}.")
    return network


def _count_parts(explanations: Explanations) -> int:
    """How many parts explanations have; refused where units are not parts by filters."""
    units = explanations.units
    count = 0 if units.parents is None else len(units.parents)
    if units.parent is None or not count or len(units) % count:
        raise InputError(
            f"Expected explanations by MA-CNN, whose units are filters at parts; these are by "
            f"{explanations.provenance.explainer}."
        )
    return count


def _factored(explanations: Explanations) -> FactoredMaps:
    """The maps of explanations as attention and features."""
    _count_parts(explanations)
    if not isinstance(explanations.maps, ek.FactoredMaps):
        raise InputError(
            'Expected explanations with the maps of all units; call explain(images, maps="all").'
        )
    return explanations.maps
