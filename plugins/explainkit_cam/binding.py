"""Reads CAM's parts out of a network that somebody else wrote, and checks that they make its logits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from explainkit.errors import UnsupportedNetworkError
from explainkit.explainers.inputs import InputSpec
from explainkit.explainers.isolation import running
from explainkit.explainers.state import undisturbed
from explainkit.explanations.decisions import Decision
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.receptive_field import ReceptiveField
from explainkit.networks.input_scaling import Normalization
from explainkit.networks.layers import describe_output
from explainkit.networks.precision import disable_autocast, full_precision, reference_tensor
from explainkit.networks.receptive_field import find_receptive_field
from explainkit.networks.tracing import HOW, split_at_pooling
from explainkit_cam.model import pooled

DEFAULT_SIZE = (224, 224)
"""Of the images that a network is checked on, where no size is given."""


class _SharedSet(set[tuple[int, ...]]):
    """A set that copies of a network share, since what it holds is true of them all."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


class BoundNetwork(nn.Module):
    """Somebody's network, with `decompose`; it shares the network's parameters and leaves its class alone.

    Parameters
    ----------
    network : nn.Module
    features : callable
        Images to the tensor (N, D, h, w) that is pooled.
    head : nn.Linear
    input_spec : InputSpec
        What it takes; it normalizes images by that.
    """

    signed: Tensor

    def __init__(
        self,
        network: nn.Module,
        features: Callable[[Tensor], Tensor],
        head: nn.Linear,
        input_spec: InputSpec,
    ) -> None:
        super().__init__()
        self.network, self.input_spec = network, input_spec
        self.output_decision: Decision | None = None  # known once the classes are
        mean, std = input_spec.mean, input_spec.std
        self.normalization = nn.Identity() if mean is None or std is None else Normalization(mean, std)
        # in a tuple, so that their parameters are not counted twice
        self._parts: tuple[Callable[[Tensor], Tensor], nn.Linear] = (features, head)
        self.register_buffer("signed", torch.tensor(False))  # a buffer, so that it is saved
        self._is_signed = False  # the same, known without reading a tensor, so that it can be traced
        self._sizes = _SharedSet()
        self.receptive_field: ReceptiveField | None = None  # of one cell, once it was looked for

    def check_size(self, size: Sequence[int]) -> None:
        """Check, once for images of each `size`, that the logits are the pooled features through the head.

        Raises
        ------
        UnsupportedNetworkError
            Where they are not: a network that pools a fixed window can be read at one size alone.
        """
        if tuple(size) not in self._sizes:
            _checked_features(self, size)
            self._sizes.add(tuple(size))

    def normalized(self, images: Tensor) -> Tensor:
        """Images (N, D, H, W) as the network takes them: always a copy, to which it may write."""
        normalized: Tensor = self.normalization(images)
        return images.clone() if normalized is images else normalized

    def decompose(self, images: Tensor) -> Decomposition:
        """The maps that are pooled; a filter that can go below zero is two units, above and below."""
        features, head = self._parts
        maps = full_precision(features(self.normalized(images)))
        decomposition = pooled(maps, head)
        if not self._is_signed:
            return decomposition
        sides = torch.cat([maps.clamp(min=0), (-maps).clamp(min=0)], 1)  # (N, 2 K, h, w)
        return Decomposition(
            logits=decomposition.logits, bias=decomposition.bias, scores=sides.mean((2, 3)), maps=sides,
            weights=torch.cat([head.weight, -head.weight], 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """The network's own logits."""
        return self.network(self.normalized(images))

    def set_signed(self, is_signed: bool) -> None:
        """Say whether a filter can go below zero, and is two units."""
        self.signed.fill_(is_signed)
        self._is_signed = is_signed

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._is_signed = bool(self.signed)


def bind(
    network: nn.Module,
    features: nn.Module | None,
    head: nn.Linear | None,
    input_spec: InputSpec,
) -> BoundNetwork:
    """`network`, read and checked on random images of the size that `input_spec` has.

    Raises
    ------
    UnsupportedNetworkError
        Where its logits are not the pooled features through the linear layer.
    """
    if (features is None) != (head is None):
        raise UnsupportedNetworkError("Expected both features=… and head=…, or neither; got one of them.")
    reference = reference_tensor(network)
    if reference.dtype not in (torch.float32, torch.float64):
        raise UnsupportedNetworkError(
            f"Expected a network in float32 or float64; got {reference.dtype}, in which sums do not hold. "
            "Convert a copy of it with network.float()."
        )
    if features is None or head is None:
        with undisturbed(network) as twin:
            features, head = split_at_pooling(network, twin)
    bound = BoundNetwork(network, features, head, input_spec)
    bound.training = network.training
    bound.signed = bound.signed.to(reference.device)
    bound.normalization.to(device=reference.device, dtype=reference.dtype)
    size = input_spec.size or DEFAULT_SIZE
    with running(bound) as twin:
        bound.set_signed(bool((_checked_features(cast(BoundNetwork, twin), size) < 0).any()))
        bound.receptive_field = _find_receptive_field(cast(BoundNetwork, twin), size)
    bound._sizes.add(tuple(size))
    return bound


def _find_receptive_field(bound: BoundNetwork, size: Sequence[int]) -> ReceptiveField | None:
    """What one cell of the features sees of images of `size`; ``None`` where that is no less than all."""
    features, _ = bound._parts
    spec = bound.input_spec
    gray = spec.from_unit(reference_tensor(bound.network).new_full((1, spec.channels, *size), 0.5))
    with disable_autocast(gray.device):
        return find_receptive_field(lambda images: features(bound.normalized(images)), gray)


def _checked_features(bound: BoundNetwork, size: Sequence[int]) -> Tensor:
    """The features of noise, black and white, once both ways to the logits are found to agree on them."""
    features, _ = bound._parts
    shape = (2, bound.input_spec.channels, *size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    plain = torch.tensor([0.0, 1.0])[:, None, None, None].expand(shape)
    images = bound.input_spec.from_unit(torch.cat([noise, plain]).to(reference_tensor(bound.network)))
    with torch.no_grad(), disable_autocast(images.device):
        try:
            maps, logits = features(bound.normalized(images)), bound(images)
        except RuntimeError as error:  # whatever the user's layers say of images that they cannot take
            raise UnsupportedNetworkError(
                f"Expected a network that takes images {('N', *shape[1:])}; it says: {error}. "
                "Give another size=(height, width) where that is the matter."
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UnsupportedNetworkError(
                f"Expected a network that returns logits (N, C); got {describe_output(logits)}. {HOW}"
            )
        if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[1] != bound._parts[1].in_features:
            raise UnsupportedNetworkError(
                f"Expected features of (N, {bound._parts[1].in_features}, h, w) before pooling; "
                f"got {describe_output(maps)}. {HOW}"
            )
        recomputed = bound.decompose(images).logits
    scale = max(logits.abs().max().item(), 1e-6)
    gap = (recomputed - logits).abs().max().item() if recomputed.shape == logits.shape else float("nan")
    if not gap <= 1e-4 * scale:
        raise UnsupportedNetworkError(
            "Expected the pooled features through the linear layer to be the network's logits; they differ "
            f"by {gap:.3g} where logits reach {scale:.3g}: something stands between. {HOW}"
        )
    return maps
