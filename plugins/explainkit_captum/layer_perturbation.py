"""Layer feature ablation: how far the logit falls where a cell of a layer is set to zero."""

from typing import ClassVar

import torch
from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.networks.layers import output_shapes
from explainkit_captum.explainer import Margin, Question
from explainkit_captum.layer_explainer import LayerMethod
from explainkit_captum.logits import unwrap
from explainkit_captum.patches import divide_by_patch


@define(eq=False, kw_only=True)
class LayerFeatureAblation(LayerMethod):
    """How far the logit falls where a cell of the layer is set to zero, in all channels at once."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Layer feature ablation",
        citation="Zeiler, Fergus; ECCV 2014; arXiv:1311.2901, at the cells of a layer",
        additivity="none",
        unit_kind="pixels",
    )

    needs_gradients: ClassVar[bool] = False
    needs_full_precision: ClassVar[bool] = True

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """A forward pass a cell, and two more."""
        with torch.no_grad():
            shapes = output_shapes(unwrap(self.network), images[:1])
        height, width = map(int, shapes[str(self.layer)][2:])
        mask = torch.arange(height * width, device=images.device).view(1, 1, height, width)
        if "target" in question:  # Captum repeats the images for each cell, but not their targets
            network, question = Margin(network), {"additional_forward_args": (question["target"],)}
        attribution: Tensor = self.at_layer(attr.LayerFeatureAblation, network).attribute(
            images.detach(),
            layer_mask=mask,
            perturbations_per_eval=max(1, self.batch_size // len(images)),
            **question,
        )
        return divide_by_patch(attribution, mask)
