"""Maps, scores and head sum to the logit; Grad-CAM is what autograd says it is."""

import pytest
import torch
from cigc_networks import KINDS, explainer, small_network
from plugin_cases import FLOAT32, assert_near, uniform

from explainkit_cigc.certificate import attention
from explainkit_cigc.model import EPSILON, grad_cam, is_dead, normalized

TOLERANCE = {torch.float32: FLOAT32, torch.float64: 1e-10}


def literal_grad_cam(network, maps, targets):
    """ReLU of gradient times features, summed over filters, one image and one cell after the other."""
    found = []
    for n, target in enumerate(targets.tolist()):
        features = maps[n : n + 1].detach().clone().requires_grad_()
        scores = features.mean((2, 3)) if network.pooling == "mean" else features.amax((2, 3))
        hidden = scores if network.hidden is None else network.hidden(scores).relu()
        (gradient,) = torch.autograd.grad(network.head(hidden)[0, target], features)
        _, filters, height, width = maps.shape
        cells = [
            max(0.0, sum((gradient[0, k, i, j] * maps[n, k, i, j]).item() for k in range(filters)))
            for i in range(height)
            for j in range(width)
        ]
        found.append(torch.tensor(cells, dtype=maps.dtype).view(height, width))
    return torch.stack(found)


@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_grad_cam_is_gradient_times_features_cell_by_cell(pooling, hidden_width):
    network = small_network(pooling, hidden_width).double()
    maps, targets = uniform(3, 32, 3, 4, dtype=torch.float64), torch.tensor([0, 2, 3])

    assert_near(grad_cam(network, maps, targets), literal_grad_cam(network, maps, targets), 1e-10)


@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_grad_cam_is_the_positive_part_of_what_is_explained(pooling, hidden_width):
    model, images = explainer(pooling, hidden_width), uniform(3, 3, 32, 32)
    explanations = model.explain(images, [1, 2, 0])
    maps = explanations.maps

    with torch.no_grad():
        made = grad_cam(model.network, maps, explanations.targets)

    saliency = explanations.saliency(maps.shape[2:])
    assert_near(made, saliency.clamp(min=0), 1e-5, scale=saliency)
    assert_near(attention(explanations), normalized(made), 1e-4)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_filters_and_base_sum_to_the_logit_of_every_class(pooling, hidden_width, dtype):
    model, images = explainer(pooling, hidden_width, dtype), uniform(3, 3, 32, 32)

    for target in range(4):
        explanations = model.explain(images, target).check_additivity()
        total = explanations.saliency().sum((1, 2)) + explanations.base
        scale = explanations.contributions.abs().sum(1)
        assert_near(total, model.network(images.to(dtype))[:, target], TOLERANCE[dtype], scale=scale)


def test_the_logit_of_max_pooling_comes_from_the_best_cells_alone():
    network, images = small_network("max").double(), uniform(1, 3, 32, 32).double()
    decomposition = network.decompose(images)
    flat = decomposition.maps[0].flatten(1)

    for c in range(4):
        total = network.head.bias[c].item()
        cells = [0.0] * flat.shape[1]
        for k in range(len(flat)):
            best = max(range(flat.shape[1]), key=lambda cell, k=k: flat[k, cell].item())
            cells[best] += (network.head.weight[c, k] * flat[k, best]).item()
        assert total + sum(cells) == pytest.approx(decomposition.logits[0, c].item(), rel=1e-10)
        saliency = explainer("max", dtype=torch.float64).explain(images, c).saliency((8, 8)).flatten()
        torch.testing.assert_close(saliency, torch.tensor(cells, dtype=torch.float64), rtol=0, atol=1e-10)


def test_weights_of_a_hidden_layer_are_the_gradient_and_its_base_that_of_the_linear_piece():
    network, images = small_network("mean", 5).double(), uniform(4, 3, 32, 32).double()
    decomposition = network.decompose(images)

    scores = decomposition.scores.detach().requires_grad_()
    logits = network.head(network.hidden(scores).relu())
    for c in range(4):
        (gradient,) = torch.autograd.grad(logits[:, c].sum(), scores, retain_graph=True)
        targets = torch.full((4,), c)
        assert_near(decomposition.weights_for(targets), gradient, 1e-12)
        base = logits[:, c] - (gradient * scores).sum(1)
        assert_near(decomposition.bias_for(targets), base, 1e-10, scale=logits)


def test_a_hidden_layer_is_asked_where_scores_are_set_and_the_rest_is_a_residual():
    model, images = explainer("mean", 5, torch.float64), uniform(4, 3, 32, 32)
    scores = model.explain(images).scores.clone()
    scores[:, 3] = 50.0

    after = model.intervene(images, {3: 50.0})

    expected = model.network.head(model.network.hidden(scores).relu())
    assert_near(after.logits, expected, 1e-10)
    assert after.additivity == "approximate" and after.residual.abs().max() > 1e-6
    assert model.explain(images).additivity == "exact"


def test_shares_sum_to_one_and_maps_that_say_nothing_stay_zero():
    map = uniform(3, 4, 4)
    map[1] = 0

    shares = normalized(map)

    assert (shares >= 0).all() and shares[1].eq(0).all()
    assert_near(shares.sum((1, 2)), torch.tensor([1.0, 0.0, 1.0]))
    assert is_dead(map).tolist() == [False, True, False] and EPSILON < 1e-6


def test_a_class_that_everything_speaks_against_has_a_dead_map():
    network = small_network()
    with torch.no_grad():
        network.head.weight[1] = -1

    map = grad_cam(network, network.decompose(uniform(2, 3, 32, 32)).maps, torch.tensor([1, 0]))

    assert is_dead(map).tolist() == [True, False]


@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_disabled_filters_have_no_part_in_grad_cam(pooling, hidden_width):
    model, images = explainer(pooling, hidden_width), uniform(2, 3, 32, 32)
    strongest = int(model.explain(images, 1).contributions.abs().sum(0).argmax())

    model.disable_units(strongest)

    maps = model.explain(images).maps
    without = maps.clone()
    without[:, strongest] = 0
    targets = torch.tensor([1, 1])
    with torch.no_grad():
        assert_near(grad_cam(model.network, maps, targets), grad_cam(model.network, without, targets))


@pytest.mark.parametrize(("pooling", "hidden_width"), KINDS)
def test_outputs_depend_on_no_other_image(pooling, hidden_width):
    network, images = small_network(pooling, hidden_width), uniform(5, 3, 32, 32)

    together = network.decompose(images)
    alone = network.decompose(images[3:4])

    assert_near(together.logits[3:4], alone.logits)
    first, second = (item.weights_for(item.logits.argmax(1)) for item in (together, alone))
    assert_near(first[3:4], second)
