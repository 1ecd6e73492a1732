"""Checks of values that leave the process as text."""

from __future__ import annotations

import torch
from torch import Tensor

from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_level import ClassExplanations
from explainkit.testing.assertions import check, is_close, provenance_fields
from explainkit.testing.question_checks import labeled


def check_json(explainer: Explainer, images: Tensor) -> None:
    """Explanations, and those of classes, come back from JSON with equal numbers and equal sentences."""
    if "image" in explainer.card.answers:
        _check_images(explainer, images)
    if "class" in explainer.card.answers:
        _check_classes(explainer, images)


def _check_images(explainer: Explainer, images: Tensor) -> None:
    explanations = explainer.explain(images)
    sentences = [item.sentence() for item in explanations]
    bare, whole = (
        Explanations.from_json(explanations.to_json(images=wanted, maps=wanted)) for wanted in (False, True)
    )
    for again in (bare, whole):
        for name in ("logits", "targets", "base", "scores", "weights", "contributions"):
            check(_is_same(again, explanations, name), f"the same {name} from JSON")
        check([item.sentence() for item in again] == sentences, "the same sentences from JSON")
        check(provenance_fields(again) == provenance_fields(explanations), "the same provenance from JSON")
    check(not bare.has_images and bare.maps is None, "neither images nor maps in JSON unless asked for")
    check(_is_same(whole, explanations, "images"), "the same images from JSON that was to have them")
    check(
        is_close(whole.saliency(), explanations.saliency().cpu()),  # maps are laid out otherwise in memory
        "the same saliency from JSON that was to have maps",
    )


def _check_classes(explainer: Explainer, images: Tensor) -> None:
    batch = labeled(explainer, images, explainer.decision.holds(explainer.predict(images)))
    class_explanations = explainer.explain_class([batch])
    again = ClassExplanations.from_json(class_explanations.to_json())
    for name in ("index", "counts", "logits", "base", "scores", "contributions", "std", "quantiles"):
        check(_is_same(again, class_explanations, name), f"the same {name} of classes from JSON")
    check(
        [item.sentence() for item in again] == [item.sentence() for item in class_explanations],
        "the same sentences of classes from JSON",
    )


def _is_same(
    one: Explanations | ClassExplanations, other: Explanations | ClassExplanations, name: str
) -> bool:
    return torch.equal(getattr(one, name), getattr(other, name).cpu())
