"""Input x gradient: what each pixel would add, were the network linear."""

from typing import Any, ClassVar

from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit_captum.explainer import CaptumExplainer


@define(eq=False, kw_only=True)
class InputXGradient(CaptumExplainer):
    """Each pixel times the gradient of the logit there.

    It adds up for networks that are piecewise linear and have no biases, which few are: no sum is claimed.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Input x gradient",
        citation="Shrikumar, Greenside, Shcherbina, Kundaje; 2016; arXiv:1605.01713",
        claim="none",
        speaks="pixels",
    )
    one_pass: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: dict[str, Any]) -> Tensor:
        """One forward and one backward pass."""
        return attr.InputXGradient(network).attribute(images, **question)
