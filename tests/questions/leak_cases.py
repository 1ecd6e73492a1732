"""Networks whose cells see their own patch alone, and ones that look at the whole image beside."""

from copy import copy

import torch
from attrs import evolve
from torch import Tensor, nn

from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.testing import fitted_example
from explainkit_cam.explainer import CAM

PATCH = 4
CLASSES = ("a", "b")


class LessMean(nn.Module):
    """Images less a multiple of their own mean: every pixel depends on every other."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, images: Tensor) -> Tensor:
        return images - self.share * images.mean((1, 2, 3), keepdim=True)


def patch_cam(share: float = 0.0, *, claim: bool = True, dead: int = 0, **units: object) -> CAM:
    """CAM of patches of 4 x 4 pixels, of images less `share` of their mean; it claims that cells see no more.

    The first `dead` of its 8 filters find nothing.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        LessMean(share), nn.Conv2d(3, 8, PATCH, PATCH), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(CLASSES)),
    ).eval()  # fmt: skip
    with torch.no_grad():
        network[1].weight[:dead], network[1].bias[:dead] = 0, -1
    model = CAM.from_network(network, classes=CLASSES, size=(16, 16))
    field = ReceptiveField(size=PATCH, stride=PATCH, first_pixel=0) if claim else None
    model.units = evolve(model.units, receptive_field=field, **units)
    return model


def noise_dataset(count: int = 8) -> ImageDataset:
    """Images of noise, more and less bright, in two classes, of which nothing can be redrawn."""
    generator = torch.Generator().manual_seed(3)
    brightest = torch.linspace(60, 255, count)[torch.randperm(count, generator=generator)]
    images = (torch.rand(count, 3, 16, 16, generator=generator) * brightest[:, None, None, None]).byte()
    split = ArraySplit(images=images, labels=torch.arange(count) % 2)
    return ImageDataset(
        name="noise", classes=CLASSES, size=(16, 16),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip


def example(name: str) -> object:
    """`fitted_example`, whose units may be changed."""
    return copy(fitted_example(name))


def overlap(start: float, stop: float, pixel: int) -> float:
    """Which length of [start, stop) lies on a pixel."""
    return max(0.0, min(stop, pixel + 1.0) - max(start, float(pixel)))


def slow_cell_pixels(box: list[float], grid: list[int], size: list[int]) -> dict[tuple[int, int], dict]:
    """For each cell of a map in `box` the pixels that it lies on, each with its share of the cell."""
    x0, y0, x1, y1 = box
    height, width = (y1 - y0) / grid[0], (x1 - x0) / grid[1]
    pixels_of = {}
    for row in range(grid[0]):
        for column in range(grid[1]):
            pixels = {}
            for y in range(size[0]):
                down = overlap(y0 + row * height, y0 + (row + 1) * height, y) / height
                if down <= 1e-6:
                    continue
                for x in range(size[1]):
                    across = overlap(x0 + column * width, x0 + (column + 1) * width, x) / width
                    if across > 1e-6:
                        pixels[y, x] = down * across
            pixels_of[row, column] = pixels
    return pixels_of
