"""Images that are rotated, skewed and sheared, and with them masks, key points and boxes."""

import math

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn import functional

from explainkit.data.geometry import mark_visible
from explainkit.data.random_keys import Keys, random_keys, uniform
from explainkit.data.types import Batch


@frozen(kw_only=True)
class RotateSkewShear:
    """Rotate, skew or shear each image, each as likely, and mirror half of them: for whole batches at once.

    What the authors of ProtoPNet did to every training image of CUB-200-2011, thirty times beforehand; here
    it is done anew in every epoch. Images are enlarged until nothing beyond their border shows.

    Attributes
    ----------
    rotation, shear : float
        Degrees at most, in either direction.
    skew : float
        How far at most one corner, or the two of one side, are pulled outwards: a share of the longer side.
    mirror : float
        How often.

    References
    ----------
    Chen, Li, Tao, Barnett, Su and Rudin, NeurIPS 2019, arXiv:1806.10574, supplement; the numbers are those of
    the authors' code.
    """

    rotation: float = 15
    skew: float = 0.2
    shear: float = 10
    mirror: float = 0.5

    def __call__(self, batch: Batch, seed: int, epoch: int) -> Batch:
        """`batch`, changed."""
        height, width = batch.images.shape[-2:]
        corners = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], dtype=torch.float64)
        targets = self._move_corners(corners, random_keys(seed, epoch, batch.ids.cpu().numpy()))
        inverse = _homography(targets, corners.expand_as(targets))
        device = batch.images.device
        grid = _sampling_grid(inverse, (height, width)).to(device)
        forward = torch.linalg.inv(inverse).float().to(device)
        return evolve(
            batch,
            images=functional.grid_sample(
                batch.images, grid, padding_mode="border", align_corners=False
            ).clamp_(0, 1),
            masks=None if batch.masks is None else _warp_masks(batch.masks, grid),
            key_points=None if batch.key_points is None else mark_visible(
                _project(batch.key_points[..., :2], forward), batch.key_points[..., 2], (height, width)
            ),
            boxes=None if batch.boxes is None else _hull(batch.boxes, forward, (height, width)),
        )  # fmt: skip

    def _move_corners(self, corners: Tensor, keys: Keys) -> Tensor:
        """Where the corners (4, 2) of each image go, (N, 4, 2)."""
        kind, amount, which, mirrored = torch.from_numpy(uniform(keys, 4)).double().unbind(1)
        signed = 2 * amount - 1
        candidates = [
            _rotate(corners, signed * math.radians(self.rotation)),
            _skew(corners, amount * self.skew, which),
            _shear(corners, signed * math.radians(self.shear), which),
        ]
        moved = torch.stack(candidates)[(3 * kind).long(), torch.arange(len(kind))]
        flipped = torch.stack([corners[:, 0].max() - moved[..., 0], moved[..., 1]], 2)
        return torch.where((mirrored < self.mirror)[:, None, None], flipped, moved)


def _rotate(corners: Tensor, angle: Tensor) -> Tensor:
    """Corners (4, 2) turned about the middle by angles (N,), and apart until the image covers itself."""
    middle = corners.mean(0)
    width, height = corners.amax(0).tolist()
    zoom = angle.cos() + angle.sin().abs() * max(width / height, height / width)
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    return middle + zoom[:, None, None] * ((corners - middle) @ turn)


def _shear(corners: Tensor, angle: Tensor, which: Tensor) -> Tensor:
    """Corners (4, 2) sheared across where `which` (N,) is below 1/2, else down, and stretched as far."""
    middle = corners.mean(0)
    x, y = (corners - middle).unbind(1)
    width, height = corners.amax(0).tolist()
    slope = angle.tan()[:, None]
    across = (x + slope * y) / (1 - slope.abs() * height / width), y.expand(len(angle), -1)
    down = x.expand(len(angle), -1), (y + slope * x) / (1 - slope.abs() * width / height)
    return middle + torch.where((which < 0.5)[:, None, None], torch.stack(across, 2), torch.stack(down, 2))


def _skew(corners: Tensor, amount: Tensor, which: Tensor) -> Tensor:
    """Corners (4, 2), one or the two of a side pulled outwards by `amount` (N,) of the longer side."""
    outwards = (corners - corners.mean(0)).sign()
    one = torch.eye(8, dtype=corners.dtype).view(4, 2, 4, 2) * outwards  # corner and direction, then (4, 2)
    sides = torch.stack([one[side, side % 2] + one[(side + 1) % 4, side % 2] for side in range(4)])
    pulls = torch.cat([one.flatten(0, 1), sides])  # (12, 4, 2)
    return corners + pulls[(which * len(pulls)).long()] * (amount * corners.max())[:, None, None]


def _homography(source: Tensor, target: Tensor) -> Tensor:
    """The projective maps (N, 3, 3) that take four points (N, 4, 2) to four others."""
    (u, v), (x, y) = source.unbind(2), target.unbind(2)
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    rows = [
        torch.stack([u, v, one, zero, zero, zero, -u * x, -v * x], 2),
        torch.stack([zero, zero, zero, u, v, one, -u * y, -v * y], 2),
    ]
    solution = torch.linalg.solve(torch.cat(rows, 1), torch.cat([x, y], 1))
    return torch.cat([solution, torch.ones_like(solution[:, :1])], 1).view(-1, 3, 3)


def _sampling_grid(inverse: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each pixel of an image of `size` comes from, (N, H, W, 2), as `grid_sample` counts."""
    height, width = size
    scale = torch.tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]], dtype=inverse.dtype)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], 2).flatten(0, 1)
    return _project(pixels, (scale @ inverse).float()).unflatten(1, size)


def _project(points: Tensor, maps: Tensor) -> Tensor:
    """Points (P, 2) or (N, P, 2) under projective maps (N, 3, 3): (N, P, 2)."""
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ maps.mT
    return homogeneous[..., :2] / homogeneous[..., 2:]


def _warp_masks(masks: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(masks.float(), grid, mode="nearest", align_corners=False) > 0.5


def _hull(boxes: Tensor, forward: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes (N, 4) around what becomes of the boxes, cut at the border."""
    corners = _project(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2), forward)
    border = corners.new_tensor([size[1], size[0]])
    low, high = (torch.minimum(c.clamp(min=0), border) for c in (corners.amin(1), corners.amax(1)))
    return torch.cat([low, high], 1)
