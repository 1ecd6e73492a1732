"""What checks assert: conditions with a message, and that nothing is changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from explainkit.errors import ConformanceError, InputError
from explainkit.explanations.batch import Explanations


def check_refused(what: str, call: Callable[[], object]) -> None:
    """Hold `call` to a refusal in words."""
    try:
        call()
    except InputError as error:
        check(len(str(error)) > 20, f"words in the refusal {what}")
    else:
        check(False, f"a refusal {what}")


@contextmanager
def spoiled(network: nn.Module) -> Iterator[None]:
    """`network` with NaN for every parameter, since some are for training alone; put back afterwards."""
    parameters = list(network.parameters())
    before = [value.detach().clone() for value in parameters]
    with torch.no_grad():
        for value in parameters:
            value.fill_(float("nan"))
    try:
        yield
    finally:
        with torch.no_grad():
            for value, saved in zip(parameters, before, strict=True):
                value.copy_(saved)


@contextmanager
def unchanged(network: nn.Module, images: Tensor, what: str) -> Iterator[None]:
    """Hold that nothing of the network, the images or the caller's state is changed by `what`."""
    network.train()
    frozen = next((module for module in network.modules() if module is not network), network)
    frozen.eval()
    parameter = next(network.parameters())
    parameter.grad = torch.ones_like(parameter)
    before = network_state(network, images)
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    check(torch.equal(torch.rand(2), expected), f"the caller's random state after {what}")
    for name, value in network_state(network, images).items():
        check(_same(value, before[name]), f"{name} as before after {what}")
    check(bool((parameter.grad == 1).all()), f"gradients as before after {what}")
    parameter.grad = None
    network.eval()


def network_state(network: nn.Module, images: Tensor) -> dict[str, object]:
    """All about a network, its images and the caller's modes that a call must leave as it was."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "training mode": [module.training for module in network.modules()],
        "which parameters learn": [parameter.requires_grad for parameter in network.parameters()],
        "which parameters have gradients": [parameter.grad is None for parameter in network.parameters()],
        "hooks": [len(getattr(module, name)) for module in network.modules() for name in hooks],
        "weights and buffers": [value.clone() for value in network.state_dict().values()],
        "images": [images.clone()],
        "the images' gradient": images.grad,
        "the default type": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
    }


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) and one and isinstance(one[0], Tensor):
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))  # type: ignore[call-overload]
    return one == other


def magnitude(explanations: Explanations) -> Tensor:
    """What values are small against, (N,)."""
    if explanations.additivity == "none":
        return explanations.contributions.abs().sum(1).clamp(min=1e-12)
    return torch.maximum(explanations.logits.abs().amax(1), explanations.contributions.abs().sum(1)).clamp(
        min=1e-12
    )


def is_close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree to a thousandth of the largest value."""
    return torch.allclose(
        one.double(), other.double(), rtol=1e-3, atol=1e-3 * float(other.abs().max().clamp(min=1e-12))
    )


def provenance_fields(explanations: Explanations) -> tuple[object, ...]:
    """What of the provenance a file must hold."""
    provenance = explanations.provenance
    versions = dict(provenance.versions)
    return provenance.explainer, provenance.created, versions, provenance.seed, provenance.model_digest


def check(condition: bool, expectation: str) -> None:
    """Raise a `ConformanceError` that says what was expected, unless `condition` holds."""
    if not condition:
        raise ConformanceError(f"Expected {expectation}.")
