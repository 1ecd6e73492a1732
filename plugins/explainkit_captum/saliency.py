"""Saliency: how strongly the logit reacts to each pixel."""

from typing import Any, ClassVar

from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit_captum.explainer import CaptumExplainer


@define(eq=False, kw_only=True)
class Saliency(CaptumExplainer):
    """The gradient of the logit, by default without its sign.

    Parameters
    ----------
    abs : bool
        Whether all reaction counts as "for", however the pixel would have to change; Captum's default.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Saliency",
        citation="Simonyan, Vedaldi, Zisserman; ICLR Workshop 2014; arXiv:1312.6034",
        claim="none",
        speaks="pixels",
    )
    one_pass: ClassVar[bool] = True

    abs: bool = True

    def attribute(self, network: nn.Module, images: Tensor, question: dict[str, Any]) -> Tensor:
        """One forward and one backward pass."""
        return attr.Saliency(network).attribute(images, abs=self.abs, **question)
