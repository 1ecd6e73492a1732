"""Contrastive explanations: why the target rather than a foil."""

import pytest
import torch
from attrs import evolve
from explanation_cases import REFERENCE, make_explanations

from explainkit.errors import InputError, UnknownNameError


@pytest.mark.parametrize("callable_weights", [False, True])
@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_a_contrast_sums_to_the_margin_and_is_antisymmetric(reference, callable_weights):
    explanations = make_explanations(reference=reference, callable_weights=callable_weights)
    foils = (explanations.targets + 1) % 3

    contrast = explanations.contrast(foils).check_additivity()
    reverse = evolve(
        explanations,
        targets=foils,
        weights=explanations.decomposition.weights_for(foils),
        base=explanations.base,
    ).contrast(explanations.targets)

    rows = torch.arange(4)
    margin = explanations.logits[rows, explanations.targets] - explanations.logits[rows, foils]
    torch.testing.assert_close(contrast.explained_output, margin)
    torch.testing.assert_close(contrast.base + contrast.contributions.sum(1), margin)
    torch.testing.assert_close(reverse.contributions, -contrast.contributions)
    torch.testing.assert_close(reverse.saliency(), -contrast.saliency())
    torch.testing.assert_close(reverse.base, -contrast.base)


def test_a_contrast_of_a_class_with_itself_is_zero():
    contrast = make_explanations().contrast(make_explanations().targets)

    assert contrast.contributions.abs().max() == 0 and contrast.explained_output.abs().max() == 0


def test_a_contrast_takes_names_and_one_class_for_all():
    explanations = make_explanations()

    torch.testing.assert_close(explanations.contrast("wren").foils, torch.full((4,), 2))
    torch.testing.assert_close(explanations.contrast(["jay", 2, "wren", 0]).foils, torch.tensor([1, 2, 2, 0]))
    assert explanations.contrast("wren")[0].foil_name == "wren"


def test_selected_images_are_contrasted_with_their_own_weights():
    explanations = make_explanations(callable_weights=True)

    selected = explanations[[3, 1]].contrast("wren")

    torch.testing.assert_close(selected.contributions, explanations.contrast("wren").contributions[[3, 1]])


def test_without_a_decomposition_the_error_names_the_argument_for_a_contrast():
    with pytest.raises(InputError, match="foils="):
        make_explanations(decomposition=None).contrast("jay")


@pytest.mark.parametrize("target", ["cardnal", "no such bird"])
def test_an_unknown_class_is_answered_with_the_nearest(target):
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cardinal'\?|There are 3 classes"):
        make_explanations().contrast(target)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(4), "targets as integers; got torch.float32"),
        ([0, 1], r"\(4,\); got 2"),
        ([0, 1, 2, None], "class name or index; got None"),
        (3, "class index in 0 … 2; got 3"),
        (-1, "class index in 0 … 2; got -1"),
    ],
)
def test_targets_are_refused_in_words(targets, message):
    with pytest.raises(InputError, match=message):
        make_explanations().contrast(targets)
