"""The regularizer of stability, against literal Jacobians."""

from itertools import product

import pytest
import torch
from plugin_cases import FLOAT32, uniform
from senn_jacobians import assert_all_near, gradients, literal_penalty, tracked_terms
from senn_networks import doubles, for_each_network, image_network, table_network
from torch import nn
from torch.func import jacrev

import explainkit as ek
from explainkit.training.steps import Step
from explainkit_senn.concepts import ConvConceptizer
from explainkit_senn.losses import random_signs, robustness
from explainkit_senn.model import ImageParametrizer, SENNNetwork
from explainkit_senn.robustness import estimated_jacobian_penalty, jacobian_penalty


@for_each_network
def test_the_regularizer_is_that_of_literal_jacobians_of_the_logits(make):
    network, inputs = make()

    torch.testing.assert_close(
        jacobian_penalty(*tracked_terms(network, inputs)),
        literal_penalty(network, inputs),
        rtol=1e-9,
        atol=1e-12,
    )


@for_each_network
def test_so_are_its_gradients_for_weights_and_concepts_alike(make):
    network, inputs = make()

    slopes = gradients(network, jacobian_penalty(*tracked_terms(network, inputs)).mean())

    assert_all_near(slopes, gradients(network, literal_penalty(network, inputs).mean()), 1e-9)
    assert slopes["parametrizer.weigh.weight"].abs().max() > 0
    if isinstance(network.conceptizer, ConvConceptizer):
        assert slopes["conceptizer.read.weight"].abs().max() > 0
        assert not any(slopes[name].any() for name in slopes if ".upwards." in name or ".draw." in name)


def test_in_single_precision_it_is_as_near_as_can_be():
    network, inputs = image_network().float(), uniform(3, 3, 16, 16)

    penalty = jacobian_penalty(*tracked_terms(network, inputs))

    expected = literal_penalty(network.double(), inputs.double())
    torch.testing.assert_close(penalty.double(), expected, rtol=FLOAT32, atol=0)


@for_each_network
def test_the_probe_is_right_in_the_mean_over_all_signs(make):
    network, inputs = make()
    whole = jacobian_penalty(*tracked_terms(network, inputs))

    estimates = [
        estimated_jacobian_penalty(
            *tracked_terms(network, inputs), torch.tensor(signs, dtype=torch.float64).expand(len(inputs), -1)
        )
        for signs in product((-1, 1), repeat=3)
    ]

    torch.testing.assert_close(torch.stack(estimates).mean(0), whole, rtol=1e-10, atol=1e-12)
    assert_all_near(
        gradients(network, torch.stack(estimates).mean()), gradients(network, whole.mean()), 1e-10
    )


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_for_one_class_any_probe_is_exact(sign):
    network, inputs = table_network(classes=1), doubles(6, 5)

    signs = torch.full((6, 1), sign, dtype=torch.float64)

    estimate = estimated_jacobian_penalty(*tracked_terms(network, inputs), signs)

    torch.testing.assert_close(
        estimate, jacobian_penalty(*tracked_terms(network, inputs)), rtol=1e-12, atol=0
    )


def test_training_draws_probes_that_are_right_in_the_mean():
    network, inputs = table_network(), doubles(8, 5)
    network.train()

    torch.manual_seed(0)
    outputs, step = network.outputs(inputs), Step(batch_size=len(inputs))
    estimates = torch.stack([robustness(outputs, random_signs(outputs, step)) for _ in range(2000)])

    whole = robustness(outputs)
    assert estimates.std() > 0
    torch.testing.assert_close(estimates.mean(), whole, rtol=0.02, atol=0)


@for_each_network
def test_weights_that_stand_still_cost_nothing(make):
    network, inputs = make()
    moving = jacobian_penalty(*tracked_terms(network, inputs))
    with torch.no_grad():
        network.parametrizer.weigh.weight.zero_()

    theta, concepts, tracked = tracked_terms(network, inputs)

    assert (moving > 1e-6).all() and theta.std(0).max() < 1e-12 < concepts.std(0).max()
    assert jacobian_penalty(theta, concepts, tracked).max() < 1e-20
    signs = torch.ones(len(inputs), 3, dtype=torch.float64)
    assert estimated_jacobian_penalty(*tracked_terms(network, inputs), signs).max() < 1e-20
    assert literal_penalty(network, inputs).max() < 1e-20


@pytest.mark.parametrize("shape", [(7,), (2, 6), (3, 4, 4)])
def test_inputs_of_any_rank_will_do(shape):
    torch.manual_seed(0)
    inputs = doubles(4, *shape).requires_grad_()
    weigh = nn.Linear(inputs[0].numel(), 6).double()
    concepts = doubles(4, 2, seed=1)

    penalties = jacobian_penalty(weigh(inputs.flatten(1)).unflatten(1, (2, 3)), concepts, inputs)

    slopes = weigh.weight.unflatten(0, (2, 3))  # (K, C, D)
    expected = [torch.einsum("k,kcd->cd", one, slopes).square().sum() for one in concepts]
    torch.testing.assert_close(penalties, torch.stack(expected), rtol=1e-10, atol=0)


def test_weights_that_are_linear_in_the_concepts_cost_what_the_formula_says():
    rows, slopes = (
        doubles(4, 5).requires_grad_(),
        doubles(5, 3, 5, seed=1),
    )  # theta_kc = sum_d slopes_kcd x_d

    penalties = jacobian_penalty(torch.einsum("kcd,nd->nkc", slopes, rows), rows.detach(), rows)

    for n in range(4):
        literal = 0.0
        for c, d in product(range(3), range(5)):
            literal += sum(rows[n, k].item() * slopes[k, c, d].item() for k in range(5)) ** 2
        assert penalties[n].item() == pytest.approx(literal, rel=1e-9)


def test_log_probabilities_would_punish_weights_that_stand_still():
    network, inputs = table_network(), doubles(4, 5)
    with torch.no_grad():
        network.parametrizer.weigh.weight.zero_()
    theta = network.weights_of(inputs)[0]

    slopes = jacrev(lambda x: (network.concepts_of(x[None]) @ theta).log_softmax(1)[0])(inputs[0])
    wrong = (slopes - theta.T).norm()  # of h(x) = x the Jacobian is the identity

    assert wrong > 0.1 and jacobian_penalty(*tracked_terms(network, inputs)).max() < 1e-20


def test_the_penalty_of_an_input_depends_on_no_other():
    network, inputs = image_network(), doubles(3, 3, 16, 16)
    network.train()

    penalties = jacobian_penalty(*tracked_terms(network, inputs))
    among_others = jacobian_penalty(*tracked_terms(network, torch.cat([inputs[:1], 1 - inputs[1:]])))

    torch.testing.assert_close(among_others[0], penalties[0], rtol=1e-10, atol=0)
    assert (among_others[1:] != penalties[1:]).all()


def test_while_batch_norms_mix_images_there_is_no_penalty():
    network = SENNNetwork(
        ConvConceptizer(2, 3, (16, 16)), ImageParametrizer(ek.backbone("tiny"), 2, 3), 2, 3, (16, 16)
    ).train()
    images = uniform(4, 3, 16, 16)

    assert network.outputs(images).tracked_inputs is None and robustness(network.outputs(images)) == 0
    network.fold_batch_norms()
    assert network.outputs(images).tracked_inputs is not None and robustness(network.outputs(images)) > 0
    with torch.no_grad():
        assert network.outputs(images).tracked_inputs is None
    outputs = network.eval().outputs(images)
    assert outputs.tracked_inputs is None and outputs.reconstruction is None
