"""What is claimed of the sum of contributions, and of contrasts."""

import pytest
import torch
from captum_networks import COMPLETE, METHODS, captum_explainer, random_images, seeded_network, tolerance_of
from plugin_cases import assert_near
from torch import nn

import explainkit as ek


def explained_output(network, images, target, foil):
    """The logit of `target`, or its margin over `foil`."""
    with torch.no_grad():
        logits = network(images)
    return logits[:, target] - (0 if foil is None else logits[:, foil])


@pytest.mark.parametrize("foils", [None, 2])
def test_integrated_gradients_add_up_but_for_the_residual(foils):
    network, images = seeded_network(), random_images()

    rough = captum_explainer("integrated-gradients", network, n_steps=5).explain(images, 0, foils=foils)
    fine = captum_explainer("integrated-gradients", network, n_steps=500).explain(images, 0, foils=foils)

    output = explained_output(network, images, 0, foils)
    black = explained_output(network, torch.zeros(1, 3, 24, 24), 0, foils)
    scale = network(images).detach()  # of which margins are differences
    assert_near(fine.base, black.expand(3), scale=scale)
    assert_near(fine.base + fine.contributions.sum(1) + fine.residual, output, scale=scale)
    assert fine.additivity == "approximate" and fine.unit == "logit"
    assert fine.residual.abs().max() < 1e-2 * output.abs().max() < rough.residual.abs().max() * 100


def test_integrated_gradients_of_a_linear_network_leave_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))

    explanations = captum_explainer("integrated-gradients", network, baseline=0.5, n_steps=1).explain(
        random_images(size=8), foils=1
    )

    explanations.check_additivity()


@pytest.mark.parametrize("method", sorted({*METHODS} - {"lrp", "layer-lrp"}))
def test_a_contrast_is_that_of_a_network_whose_logit_is_the_margin(method):
    network, images = seeded_network(), random_images()
    margin = seeded_network()
    with torch.no_grad():
        margin.head.weight[0] -= network.head.weight[2]
        margin.head.bias[0] -= network.head.bias[2]

    contrast = captum_explainer(method, network).explain(images, 0, foils=2)

    expected = captum_explainer(method, margin).explain(images, 0)
    assert_near(contrast.contributions, expected.contributions, tolerance_of(method))
    assert_near(contrast.explained_output, expected.explained_output, scale=contrast.logits)
    with pytest.raises(ek.InputError, match="foils="):
        contrast.contrast(1)


@pytest.mark.parametrize("method", sorted({*METHODS} - {*COMPLETE}))
def test_no_sum_is_claimed_where_there_is_none(method):
    explanations = captum_explainer(method, seeded_network()).explain(random_images())

    assert (explanations.additivity, explanations.unit, explanations.residual) == ("none", "gradient", None)
    assert not explanations.base.any()


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("foils", [None, 2])
def test_what_claims_a_sum_shows_what_it_leaves_out(method, foils):
    network, images = seeded_network(), random_images()

    explanations = captum_explainer(method, network).explain(images, 0, foils=foils)

    output = explained_output(network, images, 0, foils)
    assert explanations.additivity == "approximate" and explanations.unit == "logit"
    total = explanations.base + explanations.contributions.sum(1) + explanations.residual
    assert_near(total, output, scale=explanations.contributions.abs().sum(1))
    if "gradient-shap" not in method and "lrp" not in method:  # by chance; biases keep their share
        assert explanations.residual.abs().max() < 0.02 * (output - explanations.base).abs().max()
