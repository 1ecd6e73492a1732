"""The network: an autoencoder, prototypes in its latent space, and a linear layer on distances to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.errors import InputError
from explainkit.explanations.colors import as_rgb
from explainkit.explanations.decomposition import Decomposition
from explainkit.networks.input_scaling import NormalizedNetwork
from explainkit.networks.precision import disable_autocast, full_precision
from explainkit_prototypednn.autoencoder import Activation, Decoder, DecoderKind, Encoder, grid_sizes

Init = Literal["default", "reference"]
"""Of weights: torch's; or the authors', whose convolutions are normal with a deviation of 0.01."""

LATENT = "latent"
"""Name of the latent points among `Decomposition.extras`."""

NEAREST = 3
"""Training images that are kept of each prototype."""


@frozen(eq=False, kw_only=True)
class PrototypeDNNOutputs:
    """What one forward pass gives: for losses, and for the decomposition.

    Attributes
    ----------
    logits : Tensor, (N, C)
    distances : Tensor, (N, K)
        Squared, of the latent point to each prototype; of a prototype that is off, its mean in training.
    latent : Tensor, (N, q)
    reconstruction : Tensor or None, (N, c, H, W)
        What is decoded from the latent point, in the range of the inputs, where it was asked for.
    """

    logits: Tensor
    distances: Tensor
    latent: Tensor
    reconstruction: Tensor | None = None


class Sources(nn.Module):
    """The training images nearest to each prototype; buffers, so that they are saved.

    Attributes
    ----------
    image, label : Tensor, (K, E), int64
        Id in the training split, and class; -1 before training is over, and where there is none.
    distance : Tensor, (K, E)
        Squared, in the latent space.
    picture : Tensor, (K E, 3, H, W), uint8
        The images of the first prototype, then those of the next.
    """

    image: Tensor
    label: Tensor
    distance: Tensor
    picture: Tensor

    def __init__(self, prototypes: int, size: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("image", torch.full((prototypes, NEAREST), -1))
        self.register_buffer("label", torch.full((prototypes, NEAREST), -1))
        self.register_buffer("distance", torch.zeros(prototypes, NEAREST))
        self.register_buffer("picture", torch.zeros(prototypes * NEAREST, 3, *size, dtype=torch.uint8))


class PrototypeDNNNetwork(nn.Module):
    """Logits that are linear in squared distances to prototypes (section 3 of the paper), without a bias.

    Parameters
    ----------
    classes, prototypes : int
        C, and K; a prototype belongs to no class by construction.
    size : (int, int)
        Of the images; any.
    image_channels : int
        Of the images.
    channels : int or None
        That the autoencoder sees: 1 where images are taken as gray; ``None``: all of the images'.
    width, latent_channels, layers : int
        Of the encoder, and of the decoder in reverse. The latent point is the last map, flattened.
    activation : {"relu", "sigmoid"}
    decoder : {"deconv", "upconv"}
    init : {"default", "reference"}
    low, high : sequence of float
        Range of the inputs, for all channels of the autoencoder or one a channel: where images are normalized
        before the network sees them, ``(0 - mean) / std`` and ``(1 - mean) / std``. The decoder ends in it.

    Attributes
    ----------
    prototypes : Parameter, (K, q)
    reference : Tensor, (K,)
        Mean of each distance over the training images; 0 before training is over.

    Raises
    ------
    InputError
        For a range that is none.
    """

    reference: Tensor
    unit_mask: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        classes: int,
        prototypes: int,
        size: Sequence[int],
        *,
        image_channels: int = 3,
        channels: int | None = None,
        width: int = 32,
        latent_channels: int = 10,
        layers: int = 4,
        activation: Activation = "relu",
        decoder: DecoderKind = "deconv",
        init: Init = "default",
        low: Sequence[float] = (0.0,),
        high: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.input_size = (int(size[0]), int(size[1]))
        self.image_channels, self.channels = image_channels, channels or image_channels
        sizes = grid_sizes(self.input_size, layers)
        self.latent_shape = (latent_channels, *sizes[-1])
        self.upper = 1.0 if activation == "sigmoid" else float("inf")
        self.encoder = Encoder(self.channels, width, latent_channels, layers, activation)
        self.decoder = Decoder(self.channels, width, latent_channels, sizes, activation, decoder)
        length = latent_channels * sizes[-1][0] * sizes[-1][1]
        self.prototypes = nn.Parameter(torch.rand(prototypes, length))
        self.head = nn.Linear(prototypes, classes, bias=False)
        self.sources = Sources(prototypes, self.input_size)
        self.register_buffer("reference", torch.zeros(prototypes))
        self.register_buffer("unit_mask", torch.ones(prototypes, dtype=torch.bool))
        for name, values in {"low": low, "high": high}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))
        if not (self.low < self.high).all():
            raise InputError(f"Expected low below high in every channel; got {tuple(low)} and {tuple(high)}.")
        if init == "reference":
            self._begin_as_the_authors()

    def outputs(self, images: Tensor, *, reconstruct: bool = False) -> PrototypeDNNOutputs:
        """Latent points, their distances to prototypes, logits; and what is decoded, if `reconstruct`."""
        latent = self.encode(images)
        with disable_autocast(latent.device):
            distances = self.distances(latent)
            logits = self.head(distances)
        reconstruction = self.decode(latent) if reconstruct else None
        return PrototypeDNNOutputs(
            logits=logits, distances=distances, latent=latent, reconstruction=reconstruction
        )

    def decompose(self, images: Tensor) -> Decomposition:
        """The distances, what each is worth to a class, and among the extras the latent point."""
        outputs = self.outputs(images)
        return Decomposition(
            logits=outputs.logits, bias=outputs.logits.new_zeros(self.head.out_features),
            scores=outputs.distances, weights=self.head.weight, extras={LATENT: outputs.latent},
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, D, H, W); the decoder does not run."""
        return self.outputs(images).logits

    def encode(self, images: Tensor) -> Tensor:
        """Latent points (N, q) of images (N, D, H, W).

        Raises
        ------
        InputError
            For images of another size.
        """
        if tuple(images.shape[-2:]) != self.input_size:
            raise InputError(
                f"Expected images of {self.input_size}, which the latent space is made for; got "
                f"{tuple(images.shape[-2:])}. Resize them."
            )
        return full_precision(self.encoder(self.encoder_inputs(images)).flatten(1))

    def distances(self, latent: Tensor) -> Tensor:
        """Squared distances (N, K) of points (N, q); of a prototype that is off its reference."""
        distances = squared_distances(latent, full_precision(self.prototypes))
        return torch.where(self.unit_mask, distances, self.reference.to(distances.dtype))

    def encoder_inputs(self, images: Tensor) -> Tensor:
        """Images as the autoencoder takes them, (N, c, H, W): gray where it has one channel."""
        return images if self.channels == self.image_channels else images.mean(1, keepdim=True)

    def decode(self, latent: Tensor) -> Tensor:
        """What latent points (N, q) look like, (N, c, H, W), in the range of the inputs."""
        pictures = full_precision(self.decoder(latent.unflatten(1, self.latent_shape)))
        return self.low + (self.high - self.low) * pictures

    def pictures(self, latent: Tensor) -> Tensor:
        """The same in [0, 1] and with the channels of the images, (N, D, H, W)."""
        pictures = (self.decode(latent) - self.low) / (self.high - self.low)
        return pictures.expand(-1, self.image_channels, -1, -1)

    @torch.no_grad()
    def prototype_pictures(self) -> Tensor:
        """What all prototypes look like, (K, 3, H, W), uint8, decoded at once."""
        pictures = self.pictures(self.prototypes)
        return (as_rgb(pictures.float().clamp(0, 1)) * 255).round().byte()

    def _begin_as_the_authors(self) -> None:
        """Convolutions around 0, and a last layer that is positive all over, as in the published code."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.uniform_(self.head.weight)


def squared_distances(points: Tensor, prototypes: Tensor) -> Tensor:
    """``|z_n - p_k|^2`` of points (N, q) and prototypes (K, q): (N, K), never negative.

    From the differences themselves: ``|z|^2 + |p|^2 - 2 z p`` loses what is small beside the lengths, so that
    a prototype which is the latent point of an image would be some way from it.
    """
    return (points[:, None] - prototypes).square().sum(2)


def own_network(network: nn.Module) -> PrototypeDNNNetwork:
    """The network itself, below what normalizes its images."""
    inner = network.network if isinstance(network, NormalizedNetwork) else network
    assert isinstance(inner, PrototypeDNNNetwork)
    return inner
