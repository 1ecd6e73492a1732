"""DeepLIFT down to a layer."""

from typing import ClassVar

import torch
from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit_captum.baseline import baseline_for, baselines_for
from explainkit_captum.deep_lift import check_run_once, split_baselines
from explainkit_captum.explainer import Question, question_batches
from explainkit_captum.layer_explainer import BaselinesMethod, OneBaselineMethod
from explainkit_captum.logits import unwrap


@define(eq=False, kw_only=True)
class LayerDeepLift(OneBaselineMethod):
    """DeepLIFT down to a layer."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer DeepLIFT",
        citation="Shrikumar, Greenside, Kundaje; ICML 2017; arXiv:1704.02685, at a layer",
        additivity="approximate",
        unit_kind="pixels",
    )

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward pass of images and baselines together, and a backward pass down to the layer."""
        method, baseline = (
            self.at_layer(attr.LayerDeepLift, network),
            baseline_for(images, self.baseline, self.input_spec),
        )
        attributions = [
            method.attribute(batch, baseline.expand(len(batch), -1, -1, -1), **part).detach()
            for batch, part in question_batches(images, question, self.batch_size // 2)
        ]
        return torch.cat(attributions)

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        check_run_once(unwrap(network), image, self.card.title)


@define(eq=False, kw_only=True)
class LayerDeepLiftShap(BaselinesMethod):
    """DeepLIFT down to a layer, in the mean over several baselines."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer DeepLIFT SHAP",
        citation="Lundberg, Lee; NeurIPS 2017; arXiv:1705.07874, at a layer",
        additivity="approximate",
        unit_kind="pixels",
    )

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """A forward pass a baseline, each of image and baseline together, and a backward pass."""
        method = self.at_layer(attr.LayerDeepLiftShap, network)
        baselines = baselines_for(images, self.baselines, self.input_spec)
        weighted = []
        for chunk in split_baselines(baselines, self.batch_size // 2):
            attributions = [
                method.attribute(batch, chunk, **part).detach()
                for batch, part in question_batches(images, question, self.batch_size // (2 * len(chunk)))
            ]
            weighted.append(torch.cat(attributions) * (len(chunk) / len(baselines)))
        return torch.stack(weighted).sum(0)

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        check_run_once(unwrap(network), image, self.card.title)
