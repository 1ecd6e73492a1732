"""Whether a unit stays with a part: location instability and part interpretability, with their chance levels.

Both are of Zhang, Wu, Zhu: Interpretable Convolutional Neural Networks, CVPR 2018, arXiv:1710.00935, section
5, and are kept as published, faults included; see docs/metrics.md for those. `explainkit.metrics.concepts`
has a score of the same without them.

They are numbers of a unit over many images. What stands for an image is the score and what the image moves it
by, to first order (the influence function: Hampel, JASA 69, 1974): their mean over images is the score
itself, and their spread is what its interval needs. That leaves out how the choice of a unit's best part and
of its threshold varies.
"""

from __future__ import annotations

import torch
from attrs import field, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.factored_maps import dense_maps
from explainkit.explanations.spatial import best_cells, is_localized, paste, resize
from explainkit.metrics.concepts import levels
from explainkit.metrics.context import ExplainerOutput
from explainkit.metrics.results import Better, Score, metric

TOP_IMAGES = 100
"""Images in which a unit is strongest, on which it is judged, as in the authors' code."""

ACTIVE_SHARE, MIN_IOU = 0.005, 0.2
"""Which share of all cells a unit is held to be active in; from which overlap on that is a part."""

PAIRINGS = 20
"""How often maps are paired with the parts of another image, for the chance level."""

DIAGONAL, IMAGES = "share of the diagonal", "share of images"
"""What the two are measured in."""

PASTED = 64
"""Most cells along a side of the grid that maps in boxes are laid on."""

PAIRS = 2**22
"""Most distances that are worked out at once."""


@frozen(eq=False, kw_only=True)
class UnitPartScores:
    """A score of K units, each over N images.

    Attributes
    ----------
    values, chance : Tensor, (K,)
        NaN for units of which nothing can be said. Chance is what the same unit scores where its maps are
        paired with the parts of other images.
    of_images : Tensor, (N,)
        The mean over units, and what each image moves it by; its mean is that of `values`.
    """

    values: Tensor
    chance: Tensor
    of_images: Tensor = field(repr=False)

    @property
    def mean(self) -> float:
        """Over units that have a value."""
        return self.values.nanmean().item()

    @property
    def mean_chance(self) -> float:
        """Of the same units."""
        return self.chance[~self.values.isnan()].nanmean().item()


@metric(better="lower", unit=DIAGONAL)
def location_instability(output: ExplainerOutput) -> Score:
    """How much the distance of a unit's strongest cell from each part varies; chance is in the note.

    Zhang et al., section 5.3, over all units with a place, all parts, and the images of all classes.
    """
    explanations = _of_features(output)
    scores = unit_location_instability(
        unit_maps_of(explanations), landmarks(output), explanations.images.shape[-2:]
    )
    return _score(output, "location-instability", "lower", DIAGONAL, scores)


@metric(better="higher", unit=IMAGES)
def part_interpretability(output: ExplainerOutput) -> Score:
    """In how many images a unit's most active cells are its part, by overlap; chance is in the note.

    Zhang et al., section 5.2, over all units, each for the part that it is most often.
    """
    scores = unit_part_interpretability(
        unit_maps_of(_of_features(output)), output.context.masks.cpu(), seed=output.context.seed
    )
    return _score(output, "part-interpretability", "higher", IMAGES, scores)


def unit_location_instability(
    maps: Tensor,
    points: Tensor,
    image_size: tuple[int, ...],
    *,
    top: int = TOP_IMAGES,
    considered: Tensor | None = None,
) -> UnitPartScores:
    """The standard deviation over images of how far the strongest cell is from a landmark, by unit.

    As shares of the image's diagonal, over the `top` images with the strongest maps of those where the
    landmark is seen; a mean over landmarks. At chance, the strongest cell of each image is paired with the
    landmarks of each other one: what the positions of either give for nothing.

    Parameters
    ----------
    maps : Tensor, (N, K, h, w)
    points : Tensor, (N, P, 3)
        x and y in pixels, and 1 where the landmark is seen.
    image_size : (int, int)
        Height and width.
    considered : Tensor or None, (N, K), bool
        Which images count for which unit, such as those of its class, as the paper has it of several
        classes; all unless given.
    """
    places, strength, has_place = _peaks(maps, image_size)
    usable = has_place if considered is None else has_place & considered
    usable = usable[:, :, None] & (points[:, None, :, 2] > 0)  # (N, K, P)
    order = strength[:, :, None].where(usable, -torch.inf).sort(dim=0, descending=True, stable=True).indices
    chosen = order[: min(top, len(maps))]  # (t, K, P)
    used = usable.gather(0, chosen)
    diagonal = float(image_size[0] ** 2 + image_size[1] ** 2) ** 0.5
    units, parts = (torch.arange(size)[:, None] for size in chosen.shape[1:])
    at = places[chosen, units]  # (t, K, P, 2)
    there = points[..., :2].double()[chosen, parts[:, 0]]
    distance = (at - there).norm(dim=3) / diagonal
    deviation, gap, count = _deviation(distance, used)
    moved = (gap.square() / deviation.square().where(deviation > 0, 1) * (count / (count - 1)) - 1).where(
        used, 0
    )
    influence = moved * (deviation / 2 * len(maps) / count).nan_to_num(0)  # (t, K, P)
    values = deviation.nanmean(1)
    if values.isnan().all():
        raise InputError(
            "Expected a unit and a landmark that are seen in two images together; there is none."
        )
    weights = (~deviation.isnan()).double()
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1) / (~values.isnan()).sum()
    of_images = torch.zeros(len(maps), dtype=torch.float64)
    of_images.index_add_(0, chosen.flatten(), (influence.nan_to_num(0) * weights).flatten())
    chance = torch.cat([
        _paired_deviation(at[:, part], there[:, part], used[:, part]) / diagonal
        for part in torch.arange(maps.shape[1]).split(max(1, PAIRS // (len(chosen) * used[:, 0].numel())))
    ])  # fmt: skip
    return UnitPartScores(values=values, chance=chance.nanmean(1), of_images=of_images + values.nanmean())


def unit_part_interpretability(
    maps: Tensor,
    masks: Tensor,
    *,
    active_share: float = ACTIVE_SHARE,
    min_iou: float = MIN_IOU,
    pairings: int = PAIRINGS,
    seed: int = 0,
) -> UnitPartScores:
    """In which share of the images with a part a unit's active cells overlap it; of its best part, by unit.

    A unit is active in the `active_share` of all cells of all images with its largest values, each cell being
    the pixels that it stands for. It is the part in an image where intersection over union is above
    `min_iou`. At chance, maps are paired with the parts of another image, and the best part is chosen there.

    Parameters
    ----------
    maps : Tensor, (N, K, h, w)
    masks : Tensor, (N, P, H, W), bool
    """
    grid, pixels = maps.shape[2:], masks.shape[2:].numel()
    areas = resize(masks.double(), grid).flatten(2)  # (N, P, h w), pixels of each cell
    is_seen = masks.flatten(2).any(2)
    if not is_seen.any():
        raise InputError("Expected images with parts; in these none is seen.")
    threshold = levels(maps, (active_share,))[0]
    active = (maps.flatten(2) > threshold[:, None]).double()  # (N, K, h w)
    cell = pixels / grid.numel()

    def hits(index: Tensor) -> tuple[Tensor, Tensor]:
        """Where units are parts of the images `index` (N,), (N, K, P); and how often, (K, P)."""
        common = active @ areas[index].mT
        union = cell * active.sum(2)[:, :, None] + areas[index].sum(2)[:, None] - common
        is_part = (common > min_iou * union) & is_seen[index][:, None]
        return is_part, is_part.sum(0).double() / is_seen[index].sum(0).clamp(min=1)

    images = torch.arange(len(maps))
    is_part, share = hits(images)
    values, best = share.max(1)
    count = is_seen.sum(0)[best].clamp(min=1)
    hit = is_part.gather(2, best.expand(len(maps), -1)[..., None])[..., 0].double()  # (N, K)
    influence = (hit - values) * is_seen[:, best] * len(maps) / count
    generator = torch.Generator().manual_seed(seed)
    shifts = (
        (torch.randperm(len(maps) - 1, generator=generator) + 1)[:pairings].tolist() if len(maps) > 1 else []
    )
    paired = [hits((images + shift) % len(maps))[1].amax(1) for shift in shifts]
    chance = torch.stack(paired).mean(0) if paired else torch.full_like(values, torch.nan)
    return UnitPartScores(values=values, chance=chance, of_images=influence.mean(1) + values.mean())


def unit_maps_of(explanations: Explanations) -> Tensor:
    """The maps (N, K, h, w) of all units over the whole image; those in boxes laid on a grid.

    Raises
    ------
    InputError
        Where units have no maps, or some are left out.
    """
    if explanations.maps is None or explanations.map_units is not None:
        raise InputError("Expected the maps of all units; these have none, or kept the strongest alone.")
    maps = dense_maps(explanations.maps.detach()).float().cpu()
    if explanations.boxes is None:
        return maps
    size = explanations.images.shape[-2:]
    group = explanations.units.group
    group = torch.zeros(maps.shape[1], dtype=torch.long) if group is None else group.cpu()
    boxes = explanations.boxes.detach().float().cpu()[:, group]
    laid = paste(
        maps.flatten(0, 1)[:, None], boxes.flatten(0, 1)[:, None], size, [min(side, PASTED) for side in size]
    )
    return laid.unflatten(0, maps.shape[:2])


def landmarks(output: ExplainerOutput) -> Tensor:
    """Where the parts are, (N, P, 3), as `Batch.key_points`: the data's own, else the middle of each mask.

    Raises
    ------
    InputError
        For data without part masks.
    """
    given = output.context.batch.key_points
    if given is not None:
        return given.double().cpu()
    masks = output.context.masks.cpu().double()
    rows, columns = (torch.arange(side).double() + 0.5 for side in masks.shape[2:])
    area = masks.sum((2, 3))
    x, y = (masks.sum(2) @ columns) / area.clamp(min=1), (masks.sum(3) @ rows) / area.clamp(min=1)
    return torch.stack([x, y, (area > 0).double()], 2)


def _of_features(output: ExplainerOutput) -> Explanations:
    if output.explanations.units.kind == "pixels":
        raise InputError("Its units are the pixels for and the pixels against, which stand for no part.")
    return output.explanations


def _score(output: ExplainerOutput, name: str, better: Better, unit: str, scores: UnitPartScores) -> Score:
    silent = int(scores.values.isnan().sum())
    note = f"{len(scores.values) - silent} units, chance {scores.mean_chance:.3f}"
    if silent:
        note += f"; of {silent} more nothing can be said"
    return Score(
        name=name, values=scores.of_images, better=better, unit=unit, note=note, seed=output.context.seed
    )


def _peaks(maps: Tensor, image_size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Where each map is strongest, x and y in pixels (N, K, 2); how strong, and whether at all, (N, K)."""
    (height, width), cells = maps.shape[2:], best_cells(maps)
    x = (cells % width + 0.5) * image_size[1] / width
    y = (cells // width + 0.5) * image_size[0] / height
    return torch.stack([x, y], 2).double(), maps.flatten(2).amax(2).double(), is_localized(maps)


def _deviation(values: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of values (t, ...) that are `used`: the unbiased deviation, NaN below two; each one's gap; how many."""
    count = used.sum(0).double()
    gap = (values - (values * used).sum(0) / count.clamp(min=1)) * used
    deviation = (gap.square().sum(0) / (count - 1).clamp(min=1)).sqrt()
    return deviation.masked_fill(count < 2, torch.nan), gap, count


def _paired_deviation(places: Tensor, points: Tensor, used: Tensor) -> Tensor:
    """The deviation (k, P) of distances between each place (t, k, P, 2) and the points of other images."""
    distance = (places[:, None] - points).norm(dim=4)  # (t, t, k, P)
    other = ~torch.eye(len(places), dtype=torch.bool)[..., None, None]
    return _deviation(distance.flatten(0, 1), (used[:, None] & used & other).flatten(0, 1))[0]
