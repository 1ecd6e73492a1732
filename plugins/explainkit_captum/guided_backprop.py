"""Guided backpropagation: gradients that pass a ReLU only where they are positive."""

import warnings
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit_captum.explainer import CaptumExplainer


class UnguidedWarning(UserWarning):
    """Guided backpropagation does not reach the ReLUs of a network."""


@define(eq=False, kw_only=True)
class GuidedBackprop(CaptumExplainer):
    """The gradient of the logit, cut wherever it is negative before a ReLU.

    It reaches ``nn.ReLU`` modules alone, in place or not; functional ones pass gradients as ever, and the
    first call warns of them. It changes little when a network's upper layers are randomised (Adebayo and
    others, NeurIPS 2018, arXiv:1810.03292): it shows edges more than reasons.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Guided backpropagation",
        citation="Springenberg, Dosovitskiy, Brox, Riedmiller; ICLR Workshop 2015; arXiv:1412.6806",
        claim="none",
        speaks="pixels",
    )
    one_pass: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: dict[str, Any]) -> Tensor:
        """One forward and one backward pass."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")  # said at every call
            return attr.GuidedBackprop(network).attribute(images, **question)

    def _meet(self, image: Tensor) -> None:
        super()._meet(image)
        reached, total = rectifiers(self.network, image)
        if not reached:
            what = f"all {total} ReLUs are functional" if total else "there is none"
            told = f"no ReLU module ({what}): the result equals plain gradients"
        elif reached < total:
            told = f"{reached} of {total} ReLUs: the others are functional and pass plain gradients"
        else:
            return
        warnings.warn(
            f"Guided backpropagation reaches {told}. Use nn.ReLU modules.", UnguidedWarning, stacklevel=3
        )


def rectifiers(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """How often a forward pass runs an ``nn.ReLU``, and how many ReLUs its logits depend on."""
    calls = 0

    def count(module: nn.Module, given: Any, output: Any) -> None:
        nonlocal calls
        calls += 1

    with ExitStack() as hooks, torch.enable_grad():
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                hooks.enter_context(module.register_forward_hook(count))
        logits = network(image.detach().requires_grad_())
    waiting, seen, found = [logits.grad_fn], set(), 0
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += node.name().startswith("Relu")
            waiting += [following for following, _ in node.next_functions]
    return calls, found
