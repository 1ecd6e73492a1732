"""Grad-CAM: the feature maps of a layer, each weighed by its mean gradient."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.interfaces import undisturbed
from explainkit_captum.explainer import CaptumExplainer
from explainkit_captum.layers import check_grid, last_grid, layer_name, outputs
from explainkit_captum.logits import acceptable, own


@define(eq=False, kw_only=True)
class LayerGradCam(CaptumExplainer):
    """Grad-CAM on the layer's own grid, with its sign.

    Mean gradients times feature maps are no logits but for a layer that is pooled and then met by one linear
    layer alone; no sum is claimed.

    Parameters
    ----------
    layer : str, nn.Module or None
        By dotted name, or itself; the last that returns (N, D, h, w) with more than one cell unless given.
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

    layer: str | nn.Module | None = None
    relu_attributions: bool = False

    @classmethod
    def bind(
        cls,
        network: nn.Module,
        *,
        classes: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        **settings: Any,
    ) -> Self:
        """Grad-CAM on any classifier that has a layer of (N, D, h, w).

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

    def attribute(self, network: nn.Module, images: Tensor, question: dict[str, Any]) -> Tensor:
        """One forward pass, and a backward pass down to the layer."""
        layer = own(self.network).get_submodule(str(self.layer))
        return attr.LayerGradCam(network, layer).attribute(
            images, relu_attributions=self.relu_attributions, **question
        )

    def _meet(self, image: Tensor) -> None:
        super()._meet(image)
        seen = outputs(own(self.network), image)
        if self.layer is None:
            self.layer = last_grid(seen)
        check_grid(seen, str(self.layer))
