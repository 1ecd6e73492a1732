"""Conceptizers: what there is in an image, as K numbers, and the image drawn again from them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explainkit.errors import InputError


class Conceptizer(nn.Module, ABC):
    """Inputs to K concepts (N, K), and back."""

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """How much of each concept is in `inputs`: (N, K)."""

    @abstractmethod
    def decode(self, concepts: Tensor) -> Tensor | None:
        """`concepts` (N, K) as inputs again; ``None`` where they are the inputs."""


class ConvConceptizer(Conceptizer):
    """Concepts of images: an autoencoder whose bottleneck is K numbers (appendix of the paper, figure 6).

    A concept is a map of its own, read by one linear layer that all concepts share, so that what a concept is
    and where it is looked for are learned apart.

    Parameters
    ----------
    concepts, channels : int
    size : (int, int)
        Of the images, multiples of 4.
    width : int
        Of its hidden layers.

    Raises
    ------
    InputError
        For a size that cannot be halved twice.
    """

    def __init__(self, concepts: int, channels: int, size: Sequence[int], width: int = 16) -> None:
        super().__init__()
        if len(size) != 2 or any(side < 8 or side % 4 for side in size):
            raise InputError(
                f"Expected images with sides of a multiple of 4, from 8 on; got {tuple(size)}. Resize them."
            )
        self.shape = tuple(size)
        halvings = max(2, math.floor(math.log2(min(size) / 4)))
        while any(side % 2**halvings for side in size):
            halvings -= 1
        self.grid = [side // 2**halvings for side in size]
        downwards: list[nn.Module] = []
        for step in range(halvings):
            last = step == halvings - 1
            downwards += [
                nn.Conv2d(channels if step == 0 else width, concepts if last else width, 5, 2, 2),
                nn.Identity() if last else nn.ReLU(),
            ]
        self.downwards = nn.Sequential(*downwards)
        cells = self.grid[0] * self.grid[1]
        self.read = nn.Linear(cells, 1)
        self.offset = nn.Parameter(torch.zeros(concepts))
        self.draw = nn.Linear(1, cells)
        upwards: list[nn.Module] = []
        for step in range(halvings):
            last = step == halvings - 1
            upwards += [
                nn.ConvTranspose2d(concepts if step == 0 else width, channels if last else width, 4, 2, 1),
                nn.Sigmoid() if last else nn.ReLU(),
            ]
        self.upwards = nn.Sequential(*upwards)
        for layer in self.downwards:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.read.weight, std=4 / cells**0.5)

    @torch.no_grad()
    def init_scale(self, inputs: Tensor) -> None:
        """Bring each concept to mean 1 and deviation 1 on `inputs` (N, c, H, W), before anything is learned.

        Weights learn by concepts, and concepts by weights. Where concepts begin around 0, every weight is
        pulled one way by one half of the images and the other way by the other, and some runs stay behind.
        """
        last = [layer for layer in self.downwards if isinstance(layer, nn.Conv2d)][-1]
        last.weight /= self.encode(inputs).std(0).clamp(min=1e-3)[:, None, None, None]
        self.offset.add_(1 - self.encode(inputs).mean(0))

    def encode(self, inputs: Tensor) -> Tensor:
        """Images (N, c, H, W) in [0, 1] to (N, K)."""
        if tuple(inputs.shape[-2:]) != self.shape:
            raise InputError(
                f"Expected images of {self.shape}, which the concepts were learned on; got "
                f"{tuple(inputs.shape[-2:])}. Resize them."
            )
        return self.read(self.downwards(inputs - 0.5).flatten(2))[..., 0] + self.offset

    def decode(self, concepts: Tensor) -> Tensor:
        """(N, K) to images (N, c, H, W) in [0, 1]."""
        maps = self.draw(concepts[..., None]).unflatten(2, self.grid)
        return self.upwards(maps)


class IdentityConceptizer(Conceptizer):
    """Concepts of a table: its columns themselves (the paper's choice for such data)."""

    def encode(self, inputs: Tensor) -> Tensor:
        """Rows (N, F) to (N, F)."""
        return inputs

    def decode(self, concepts: Tensor) -> None:
        """Nothing has to be drawn: the concepts are the inputs."""
        return None
