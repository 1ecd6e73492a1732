"""What methods share that stop at a layer with a grid (N, D, h, w): coarse maps of what the network saw."""

from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import define
from torch import Tensor, nn

from explainkit.explainers.isolation import running
from explainkit.networks.layers import check_spatial_layer, last_spatial_layer, layer_name, output_shapes
from explainkit_captum.baseline import (
    GRAYS,
    Baseline,
    Baselines,
    baseline_for,
    baseline_setting,
    baselines_for,
)
from explainkit_captum.explainer import CaptumExplainer
from explainkit_captum.logits import probe_image, unwrap
from explainkit_captum.requirements import check_gradients, check_hooks


@define(eq=False, kw_only=True)
class LayerMethod(CaptumExplainer):
    """A method about what a layer returned, on the layer's own grid.

    Parameters
    ----------
    layer : str, nn.Module or None
        By dotted name, or itself; the last that returns (N, D, h, w) with more than one cell unless given.
    """

    hooks_network: ClassVar[bool] = True

    layer: str | nn.Module | None = None

    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take any classifier that has a layer of (N, D, h, w).

        Raises
        ------
        UnknownNameError
            For a layer that the network does not have; the message offers the nearest.
        UnsupportedNetworkError
            For a layer that returns something else than (N, D, h, w).
        """
        super().adopt_network(network, classes)
        if self.layer is not None:
            network = unwrap(self.network)
            self.layer = layer_name(network, self.layer)
            image = probe_image(network, self.input_spec)
            if image is not None:
                with running(network, isolate=True) as twin:
                    check_spatial_layer(output_shapes(twin, image), self.layer)

    def at_layer(self, method: type, network: nn.Module, **settings: Any) -> Any:
        """Captum's `method` about `network`, at the layer."""
        return method(network, unwrap(self.network).get_submodule(str(self.layer)), **settings)

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        shapes = output_shapes(unwrap(network), image)
        if self.layer is None:
            self.layer = last_spatial_layer(shapes)
        check_spatial_layer(shapes, str(self.layer))
        if self.needs_gradients:
            check_gradients(network, image, self.card.title, layer=str(self.layer))

    def _check_network(self, network: nn.Module, image: Tensor) -> None:
        """Refuse a network without hooks, or without any gradients; the layer may not be decided yet."""
        check_hooks(network, self.card.title)
        if self.needs_gradients:
            check_gradients(network, image, self.card.title, at_pixels=False)


@define(eq=False, kw_only=True)
class OneBaselineMethod(LayerMethod):
    """A layer method that compares with one baseline, and adds up to the logit less that of the baseline.

    Parameters
    ----------
    baseline : float, sequence of three floats, or Tensor (3, H, W)
        Black unless given, as in Captum.
    """

    baseline: Baseline = 0.0

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The logit, or margin, of the baseline; 0 where no sum is claimed."""
        if self.card.additivity == "none":
            return super().base_of(images, targets, foils)
        return self.mean_logits(baseline_for(images, self.baseline, self.input_spec), targets, foils)

    def settings(self) -> dict[str, Any]:
        """With the baseline in words where it is an image."""
        return {**super().settings(), "baseline": baseline_setting(self.baseline)}


@define(eq=False, kw_only=True)
class BaselinesMethod(LayerMethod):
    """A layer method that takes the mean over several baselines.

    Parameters
    ----------
    baselines : sequence of float, or Tensor (B, 3, H, W)
        Black, gray and white unless given; Captum has no default.
    """

    baselines: Baselines = GRAYS

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The mean logit, or margin, of the baselines."""
        return self.mean_logits(baselines_for(images, self.baselines, self.input_spec), targets, foils)

    def settings(self) -> dict[str, Any]:
        """With the baselines in words where they are images."""
        return {**super().settings(), "baselines": baseline_setting(self.baselines)}
