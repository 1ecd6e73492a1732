"""Integrated gradients: gradients along the straight way from a baseline to the image."""

from typing import Any, ClassVar, Literal, get_args

import attrs
import torch
from attrs import define, field
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError
from explainkit_captum.baseline import Baseline, baseline_for, told
from explainkit_captum.explainer import CaptumExplainer, logits_for, positive

Rule = Literal["gausslegendre", "riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid"]
"""Where the steps lie, and what each counts."""


def _is_rule(_: object, __: "attrs.Attribute[str]", value: str) -> None:
    if value not in get_args(Rule):
        raise InputError(f"Expected method to be one of {get_args(Rule)}; got {value!r}.")


@define(eq=False, kw_only=True)
class IntegratedGradients(CaptumExplainer):
    """The integral of the gradient along the way from `baseline`, times the way.

    It adds up to the logit less that of the baseline (the paper's proposition 1), but for the error of taking
    steps: that is the residual, and more steps make it smaller.

    Parameters
    ----------
    n_steps : int
        How many gradients an image takes.
    method : str
        How the integral is approximated.
    baseline : float, sequence of three floats, or Tensor (3, H, W)
        Black unless given, as in Captum.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Integrated gradients",
        citation="Sundararajan, Taly, Yan; ICML 2017; arXiv:1703.01365",
        claim="approximate",
        speaks="pixels",
    )

    n_steps: int = field(default=50, validator=positive)
    method: Rule = field(default="gausslegendre", validator=_is_rule)
    baseline: Baseline = 0.0

    def attribute(self, network: nn.Module, images: Tensor, question: dict[str, Any]) -> Tensor:
        """`n_steps` forward and backward passes, as many at once as `max_batch` allows."""
        return attr.IntegratedGradients(network).attribute(
            images.detach(),
            baselines=baseline_for(images, self.baseline),
            n_steps=self.n_steps,
            method=self.method,
            internal_batch_size=self.max_batch,
            **question,
        )

    def base_of(self, images: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
        """The logit, or margin, of the baseline: one forward pass for all images."""
        with torch.no_grad():
            logits = self.network(baseline_for(images, self.baseline))
        return logits_for(logits.expand(len(images), -1), targets, against)

    def settings(self) -> dict[str, Any]:
        """With the baseline in words where it is an image."""
        return {**super().settings(), "baseline": told(self.baseline)}
