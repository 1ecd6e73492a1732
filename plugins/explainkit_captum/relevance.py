"""Layer-wise relevance propagation: the logit, handed back layer by layer in shares of what each received."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from attrs import define
from captum import attr
from captum.attr._utils.lrp_rules import PropagationRule
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError
from explainkit.networks.input_scaling import Normalization
from explainkit.networks.layers import run_counts
from explainkit_captum.explainer import CaptumExplainer, Question
from explainkit_captum.logits import unwrap

RULED = (
    nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool1d, nn.MaxPool2d,
    nn.MaxPool3d,
)  # fmt: skip
"""Modules that Captum has a rule for."""

BENDING = (nn.ReLU, nn.Dropout, nn.Tanh)
"""Modules that relevance passes unchanged."""

PASSING = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.ZeroPad2d, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout,
)  # fmt: skip
"""Modules that only hand on what they get, in eval mode; Captum has no rule for them. Of what is padded with
zeros none is worth anything."""


@define(eq=False, kw_only=True)
class LRP(CaptumExplainer):
    """Relevance by the epsilon rule, from the logit down to the pixels.

    It adds up to the logit where every layer is one that Captum has a rule for and hands on all that it gets.
    Biases keep a share for themselves, and a sum of two branches is counted twice, since Captum does not see
    it: the residual shows both.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer-wise relevance propagation",
        citation="Bach, Binder, Montavon, Klauschen, Müller, Samek; PLOS ONE 10 (7), 2015",
        additivity="approximate",
        unit_kind="pixels",
    )
    hooks_network: ClassVar[bool] = True
    needs_full_precision: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """Two forward passes and one backward pass; twice that for a contrast."""
        with passing(self.network):
            return by_class(attr.LRP(self.network), images, question)

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        check_ruled(unwrap(network), image, self.card.title)


class HandingOn(PropagationRule):  # type: ignore[misc]
    """The rule of a module whose input and output are one tensor, or one reshaped: relevance passes as it is.

    Captum's own rules put a hook on either, which for one tensor is the same hook twice.
    """

    def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
        """Leave the output alone."""
        return outputs

    def forward_hook_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """There are no weights."""

    def forward_pre_hook_activations(self, module: nn.Module, inputs: Any) -> None:
        """No activation was kept."""

    def _manipulate_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        pass


class Unscaled(HandingOn):
    """The rule of a normalization: relevance passes as it is, whatever the scale of a pixel."""

    def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
        """Hand the relevance that arrives at the output to the input."""
        (images,) = inputs
        if not images.requires_grad:
            return outputs
        arrived: list[Tensor] = []
        outputs.register_hook(arrived.append)

        def hand_on(_: Tensor) -> Tensor:
            handle.remove()  # the images outlive this pass
            return arrived.pop()

        handle = images.register_hook(hand_on)
        return outputs.clone()


def by_class(method: Any, images: Tensor, question: Question) -> Tensor:
    """What `method` says of a class, or of one less what it says of the other: relevance is handed out so.

    Captum gives a margin's relevance to both of its logits in full, so that it would be lost.
    """
    targets, *foils = question.get("additional_forward_args") or (question["target"],)
    attribution: Tensor = method.attribute(images, target=targets)
    return attribution - method.attribute(images, target=foils[0]) if foils else attribution


@contextmanager
def passing(network: nn.Module) -> Iterator[None]:
    """`network` with a rule on each module that hands on what it gets."""
    modules = [module for module in network.modules() if isinstance(module, (*PASSING, Normalization))]
    for module in modules:
        module.rule = Unscaled() if isinstance(module, Normalization) else HandingOn()
    try:
        yield
    finally:
        for module in modules:
            if hasattr(module, "rule"):
                del module.rule


def keeps_relevance(module: nn.Module) -> bool:
    """Whether Captum can tell the relevance that arrived at `module`."""
    return type(module) in RULED


def check_ruled(network: nn.Module, image: Tensor, title: str) -> None:
    """Refuse a network with layers that Captum has no rule for, or that it runs twice.

    Raises
    ------
    UnsupportedNetworkError
        Naming them.
    """
    kinds: dict[str, str] = {}
    repeated = []
    for name, count in run_counts(network, image).items():
        module = network.get_submodule(name)
        if not isinstance(module, (*PASSING, Normalization)) and type(module) not in (*RULED, *BENDING):
            kinds.setdefault(type(module).__name__, name)
        if count > 1 and any(True for _ in module.parameters()):
            repeated.append(name)
    if kinds:
        unruled = ", ".join(f"{kind} ({name!r})" for kind, name in list(kinds.items())[:4])
        raise UnsupportedNetworkError(
            f"{title} needs a rule for every layer; Captum has none for {unruled}. It has for convolutions, "
            "linear layers, batch norm, pooling, ReLU and tanh."
        )
    if repeated:
        raise UnsupportedNetworkError(
            f"{title} needs every layer to be run once a pass; {type(network).__name__} runs "
            f"{', '.join(map(repr, repeated[:3]))} more often."
        )
