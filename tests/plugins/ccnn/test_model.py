"""Phrases and cells sum to the logit."""

import copy

import pytest
import torch
from ccnn_networks import OF_CLASSES, fitted_explainer, small_network
from plugin_cases import FLOAT32, assert_near

from explainkit.testing import tiny_images


def test_filters_silenced_at_random_are_silent_in_the_logits_alone():
    network = small_network(dropout=0.5).train()

    outputs = network.outputs(tiny_images())

    silent = outputs.scores == 0
    assert 0 < silent.float().mean() < 1
    assert_near(outputs.logits, outputs.scores @ network.head.weight.T)
    assert (outputs.maps.flatten(2).any(2) & silent).any()


def test_what_only_the_projections_learn_from_is_no_part_of_the_logits():
    network, images = small_network(), tiny_images()
    before = network(images)

    with torch.no_grad():
        network.visual.mul_(7)
        network.textual.add_(1)
        network.vectors.neg_()

    assert torch.equal(network(images), before)


def test_phrases_and_cells_sum_to_the_logit_literally():
    model, images = fitted_explainer(), tiny_images()

    explanations = model.explain(images, 1).check_additivity()

    network = copy.deepcopy(model.network).double()
    maps = network.decompose(images.double()).maps
    weight = network.head.weight[1]
    for i in range(len(images)):
        by_phrase = by_cell = 0.0
        for k in range(maps.shape[1]):
            by_phrase += maps[i, k].mean().item() * weight[k].item()
            by_cell += sum(cell * weight[k].item() / 64 for cell in maps[i, k].flatten().tolist())
        terms = explanations.contributions[i].abs().sum().item()
        assert by_phrase == pytest.approx(explanations.logits[i, 1].item(), abs=FLOAT32 * terms)
        assert by_cell == pytest.approx(by_phrase, abs=1e-12 * terms)
    assert not explanations.base.any()
    terms = explanations.contributions.abs().sum(1)
    assert_near(explanations.residual, torch.zeros(len(images)), scale=terms)
    assert_near(explanations.saliency().sum((1, 2)), explanations.logits[:, 1], scale=terms)


def test_nothing_but_phrases_supports_a_class():
    network = fitted_explainer().network

    assert network.head.bias is None and {name for name, _ in network.head.named_parameters()} == {"weight"}
    assert not network.decompose(tiny_images()).bias.any()


def test_a_contrast_sums_to_the_margin():
    explanations = fitted_explainer().explain(tiny_images(), 0, foils=2).check_additivity()

    margin = explanations.logits[:, 0] - explanations.logits[:, 2]
    assert_near(explanations.contributions.sum(1), margin, scale=explanations.contributions.abs().sum(1))


def test_maps_say_where_and_are_never_negative():
    decomposition = fitted_explainer().network.decompose(tiny_images())

    assert decomposition.maps.min() >= 0
    assert_near(decomposition.scores, decomposition.maps.mean((2, 3)))


@pytest.mark.parametrize("init_head_weight", [0.1, 1.0])
def test_a_class_begins_with_its_phrases_and_no_others(init_head_weight):
    network = small_network(init_head_weight=init_head_weight)

    for c in range(3):
        for k in range(5):
            expected = init_head_weight if OF_CLASSES[k, c] else 0.0
            assert network.head.weight[c, k].item() == pytest.approx(expected)
