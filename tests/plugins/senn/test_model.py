"""Concepts times weights are the logits."""

from itertools import product

import pytest
import torch
from plugin_cases import assert_near
from senn_networks import doubles, fitted_explainer, for_each_network, image_network
from torch import nn

import explainkit as ek
from explainkit.networks.normalization import batch_mixing_module
from explainkit.testing import tiny_images
from explainkit_senn.concepts import ConvConceptizer, IdentityConceptizer
from explainkit_senn.losses import robustness
from explainkit_senn.model import ImageParametrizer, SENNNetwork


@for_each_network
def test_concepts_times_weights_are_the_logit(make):
    network, inputs = make()

    decomposition = network.decompose(inputs)

    assert torch.equal(network(inputs), decomposition.logits)
    for n, c in product(range(len(inputs)), range(3)):
        weights = decomposition.weights_for(torch.full((len(inputs),), c))[n]
        bias = decomposition.bias_for(torch.full((len(inputs),), c))[n].item()
        scores = decomposition.scores[n].tolist()
        total = bias + sum(h * w for h, w in zip(scores, weights.tolist(), strict=True))
        assert total == pytest.approx(decomposition.logits[n, c].item(), rel=1e-10, abs=1e-10)


@for_each_network
def test_in_training_the_explanation_comes_from_the_forward_of_the_logits(make):
    network, inputs = make(dropout=0.5, robustness_fraction=0.5)
    network.train()

    outputs = network.outputs(inputs)

    assert len(outputs.tracked_inputs) == round(0.5 * len(inputs))
    total = torch.einsum("nk,nkc->nc", outputs.concepts, outputs.theta)
    torch.testing.assert_close(total, outputs.logits, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(network(inputs), outputs.logits)  # the masks differ


def test_the_weight_of_the_constant_concept_is_the_bias_and_no_unit():
    network, inputs = image_network(constant=True), doubles(3, 3, 16, 16)

    outputs, decomposition = network.outputs(inputs), network.decompose(inputs)

    assert decomposition.scores.shape == (3, 4) and outputs.theta.shape == (3, 5, 3)
    assert (outputs.concepts[:, 4] == 1).all()
    assert torch.equal(decomposition.bias, outputs.theta[:, 4])
    model = ek.explainer("senn", network=network.float(), classes=["a", "b", "c"])
    explanations = model.explain(inputs.float(), 1).check_additivity()
    assert len(explanations.units) == 4
    assert_near(explanations.base, outputs.theta[:, 4, 1].float(), scale=outputs.theta)
    plain = ek.explainer("senn", network=image_network().float(), classes=["a", "b", "c"])
    assert not plain.explain(inputs.float()).base.any()


def test_a_contrast_sums_to_the_margin():
    explanations = fitted_explainer().explain(tiny_images(), 0, foils=2).check_additivity()

    total = explanations.base + explanations.contributions.sum(1)
    margin = explanations.logits[:, 0] - explanations.logits[:, 2]
    assert_near(total, margin, scale=explanations.contributions.abs().sum(1))


def test_a_parametrizer_that_cannot_come_to_rest_is_refused():
    parametrizer = nn.Sequential(nn.Linear(5, 15), nn.BatchNorm1d(15, track_running_stats=False))

    with pytest.raises(ek.InputError, match="'1' keeps no statistics"):
        SENNNetwork(IdentityConceptizer(), parametrizer, 5, 3, (5,))


def test_a_network_with_batch_norms_elsewhere_comes_to_rest_and_back_from_its_state():
    pytest.importorskip("torchvision")
    torch.manual_seed(0)

    def resnet_network():
        parametrizer = ImageParametrizer(ek.backbone("torchvision/resnet18"), 2, 3)
        return SENNNetwork(
            ConvConceptizer(2, 3, (32, 32)), parametrizer, 2, 3, (32, 32), robustness_fraction=1.0
        )

    network, images = resnet_network().eval(), tiny_images()[:2]
    before = network(images)

    network.fold_batch_norms()

    assert_near(network(images), before, 1e-3)  # each of 20 folded layers adds its rounding
    assert batch_mixing_module(network) is None and robustness(network.train().outputs(images)) > 0
    loaded = resnet_network()
    loaded.load_state_dict(network.state_dict())
    assert torch.equal(loaded.eval()(images), network.eval()(images))


@for_each_network
def test_a_concept_that_is_off_adds_nothing_and_leaves_all_weights(make):
    network, inputs = make()
    before = network.decompose(inputs)

    network.unit_mask[2] = False
    after = network.decompose(inputs)

    expected = before.scores.clone()
    expected[:, 2] = 0
    assert torch.equal(after.scores, expected) and torch.equal(network(inputs), after.logits)
    for label in range(3):
        targets = torch.full((len(inputs),), label)
        weights = before.weights_for(targets)
        assert torch.equal(after.weights_for(targets), weights)
        assert torch.equal(after.bias_for(targets), before.bias_for(targets))
        lost = before.scores[:, 2] * weights[:, 2]
        assert_near(after.logits[:, label], before.logits[:, label] - lost, 1e-10, scale=before.logits)
