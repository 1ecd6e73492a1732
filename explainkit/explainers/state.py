"""The state of a network: left as it was, and its digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from explainkit.explanations.provenance import Digest
from explainkit.explanations.serialization import tensors_digest
from explainkit.networks.default_dtype import float32_by_default
from explainkit.networks.modes import is_in_training
from explainkit.networks.random_state import PROCESS_LOCK
from explainkit.networks.shadows import is_uncopyable, mark_uncopyable, shadow


@contextmanager
def undisturbed(
    network: nn.Module, *, isolate: bool = False, dtype: torch.dtype | None = None
) -> Iterator[nn.Module]:
    """The network to run in place of `network`, in eval mode, outside inference mode.

    That is `network` itself where it is in eval mode already, else a shadow of it. Nothing of `network` is
    changed, so that several threads may run it at once. A network that cannot be copied is run itself, by one
    thread at a time, and put back.

    Parameters
    ----------
    isolate : bool
        Whether modules are hooked or changed, or gradients are written: then it is a shadow in any case.
    dtype : torch.dtype or None
        Of the shadow, where it shall be another than that of the network.
    """
    needs_copy = isolate or dtype is not None or is_in_training(network)
    with torch.inference_mode(False), float32_by_default():
        # the mode was read first: who puts an uncopyable network into eval mode has marked it before
        twin = shadow(network, dtype) if needs_copy and not is_uncopyable(network) else None
        if twin is not None:
            yield twin
            return
        if needs_copy:
            mark_uncopyable(network)
        if not is_uncopyable(network):
            yield network
            return
        with in_place(network):
            yield network


@contextmanager
def in_place(network: nn.Module) -> Iterator[nn.Module]:
    """`network` itself in eval mode, in one thread at a time; modes and gradients are put back."""
    with PROCESS_LOCK, torch.inference_mode(False):
        modules = list(network.modules())
        in_training = [module for module in modules if module.training]
        parameters = list(network.parameters())
        gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        for module in in_training:
            module.training = False
        for parameter, _ in gradients:  # not added to, but set aside
            parameter.grad = None
        try:
            yield network
        finally:
            for module in in_training:
                module.training = True
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = None
            for parameter, gradient in gradients:
                parameter.grad = gradient


_DIGESTS: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


def state_digest(network: nn.Module) -> str:
    """SHA-256 of a network's state, computed once for as long as no tensor of it changes."""
    state = network.state_dict()
    seen = _fingerprint(state)
    known = _DIGESTS.get(network)
    if known is None or seen is None or known[0] != seen:
        known = seen, tensors_digest(state)
        _DIGESTS[network] = known
    return known[1]


class NetworkDigest:
    """The digest of a network, for a `Provenance`: computed when called, and pickled as text.

    Parameters
    ----------
    network : nn.Module
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __call__(self) -> str:
        """SHA-256 of the network's state as it is."""
        return state_digest(self._network)

    def __reduce__(self) -> tuple[type[Digest], tuple[str]]:
        return Digest, (self(),)

    def __deepcopy__(self, memo: object) -> NetworkDigest:
        return self


def _fingerprint(state: Mapping[str, Tensor]) -> object:
    """What changes whenever a tensor does: where it is, its version, and its norm for writes past that.

    ``None`` for tensors that have no version.
    """
    tensors = list(state.values())
    if any(tensor.is_inference() for tensor in tensors):
        return None
    places = tuple((name, tensor.data_ptr(), tensor._version) for name, tensor in state.items())
    norms = tuple(float(tensor.detach().double().norm()) for tensor in tensors)
    return places, norms
