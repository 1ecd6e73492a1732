"""Methods that ask for gradients alone, and so work on any network that has some."""

from typing import Any, ClassVar, Literal, get_args

import attrs
import numpy as np
import torch
from attrs import define, field
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError
from explainkit_captum.baseline import (
    GRAYS,
    Baseline,
    Baselines,
    baseline_for,
    baseline_setting,
    baselines_for,
)
from explainkit_captum.explainer import CaptumExplainer, Question, positive, select_question
from explainkit_captum.seeding import seeded

Rule = Literal["gausslegendre", "riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid"]
"""Where the steps of an integral lie, and what each counts."""


def is_rule(_: object, __: "attrs.Attribute[str]", value: str) -> None:
    """Refuse what is no `Rule`."""
    if value not in get_args(Rule):
        raise InputError(f"Expected method to be one of {get_args(Rule)}; got {value!r}.")


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
        additivity="none",
        unit_kind="pixels",
    )
    one_pass: ClassVar[bool] = True

    abs: bool = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward and one backward pass."""
        return attr.Saliency(network).attribute(images, abs=self.abs, **question)


@define(eq=False, kw_only=True)
class InputXGradient(CaptumExplainer):
    """Each pixel times the gradient of the logit there: what it would add, were the network linear.

    It adds up for networks that are piecewise linear and have no biases, which few are: no sum is claimed.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Input x gradient",
        citation="Shrikumar, Greenside, Shcherbina, Kundaje; 2016; arXiv:1605.01713",
        additivity="none",
        unit_kind="pixels",
    )
    one_pass: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward and one backward pass."""
        return attr.InputXGradient(network).attribute(images, **question)


@define(eq=False, kw_only=True)
class IntegratedGradients(CaptumExplainer):
    """The integral of the gradient along the straight way from `baseline`, times the way.

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
        additivity="approximate",
        unit_kind="pixels",
    )

    n_steps: int = field(default=50, validator=positive)
    method: Rule = field(default="gausslegendre", validator=is_rule)
    baseline: Baseline = 0.0

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`n_steps` forward and backward passes, as many at once as `batch_size` allows."""
        return attr.IntegratedGradients(network).attribute(
            images.detach(),
            baselines=baseline_for(images, self.baseline, self.input_spec),
            n_steps=self.n_steps,
            method=self.method,
            internal_batch_size=self.batch_size,
            **question,
        )

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The logit, or margin, of the baseline: one forward pass for all images."""
        return self.mean_logits(baseline_for(images, self.baseline, self.input_spec), targets, foils)

    def settings(self) -> dict[str, Any]:
        """With the baseline in words where it is an image."""
        return {**super().settings(), "baseline": baseline_setting(self.baseline)}


@define(eq=False, kw_only=True)
class GradientShap(CaptumExplainer):
    """Integrated gradients in expectation over baselines, by chance: a step, a baseline and noise a sample.

    All images meet the numbers that Captum would draw from `seed` for an image alone, so that what is said of
    one does not depend on the others. The residual shows how far so few samples are from the expectation.

    Parameters
    ----------
    n_samples : int
        Gradients an image.
    stdevs : float
        Of the noise that is added to an image, in units of its range.
    baselines : sequence of float, or Tensor (B, 3, H, W)
        Black, gray and white unless given; Captum has no default.
    seed : int
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="GradientSHAP",
        citation="Lundberg, Lee; NeurIPS 2017; arXiv:1705.07874",
        additivity="approximate",
        unit_kind="pixels",
    )

    n_samples: int = field(default=5, validator=positive)
    stdevs: float = 0.0
    baselines: Baselines = GRAYS
    seed: int = 0

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`n_samples` forward and backward passes, as many at once as `batch_size` allows."""
        baselines, samples = baselines_for(images, self.baselines, self.input_spec), self.n_samples
        with seeded(self.seed):  # in Captum's order
            start = baselines[np.random.choice(len(baselines), samples).tolist()]
            shape, device = (samples, *images.shape[1:]), images.device
            noise = torch.normal(
                0, torch.full(shape, self.stdevs * self.input_spec.width, dtype=torch.float32, device=device)
            )
            step = torch.tensor(np.random.uniform(0.0, 1.0, samples)).to(images)[:, None, None, None]
        gradient = attr.Saliency(network)
        total = torch.zeros_like(images)
        row, sample = image_sample_pairs(len(images), samples, images.device)
        for rows, drawn in zip(row.split(self.batch_size), sample.split(self.batch_size), strict=True):
            path = images.detach()[rows] + noise[drawn] - start[drawn]
            points = (start[drawn] + step[drawn] * path).requires_grad_()
            slope = gradient.attribute(points, abs=False, **select_question(question, rows))
            total = total.index_add(0, rows, path * slope)
        return total / samples

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The mean logit, or margin, of the baselines."""
        return self.mean_logits(baselines_for(images, self.baselines, self.input_spec), targets, foils)

    def settings(self) -> dict[str, Any]:
        """With the baselines in words where they are images."""
        return {**super().settings(), "baselines": baseline_setting(self.baselines)}


def image_sample_pairs(images: int, samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Image and sample of each of N x S questions, (N S,) each."""
    row = torch.arange(images, device=device).repeat_interleave(samples)
    return row, torch.arange(samples, device=device).repeat(images)
