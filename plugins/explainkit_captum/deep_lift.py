"""DeepLIFT: what each pixel's difference from a baseline adds, through the network's nonlinearities."""

from typing import Any, ClassVar

import torch
from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError
from explainkit.networks.layers import run_counts
from explainkit_captum.baseline import (
    GRAYS,
    Baseline,
    Baselines,
    baseline_for,
    baseline_setting,
    baselines_for,
)
from explainkit_captum.explainer import CaptumExplainer, Question, question_batches
from explainkit_captum.logits import unwrap

RULED = (
    nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax, nn.MaxPool1d, nn.MaxPool2d,
    nn.MaxPool3d,
)  # fmt: skip
"""Modules that Captum has a rule for; all else is taken to be linear, and the residual shows what is not."""


def check_run_once(network: nn.Module, image: Tensor, title: str) -> None:
    """Refuse a network that runs one of its nonlinear modules twice: Captum keeps one input of each.

    Raises
    ------
    UnsupportedNetworkError
        Naming the module.
    """
    repeated = [
        name
        for name, count in run_counts(network, image).items()
        if count > 1 and type(network.get_submodule(name)) in RULED
    ]
    if repeated:
        raise UnsupportedNetworkError(
            f"{title} needs every nonlinear module to be run once a pass; {type(network).__name__} runs "
            f"{', '.join(map(repr, repeated[:3]))} more often. Give each call a module of its own."
        )


@define(eq=False, kw_only=True)
class DeepLift(CaptumExplainer):
    """Differences from one baseline, handed back through the network by the rescale rule.

    It adds up to the logit less that of the baseline where all that is not linear is a module that Captum has
    a rule for. Elsewhere (functional ReLUs, GELU, LayerNorm, attention) it does not: the residual shows it.

    Parameters
    ----------
    baseline : float, sequence of three floats, or Tensor (3, H, W)
        Black unless given, as in Captum.
    eps : float
        Differences of inputs below this count as none, and the gradient is taken.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="DeepLIFT",
        citation="Shrikumar, Greenside, Kundaje; ICML 2017; arXiv:1704.02685",
        additivity="approximate",
        unit_kind="pixels",
    )
    hooks_network: ClassVar[bool] = True

    baseline: Baseline = 0.0
    eps: float = 1e-10

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward and one backward pass of images and baselines together."""
        method = attr.DeepLift(network, eps=self.eps)
        baseline = baseline_for(images, self.baseline, self.input_spec)
        attributions = [
            method.attribute(batch, baseline.expand(len(batch), -1, -1, -1), **part).detach()
            for batch, part in question_batches(images, question, self.batch_size // 2)
        ]
        return torch.cat(attributions)

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The logit, or margin, of the baseline."""
        return self.mean_logits(baseline_for(images, self.baseline, self.input_spec), targets, foils)

    def settings(self) -> dict[str, Any]:
        """With the baseline in words where it is an image."""
        return {**super().settings(), "baseline": baseline_setting(self.baseline)}

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        check_run_once(unwrap(network), image, self.card.title)


@define(eq=False, kw_only=True)
class DeepLiftShap(CaptumExplainer):
    """DeepLIFT in the mean over several baselines.

    Parameters
    ----------
    baselines : sequence of float, or Tensor (B, 3, H, W)
        Black, gray and white unless given; Captum has no default.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="DeepLIFT SHAP",
        citation="Lundberg, Lee; NeurIPS 2017; arXiv:1705.07874",
        additivity="approximate",
        unit_kind="pixels",
    )
    hooks_network: ClassVar[bool] = True

    baselines: Baselines = GRAYS

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """A forward and a backward pass a baseline, each of image and baseline together."""
        method = attr.DeepLiftShap(network)
        baselines = baselines_for(images, self.baselines, self.input_spec)
        total = torch.zeros_like(images)
        for chunk in split_baselines(baselines, self.batch_size // 2):
            attributions = [
                method.attribute(batch, chunk, **part).detach()
                for batch, part in question_batches(images, question, self.batch_size // (2 * len(chunk)))
            ]
            total = total + torch.cat(attributions) * (len(chunk) / len(baselines))
        return total

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The mean logit, or margin, of the baselines."""
        return self.mean_logits(baselines_for(images, self.baselines, self.input_spec), targets, foils)

    def settings(self) -> dict[str, Any]:
        """With the baselines in words where they are images."""
        return {**super().settings(), "baselines": baseline_setting(self.baselines)}

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        check_run_once(unwrap(network), image, self.card.title)


def split_baselines(baselines: Tensor, max_count: int) -> tuple[Tensor, ...]:
    """`baselines` in chunks of `max_count` at most, of two at least, which is what Captum takes."""
    count = -(-len(baselines) // max(2, max_count))
    while count > 1 and len(baselines) // count < 2:
        count -= 1
    return torch.tensor_split(baselines, count)
