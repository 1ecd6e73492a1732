"""The certificate of an explanation, and the measured Lipschitz constant of its weights."""

from copy import copy

import numpy as np
import pytest
import torch
from plugin_cases import assert_near, uniform
from senn_jacobians import MethodModule
from senn_networks import doubles, fitted_explainer, for_each_network, image_network, table_network
from torch.func import jacrev

import explainkit as ek
from explainkit.testing import tiny_images
from explainkit_senn.robustness import instability, local_lipschitz


@for_each_network
def test_instability_is_that_of_literal_jacobians(make):
    network, inputs = make()
    targets = torch.arange(len(inputs)) % 3

    tracked = network.preprocess(inputs).detach().requires_grad_()
    values = instability(network.weights_of(tracked), network.concepts_of(tracked), tracked, targets)

    for n, c in enumerate(targets.tolist()):
        one = network.preprocess(inputs)[n]
        logits = jacrev(lambda x: MethodModule(network, "logits")(x[None])[0])(one)[c].flatten()
        concepts = jacrev(lambda x: network.concepts_of(x[None])[0])(one).flatten(1)
        drift = logits - network.weights_of(one[None])[0, :, c] @ concepts
        assert values[n].item() == pytest.approx((drift.norm() / logits.norm()).item(), rel=1e-8)


def test_instability_is_that_of_finite_differences():
    network, rows = table_network(), doubles(2, 5)
    tracked = network.preprocess(rows).detach().requires_grad_()
    targets, step = torch.tensor([0, 2]), 1e-5
    values = instability(network.weights_of(tracked), network.concepts_of(tracked), tracked, targets)

    for n, c in enumerate(targets.tolist()):
        one = network.preprocess(rows)[n]
        weights = network.weights_of(one[None])[0, :, c]
        slopes, drifts = [], []
        for d in range(5):
            ends = [one + sign * step * torch.eye(5, dtype=torch.float64)[d] for sign in (1, -1)]
            logit = [MethodModule(network, "logits")(end[None])[0, c] for end in ends]
            linear = [(network.concepts_of(end[None])[0] * weights).sum() for end in ends]
            slopes.append((logit[0] - logit[1]).item() / 2 / step)
            drifts.append(slopes[-1] - (linear[0] - linear[1]).item() / 2 / step)
        assert values[n].item() == pytest.approx(np.linalg.norm(drifts) / np.linalg.norm(slopes), rel=1e-5)


@pytest.mark.parametrize("make", [table_network, image_network])
def test_instability_is_zero_where_weights_stand_still(make):
    network = make().float()
    with torch.no_grad():
        network.parametrizer.weigh.weight.zero_()
    model = ek.explainer("senn", network=network, classes=["a", "b", "c"], with_instability=True)

    explanations = model.explain(uniform(4, 5) if make is table_network else uniform(4, 3, 16, 16))

    assert explanations.diagnostics["instability"].tolist() == [0, 0, 0, 0]


def test_instability_is_that_of_the_target_and_computed_on_request():
    model, images = copy(fitted_explainer()), tiny_images()
    assert not model.explain(images).diagnostics
    model.with_instability = True
    of_zero, of_one = (model.explain(images, target).diagnostics["instability"] for target in (0, 1))

    assert of_zero.shape == (6,) and (of_zero > 0).all() and not torch.allclose(of_zero, of_one)
    network = model.network
    tracked = images.clone().requires_grad_()
    expected = instability(
        network.weights_of(tracked), network.concepts_of(tracked), tracked, torch.ones(6, dtype=torch.long)
    )
    assert_near(of_one, expected)


def test_weights_that_stand_still_have_no_slope():
    rows = doubles(4, 5)

    slopes = local_lipschitz(lambda x: 0 * x + 2, lambda x: x, rows)

    assert slopes.tolist() == [0, 0, 0, 0]


def test_weights_that_are_the_concepts_have_slope_one():
    slopes = local_lipschitz(lambda x: x, lambda x: x, doubles(4, 5))

    torch.testing.assert_close(slopes, torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_the_search_finds_the_steepest_direction_of_a_linear_map():
    matrix = torch.diag(torch.tensor([0.1, 0.2, 3.0], dtype=torch.float64))

    slopes = local_lipschitz(lambda x: x @ matrix, lambda x: x, doubles(4, 3), steps=60)

    assert (slopes <= 3 + 1e-6).all() and (slopes > 2.8).all()


def test_a_longer_search_finds_no_less_and_each_search_is_repeatable():
    network, images = image_network(), doubles(3, 3, 16, 16)

    def theta(inputs):
        return network.weights_of(inputs)[..., 0]

    four, again, eight = (
        local_lipschitz(theta, network.concepts_of, images, steps=steps) for steps in (4, 4, 8)
    )

    assert (four > 0).all() and torch.equal(again, four)
    assert (eight >= four - 1e-12).all()
