"""PrototypeDNN: a classifier of distances to prototypes in the latent space of an autoencoder.

Li, Liu, Chen, Rudin: Deep Learning for Case-Based Reasoning through Prototypes: A Neural Network that
Explains Its Predictions. AAAI 2018, arXiv:1710.04806.

Read autoencoder.py for encoder and decoder, model.py for the network, elastic.py for the distortion of
training images, losses.py for how it learns, prototypes.py for where prototypes begin and what is kept of
them, explainer.py for settings and phases, report.py for what became of the prototypes, geometry.py for
logits as quadratic forms of the latent point, latent_edits.py for counterfactuals by moves of that point,
renderer.py for how an explanation is drawn.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [
        Offer(
            "prototype-dnn",
            "Distances to whole-image prototypes, which a decoder draws",
            "explainkit_prototypednn.explainer:PrototypeDNN",
            "explainkit_prototypednn.renderer:draw",
        )
    ]


@hookimpl
def explainkit_counterfactual_methods() -> list[Offer]:
    """For this plugin's explainer alone."""
    return [
        Offer(
            "prototype-dnn/latent",
            "The least move of the latent point, decoded, encoded again and asked",
            "explainkit_prototypednn.latent_edits:LatentEdit",
        )
    ]
