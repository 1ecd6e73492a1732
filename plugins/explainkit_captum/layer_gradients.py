"""Gradients at a layer: Grad-CAM and its kin, and integrals along the way from a baseline."""

from typing import ClassVar

import torch
from attrs import define, field
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit_captum.baseline import baseline_for, baselines_for
from explainkit_captum.explainer import Question, positive, question_batches
from explainkit_captum.gradients import Rule, is_rule
from explainkit_captum.guided import warn_of_unreached
from explainkit_captum.layer_explainer import BaselinesMethod, LayerMethod, OneBaselineMethod
from explainkit_captum.seeding import seeded


@define(eq=False, kw_only=True)
class LayerGradCam(LayerMethod):
    """Grad-CAM on the layer's own grid, with its sign: feature maps, each weighed by its mean gradient.

    Mean gradients times feature maps are no logits but for a layer that is pooled and then met by one linear
    layer alone; no sum is claimed.

    Parameters
    ----------
    relu_attributions : bool
        Whether evidence against is dropped, as in the paper; Captum keeps it.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Grad-CAM",
        citation="Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra; ICCV 2017; arXiv:1610.02391",
        additivity="none",
        unit_kind="pixels",
    )
    one_pass: ClassVar[bool] = True

    relu_attributions: bool = False

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward pass, and a backward pass down to the layer."""
        return self.at_layer(attr.LayerGradCam, network).attribute(
            images, relu_attributions=self.relu_attributions, **question
        )


@define(eq=False, kw_only=True)
class GuidedGradCam(LayerMethod):
    """Guided backpropagation times Grad-CAM's evidence for: fine as the one, about the class as the other.

    It inherits guided backpropagation's want of faithfulness (Adebayo and others, NeurIPS 2018).
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Guided Grad-CAM",
        citation="Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra; ICCV 2017; arXiv:1610.02391",
        additivity="none",
        unit_kind="pixels",
    )

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """Two forward passes and two backward passes."""
        return self.at_layer(attr.GuidedGradCam, network).attribute(images, **question)

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        warn_of_unreached(network, image, self.card.title, "its gradients are plain ones")


@define(eq=False, kw_only=True)
class LayerGradientXActivation(LayerMethod):
    """Each activation of the layer times the gradient of the logit there."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer gradient x activation",
        citation="Shrikumar, Greenside, Shcherbina, Kundaje; 2016; arXiv:1605.01713, at a layer",
        additivity="none",
        unit_kind="pixels",
    )
    one_pass: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward pass, and a backward pass down to the layer."""
        return self.at_layer(attr.LayerGradientXActivation, network).attribute(images, **question)


@define(eq=False, kw_only=True)
class _PathMethod(OneBaselineMethod):
    """A layer method that takes steps from a baseline.

    Parameters
    ----------
    n_steps : int
        How many gradients an image takes.
    method : str
        How the integral is approximated.
    """

    captum: ClassVar[type]
    at_once: ClassVar[int] = 1
    """Steps of an image that Captum takes together, at least."""

    n_steps: int = field(default=50, validator=positive)
    method: Rule = field(default="gausslegendre", validator=is_rule)

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`n_steps` forward and backward passes, as many at once as `batch_size` allows."""
        method, batch_size = self.at_layer(self.captum, network), max(self.batch_size, self.at_once)
        baseline = baseline_for(images, self.baseline, self.input_spec)
        attributions = [
            method.attribute(
                batch.detach(), baselines=baseline, n_steps=self.n_steps,
                method=self.method, internal_batch_size=batch_size, **part,
            )
            for batch, part in question_batches(images, question, batch_size // self.at_once)
        ]  # fmt: skip
        return torch.cat(attributions)


@define(eq=False, kw_only=True)
class InternalInfluence(_PathMethod):
    """The mean gradient at the layer, on the way from the baseline to the image; no sum is claimed."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Internal influence",
        citation="Leino, Sen, Datta, Fredrikson, Li; ITC 2018; arXiv:1802.03788",
        additivity="none",
        unit_kind="pixels",
    )
    captum: ClassVar[type] = attr.InternalInfluence


@define(eq=False, kw_only=True)
class LayerConductance(_PathMethod):
    """What flows through each cell of the layer, of what integrated gradients attribute to the pixels."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer conductance",
        citation="Dhamdhere, Sundararajan, Yan; ICLR 2019; arXiv:1805.12233",
        additivity="approximate",
        unit_kind="pixels",
    )
    captum: ClassVar[type] = attr.LayerConductance
    at_once: ClassVar[int] = 2


@define(eq=False, kw_only=True)
class LayerIntegratedGradients(_PathMethod):
    """Integrated gradients from the layer's answer to the baseline, to its answer to the image."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer integrated gradients",
        citation="Sundararajan, Taly, Yan; ICML 2017; arXiv:1703.01365, at a layer",
        additivity="approximate",
        unit_kind="pixels",
    )
    captum: ClassVar[type] = attr.LayerIntegratedGradients


@define(eq=False, kw_only=True)
class LayerGradientShap(BaselinesMethod):
    """GradientSHAP at a layer. Captum goes through the images one by one, each from the same `seed`.

    Parameters
    ----------
    n_samples : int
        Gradients an image, all at once.
    stdevs : float
        Of the noise that is added to an image.
    seed : int
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer GradientSHAP",
        citation="Lundberg, Lee; NeurIPS 2017; arXiv:1705.07874, at a layer",
        additivity="approximate",
        unit_kind="pixels",
    )

    n_samples: int = field(default=5, validator=positive)
    stdevs: float = 0.0
    seed: int = 0

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`n_samples` passes forward and backward, and as many of baselines and of images forward."""
        method = self.at_layer(attr.LayerGradientShap, network)
        baselines = baselines_for(images, self.baselines, self.input_spec)
        attributions = []
        for image, part in question_batches(images, question, 1):
            with seeded(self.seed):
                attribution = method.attribute(
                    image,
                    baselines,
                    n_samples=self.n_samples,
                    stdevs=self.stdevs * self.input_spec.width,
                    **part,
                )
            attributions.append(attribution.detach())
        return torch.cat(attributions)
