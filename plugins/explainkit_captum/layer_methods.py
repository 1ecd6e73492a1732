"""Methods that stop at a layer with a grid (N, D, h, w): coarse maps of what the network saw."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from attrs import define, field
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import BindError
from explainkit.interfaces import undisturbed
from explainkit_captum.baseline import GREYS, Baseline, Baselines, baseline_for, baselines_for, told
from explainkit_captum.deep_lift import check_run_once, shares_of
from explainkit_captum.explainer import CaptumExplainer, Margin, Question, pieces, positive
from explainkit_captum.gradients import Rule, is_rule
from explainkit_captum.guided import warn_of_unreached
from explainkit_captum.layers import check_grid, last_grid, layer_name, outputs
from explainkit_captum.logits import acceptable, own
from explainkit_captum.patches import spread
from explainkit_captum.relevance import by_class, check_ruled, keeps_relevance, passing
from explainkit_captum.seeding import seeded


@define(eq=False, kw_only=True)
class LayerMethod(CaptumExplainer):
    """A method about what a layer returned, on the layer's own grid.

    Parameters
    ----------
    layer : str, nn.Module or None
        By dotted name, or itself; the last that returns (N, D, h, w) with more than one cell unless given.
    """

    layer: str | nn.Module | None = None

    @classmethod
    def bind(
        cls,
        network: nn.Module,
        *,
        classes: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        **settings: Any,
    ) -> Self:
        """The method, on any classifier that has a layer of (N, D, h, w).

        Parameters
        ----------
        network, classes, size
            As for any of Captum's methods.

        Raises
        ------
        UnknownNameError
            For a layer that the network does not have; the message offers the nearest.
        BindError
            For a layer that returns something else than (N, D, h, w).
        """
        explainer = super().bind(network, classes=classes, size=size, **settings)
        if explainer.layer is not None:
            explainer.layer = layer_name(network, explainer.layer)
            image = acceptable(network, size)
            if image is not None:
                with undisturbed(network):
                    check_grid(outputs(network, image), explainer.layer)
        return explainer

    def at_layer(self, method: type, network: nn.Module, **settings: Any) -> Any:
        """Captum's `method` about `network`, at the layer."""
        return method(network, own(self.network).get_submodule(str(self.layer)), **settings)

    def _meet(self, image: Tensor) -> None:
        super()._meet(image)
        seen = outputs(own(self.network), image)
        if self.layer is None:
            self.layer = last_grid(seen)
        check_grid(seen, str(self.layer))


@define(eq=False, kw_only=True)
class FromBaseline(LayerMethod):
    """A layer method that compares with one baseline, and adds up to the logit less that of the baseline.

    Parameters
    ----------
    baseline : float, sequence of three floats, or Tensor (3, H, W)
        Black unless given, as in Captum.
    """

    baseline: Baseline = 0.0

    def base_of(self, images: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
        """The logit, or margin, of the baseline; 0 where no sum is claimed."""
        if self.card.claim == "none":
            return super().base_of(images, targets, against)
        return self.mean_logits(baseline_for(images, self.baseline), targets, against)

    def settings(self) -> dict[str, Any]:
        """With the baseline in words where it is an image."""
        return {**super().settings(), "baseline": told(self.baseline)}


@define(eq=False, kw_only=True)
class FromBaselines(LayerMethod):
    """A layer method that takes the mean over several baselines.

    Parameters
    ----------
    baselines : sequence of float, or Tensor (B, 3, H, W)
        Black, grey and white unless given; Captum has no default.
    """

    baselines: Baselines = GREYS

    def base_of(self, images: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
        """The mean logit, or margin, of the baselines."""
        return self.mean_logits(baselines_for(images, self.baselines), targets, against)

    def settings(self) -> dict[str, Any]:
        """With the baselines in words where they are images."""
        return {**super().settings(), "baselines": told(self.baselines)}


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
        claim="none",
        speaks="pixels",
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
        claim="none",
        speaks="pixels",
    )
    rewires: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """Two forward passes and two backward passes."""
        return self.at_layer(attr.GuidedGradCam, network).attribute(images, **question)

    def _meet(self, image: Tensor) -> None:
        super()._meet(image)
        warn_of_unreached(self.network, image, self.card.title, "its gradients are plain ones")


@define(eq=False, kw_only=True)
class LayerGradientXActivation(LayerMethod):
    """Each activation of the layer times the gradient of the logit there."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer gradient x activation",
        citation="Shrikumar, Greenside, Shcherbina, Kundaje; 2016; arXiv:1605.01713, at a layer",
        claim="none",
        speaks="pixels",
    )
    one_pass: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward pass, and a backward pass down to the layer."""
        return self.at_layer(attr.LayerGradientXActivation, network).attribute(images, **question)


@define(eq=False, kw_only=True)
class LayerFeatureAblation(LayerMethod):
    """How far the logit falls where a cell of the layer is set to zero, in all channels at once."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer feature ablation",
        citation="Zeiler, Fergus; ECCV 2014; arXiv:1311.2901, at the cells of a layer",
        claim="none",
        speaks="pixels",
    )

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """A forward pass a cell, and two more."""
        with torch.no_grad():
            height, width = outputs(own(self.network), images[:1])[str(self.layer)][2:]
        mask = torch.arange(height * width, device=images.device).view(1, 1, height, width)
        if "target" in question:  # Captum repeats the images for each cell, but not their targets
            network, question = Margin(network), {"additional_forward_args": (question["target"],)}
        found: Tensor = self.at_layer(attr.LayerFeatureAblation, network).attribute(
            images.detach(),
            layer_mask=mask,
            perturbations_per_eval=max(1, self.max_batch // len(images)),
            **question,
        )
        return spread(found, mask)


@define(eq=False, kw_only=True)
class _AlongTheWay(FromBaseline):
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
        """`n_steps` forward and backward passes, as many at once as `max_batch` allows."""
        method, most = self.at_layer(self.captum, network), max(self.max_batch, self.at_once)
        found = [
            method.attribute(
                some.detach(), baselines=baseline_for(images, self.baseline), n_steps=self.n_steps,
                method=self.method, internal_batch_size=most, **asked,
            )
            for some, asked in pieces(images, question, most // self.at_once)
        ]  # fmt: skip
        return torch.cat(found)


@define(eq=False, kw_only=True)
class InternalInfluence(_AlongTheWay):
    """The mean gradient at the layer, on the way from the baseline to the image; no sum is claimed."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Internal influence",
        citation="Leino, Sen, Datta, Fredrikson, Li; ITC 2018; arXiv:1802.03788",
        claim="none",
        speaks="pixels",
    )
    captum: ClassVar[type] = attr.InternalInfluence


@define(eq=False, kw_only=True)
class LayerConductance(_AlongTheWay):
    """What flows through each cell of the layer, of what integrated gradients attribute to the pixels."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer conductance",
        citation="Dhamdhere, Sundararajan, Yan; ICLR 2019; arXiv:1805.12233",
        claim="approximate",
        speaks="pixels",
    )
    captum: ClassVar[type] = attr.LayerConductance
    at_once: ClassVar[int] = 2


@define(eq=False, kw_only=True)
class LayerIntegratedGradients(_AlongTheWay):
    """Integrated gradients from the layer's answer to the baseline, to its answer to the image."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer integrated gradients",
        citation="Sundararajan, Taly, Yan; ICML 2017; arXiv:1703.01365, at a layer",
        claim="approximate",
        speaks="pixels",
    )
    captum: ClassVar[type] = attr.LayerIntegratedGradients


@define(eq=False, kw_only=True)
class LayerGradientShap(FromBaselines):
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
        claim="approximate",
        speaks="pixels",
    )

    n_samples: int = field(default=5, validator=positive)
    stdevs: float = 0.0
    seed: int = 0

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`n_samples` passes forward and backward, and as many of baselines and of images forward."""
        method, known = self.at_layer(attr.LayerGradientShap, network), baselines_for(images, self.baselines)
        found = []
        for image, asked in pieces(images, question, 1):
            with seeded(self.seed):
                told = method.attribute(
                    image, known, n_samples=self.n_samples, stdevs=float(self.stdevs), **asked
                )
            found.append(told.detach())
        return torch.cat(found)


@define(eq=False, kw_only=True)
class LayerDeepLift(FromBaseline):
    """DeepLIFT down to a layer."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer DeepLIFT",
        citation="Shrikumar, Greenside, Kundaje; ICML 2017; arXiv:1704.02685, at a layer",
        claim="approximate",
        speaks="pixels",
    )
    rewires: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """One forward pass of images and baselines together, and a backward pass down to the layer."""
        method, empty = self.at_layer(attr.LayerDeepLift, network), baseline_for(images, self.baseline)
        found = [
            method.attribute(some, empty.expand(len(some), -1, -1, -1), **asked).detach()
            for some, asked in pieces(images, question, self.max_batch // 2)
        ]
        return torch.cat(found)

    def _meet(self, image: Tensor) -> None:
        super()._meet(image)
        check_run_once(own(self.network), image, self.card.title)


@define(eq=False, kw_only=True)
class LayerDeepLiftShap(FromBaselines):
    """DeepLIFT down to a layer, in the mean over several baselines."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer DeepLIFT SHAP",
        citation="Lundberg, Lee; NeurIPS 2017; arXiv:1705.07874, at a layer",
        claim="approximate",
        speaks="pixels",
    )
    rewires: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """A forward pass a baseline, each of image and baseline together, and a backward pass."""
        method, known = self.at_layer(attr.LayerDeepLiftShap, network), baselines_for(images, self.baselines)
        shares = []
        for some in shares_of(known, self.max_batch // 2):
            found = [
                method.attribute(few, some, **asked).detach()
                for few, asked in pieces(images, question, self.max_batch // (2 * len(some)))
            ]
            shares.append(torch.cat(found) * (len(some) / len(known)))
        return torch.stack(shares).sum(0)

    def _meet(self, image: Tensor) -> None:
        super()._meet(image)
        check_run_once(own(self.network), image, self.card.title)


@define(eq=False, kw_only=True)
class LayerLRP(LayerMethod):
    """Relevance by the epsilon rule, from the logit down to a layer that has a rule: no ReLU."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer-wise relevance propagation, at a layer",
        citation="Bach, Binder, Montavon, Klauschen, Müller, Samek; PLOS ONE 10 (7), 2015",
        claim="approximate",
        speaks="pixels",
    )
    rewires: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """Two forward passes, and a backward pass; twice that for a contrast."""
        with passing(self.network):
            return by_class(self.at_layer(attr.LayerLRP, self.network), images, question)

    def _meet(self, image: Tensor) -> None:
        CaptumExplainer._meet(self, image)
        network = own(self.network)
        check_ruled(network, image, self.card.title)
        seen = outputs(network, image)
        ruled = {name: shape for name, shape in seen.items() if keeps_relevance(network.get_submodule(name))}
        if self.layer is None:
            self.layer = last_grid(ruled)
        check_grid(seen, str(self.layer))
        if self.layer not in ruled:
            raise BindError(
                f"Expected a layer that Captum keeps relevance at; {self.layer!r} is a "
                f"{type(network.get_submodule(str(self.layer))).__name__}. The last that will do is "
                f"{last_grid(ruled)!r}."
            )
