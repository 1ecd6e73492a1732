"""Regions held against true parts: which region is which part, on some images; how well, on others.

Regions are matched with parts one to one, so that the sum of their overlaps over the first images is largest
(Kuhn, Naval Research Logistics Quarterly 2, 1955). What is measured then is measured on other images, by the
same matches: with many regions some would overlap a part by chance if each image chose its own.
"""

from __future__ import annotations

import torch
from attrs import field, frozen
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from explainkit.errors import InputError


@frozen(eq=False, kw_only=True)
class PartAgreement:
    """How well P parts are found by their regions, over N images.

    Attributes
    ----------
    region_of : Tensor, (P,), int64
        The region that each part was matched with; -1 for a part without one.
    iou : Tensor, (N, P), float64
        Intersection over union of part and region; NaN where the part is not seen.
    distance : Tensor, (N, P), float64
        Pixels between the middles of part and region; NaN where one of the two is not seen.
    """

    region_of: Tensor
    iou: Tensor = field(repr=False)
    distance: Tensor = field(repr=False)

    @property
    def of_images(self) -> Tensor:
        """The mean intersection over union of the parts that are seen, (N,)."""
        return self.iou.nanmean(1)


def hard_regions(shares: Tensor, size: tuple[int, int]) -> Tensor:
    """The region to which each pixel belongs most, by its cell: (N, H, W), int64.

    Parameters
    ----------
    shares : Tensor, (N, K, h, w)
    size : (int, int)
        Height and width of the images.
    """
    labels = shares.argmax(1)[:, None]
    return F.interpolate(labels.double(), size=size, mode="nearest-exact")[:, 0].long()


def overlaps(regions: Tensor, masks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pixels that parts and regions share, and pixels that either has: (N, P, K) each, float64.

    Parameters
    ----------
    regions : Tensor, (N, H, W), int64
        As `hard_regions` gives them, below `count`.
    masks : Tensor, (N, P, H, W), bool
    """
    member = F.one_hot(regions.flatten(1), count).double()  # (N, H W, K)
    parts = masks.flatten(2).double()
    common = parts @ member
    return common, parts.sum(2)[..., None] + member.sum(1)[:, None] - common


def match_regions(regions: Tensor, masks: Tensor, count: int) -> Tensor:
    """The region of each part, (P,): the matches with the largest sum of overlaps over all images together.

    -1 for parts without a region, where there are more parts than regions.
    """
    common, union = (values.sum(0) for values in overlaps(regions, masks, count))
    parts, matched = linear_sum_assignment((common / union.clamp(min=1)).numpy(), maximize=True)
    region_of = torch.full((masks.shape[1],), -1)
    region_of[torch.from_numpy(parts)] = torch.from_numpy(matched)
    return region_of


def part_agreement(regions: Tensor, masks: Tensor, region_of: Tensor, count: int) -> PartAgreement:
    """How well the parts of images are found by the regions `region_of` (P,) that they were matched with.

    A part without a region overlaps nothing.

    Raises
    ------
    InputError
        For regions and masks of different images.
    """
    if regions.shape != (len(masks), *masks.shape[2:]):
        raise InputError(
            f"Expected regions {(len(masks), *masks.shape[2:])} of the images with these masks; got "
            f"{tuple(regions.shape)}."
        )
    common, union = overlaps(regions, masks, count)
    parts, has_region = torch.arange(masks.shape[1]), region_of >= 0
    chosen = region_of.clamp(min=0)
    is_seen = masks.flatten(2).any(2)
    iou = (common / union.clamp(min=1))[:, parts, chosen] * has_region
    centers = _middles(F.one_hot(regions, count).movedim(3, 1))[:, chosen]
    distance = (centers - _middles(masks)).norm(dim=2)
    return PartAgreement(
        region_of=region_of,
        iou=iou.where(is_seen, torch.nan),
        distance=distance.where(is_seen & has_region, torch.nan),
    )


def _middles(masks: Tensor) -> Tensor:
    """The middle of each mask (N, P, H, W), y and x in pixels: (N, P, 2), NaN where it is empty."""
    values = masks.double()
    rows, columns = (torch.arange(side).double() + 0.5 for side in masks.shape[2:])
    area = values.sum((2, 3))
    return torch.stack([values.sum(3) @ rows, values.sum(2) @ columns], 2) / area[..., None]


def region_centers(shares: Tensor) -> Tensor:
    """The middle of each region by its shares (N, K, h, w), x and y as shares of the image: (N, K, 2)."""
    values = shares.double()
    height, width = shares.shape[2:]
    rows, columns = ((torch.arange(side).double() + 0.5) / side for side in (height, width))
    mass = values.sum((2, 3)).clamp(min=1e-12)
    return torch.stack([values.sum(2) @ columns, values.sum(3) @ rows], 2) / mass[..., None]


def landmark_errors(centers: Tensor, points: Tensor, other_centers: Tensor, other_points: Tensor) -> Tensor:
    """How far landmarks are from where a linear regression on regions' middles expects them: (M, P), pixels.

    The regression is fitted, by least squares, on some images and asked about others, as SCOPS and the paper
    do (its section 4.1); there errors are divided by the size of the object's box. NaN where a landmark is
    not seen.

    Parameters
    ----------
    centers, other_centers : Tensor, (N, K, 2) and (M, K, 2)
        Of the images that it is fitted on, and of those that it is asked about.
    points, other_points : Tensor, (N, P, 3) and (M, P, 3)
        x and y in pixels, and 1 where the landmark is seen.
    """
    mean, spread = centers.flatten(1).mean(0), centers.flatten(1).std(0).clamp(min=1e-6)
    inputs, asked = (
        torch.cat([(values.flatten(1) - mean) / spread, torch.ones(len(values), 1).double()], 1)
        for values in (centers.double(), other_centers.double())
    )
    errors = []
    for known, wanted in zip(points.double().unbind(1), other_points.double().unbind(1), strict=True):
        is_seen = known[:, 2] > 0
        fit = torch.linalg.lstsq(inputs[is_seen], known[is_seen, :2], driver="gelsd").solution
        error = (asked @ fit - wanted[:, :2]).norm(dim=1)
        errors.append(error.where(wanted[:, 2] > 0, torch.nan))
    return torch.stack(errors, 1)
