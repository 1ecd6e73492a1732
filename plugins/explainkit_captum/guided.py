"""Gradients that pass a ReLU by another rule: only where they are positive."""

import warnings
from typing import ClassVar

from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.networks.layers import relu_counts
from explainkit_captum.explainer import CaptumExplainer, Question


class UnguidedWarning(UserWarning):
    """A rule for ReLUs does not reach those of a network."""


@define(eq=False, kw_only=True)
class _ReluRuleMethod(CaptumExplainer):
    """A rule for ``nn.ReLU`` modules, in place or not.

    Functional ones pass gradients as ever, and the first call warns of them.
    """

    one_pass: ClassVar[bool] = True
    hooks_network: ClassVar[bool] = True

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        warn_of_unreached(network, image, self.card.title, "the result equals plain gradients")


@define(eq=False, kw_only=True)
class GuidedBackprop(_ReluRuleMethod):
    """The gradient of the logit, cut wherever it is negative before a ReLU, or the ReLU is off.

    It changes little when a network's upper layers are randomized (Adebayo and others, NeurIPS 2018,
    arXiv:1810.03292): it shows edges more than reasons.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Guided backpropagation",
        citation="Springenberg, Dosovitskiy, Brox, Riedmiller; ICLR Workshop 2015; arXiv:1412.6806",
        additivity="none",
        unit_kind="pixels",
    )

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward and one backward pass."""
        return attr.GuidedBackprop(network).attribute(images, **question)


@define(eq=False, kw_only=True)
class Deconvolution(_ReluRuleMethod):
    """The gradient of the logit, cut wherever it is negative before a ReLU, even if the ReLU is off."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Deconvolution",
        citation="Zeiler, Fergus; ECCV 2014; arXiv:1311.2901",
        additivity="none",
        unit_kind="pixels",
    )

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward and one backward pass."""
        return attr.Deconvolution(network).attribute(images, **question)


def warn_of_unreached(network: nn.Module, image: Tensor, title: str, meaning: str) -> None:
    """Warn where a rule for ReLU modules misses some of what the logits of `image` went through."""
    reached, total = relu_counts(network, image)
    if not reached:
        reason = f"all {total} ReLUs are functional" if total else "there is none"
        reach = f"no ReLU module ({reason}): {meaning}"
    elif reached < total:
        reach = f"{reached} of {total} ReLUs: the others are functional and pass plain gradients"
    else:
        return
    warnings.warn(f"{title} reaches {reach}. Use nn.ReLU modules.", UnguidedWarning, stacklevel=4)
