"""Layer-wise relevance propagation down to a layer."""

from typing import ClassVar

from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError
from explainkit.networks.layers import check_spatial_layer, last_spatial_layer, output_shapes
from explainkit_captum.explainer import CaptumExplainer, Question
from explainkit_captum.layer_explainer import LayerMethod
from explainkit_captum.logits import unwrap
from explainkit_captum.relevance import by_class, check_ruled, keeps_relevance, passing


@define(eq=False, kw_only=True)
class LayerLRP(LayerMethod):
    """Relevance by the epsilon rule, from the logit down to a layer that has a rule: no ReLU."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer-wise relevance propagation, at a layer",
        citation="Bach, Binder, Montavon, Klauschen, Müller, Samek; PLOS ONE 10 (7), 2015",
        additivity="approximate",
        unit_kind="pixels",
    )
    needs_full_precision: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """Two forward passes, and a backward pass; twice that for a contrast."""
        with passing(self.network):
            return by_class(self.at_layer(attr.LayerLRP, self.network), images, question)

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        CaptumExplainer._prepare(self, network, image)
        network = unwrap(network)
        check_ruled(network, image, self.card.title)
        shapes = output_shapes(network, image)
        ruled = {
            name: shape for name, shape in shapes.items() if keeps_relevance(network.get_submodule(name))
        }
        if self.layer is None:
            self.layer = last_spatial_layer(ruled)
        check_spatial_layer(shapes, str(self.layer))
        if self.layer not in ruled:
            raise UnsupportedNetworkError(
                f"Expected a layer that Captum keeps relevance at; {self.layer!r} is a "
                f"{type(network.get_submodule(str(self.layer))).__name__}. The last that will do is "
                f"{last_spatial_layer(ruled)!r}."
            )
