"""The small network that the paper weighs concepts of MNIST with."""

from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.networks.backbones import Backbone


class LeNet(Backbone):
    """Two convolutions of 5 x 5, each followed by max pooling and a ReLU (appendix of the paper)."""

    channels = 20
    stride = 4
    receptive_field, first_pixel = 16, 0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.Dropout2d(0.5), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 20, h, w), by the mean of the colors."""
        if min(images.shape[-2:]) < self.receptive_field:
            raise InputError(
                f"Expected images of {self.receptive_field} pixels at least; got {tuple(images.shape[-2:])}."
            )
        return self.layers(images.mean(1, keepdim=True))
