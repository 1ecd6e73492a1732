"""Maps and bias sum to the logit."""

import gc

import pytest
import torch
from cam_networks import cam, explanations_of, small_network
from plugin_cases import FLOAT32, assert_near, uniform
from torch.nn import functional as F

import explainkit as ek
from explainkit_cam.model import pooled

TOLERANCE = {torch.float32: FLOAT32, torch.float64: 1e-10}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("target", range(4))
def test_the_map_and_the_bias_are_the_logit(dtype, target):
    explainer, images = cam(dtype), uniform(3, 3, 32, 32)

    explanations = explainer.explain(images, target)

    logits = explainer.network(images.to(dtype))[:, target]
    head = explainer.network.head
    features = explainer.network.backbone(images.to(dtype))
    activation_map = torch.einsum("k,nkhw->nhw", head.weight[target], features) / features[0, 0].numel()
    assert_near(explanations.saliency((8, 8)), activation_map, TOLERANCE[dtype])
    total = explanations.saliency().sum((1, 2)) + head.bias[target]
    assert_near(total, logits, TOLERANCE[dtype], scale=explanations.contributions.abs().sum(1))
    assert explanations.residual.abs().max() <= TOLERANCE[dtype] * explanations.logits.abs().max()


def test_filters_and_cells_sum_to_the_logit_literally():
    explainer, images = cam(torch.float64), uniform(1, 3, 32, 32)

    decomposition = explainer.network.decompose(images.double())

    height, width = decomposition.maps.shape[2:]
    for c in range(4):
        total = decomposition.bias[c].item()
        for k in range(decomposition.maps.shape[1]):
            for row in range(height):
                for column in range(width):
                    cell = decomposition.maps[0, k, row, column] / (height * width)
                    total += (decomposition.weights[c, k] * cell).item()
        assert total == pytest.approx(decomposition.logits[0, c].item(), rel=1e-10)


def test_sums_hold_on_a_thousand_images():
    explainer = cam()

    explanations = explainer.explain(uniform(1000, 3, 32, 32))

    assert len(explanations.check_additivity()) == 1000
    assert_near(explanations.logits, explainer.predict(uniform(1000, 3, 32, 32)))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_autograds_element_wise_grad_cam_is_the_contribution_map(dtype):
    explainer, images = cam(dtype), uniform(3, 3, 32, 32).to(dtype)
    features = explainer.network.backbone(images).detach().requires_grad_()
    logits = pooled(features, explainer.network.head).logits
    targets = logits.argmax(1)

    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)

    explanations = explainer.explain(images)
    assert torch.equal(explanations.targets, targets)
    assert_near((gradient * features).sum((2, 3)), explanations.contributions, TOLERANCE[dtype])
    saliency = explanations.saliency(features.shape[2:])
    assert_near((gradient * features).sum(1), saliency, TOLERANCE[dtype])


def test_contrasts_are_antisymmetric_and_blind_to_what_all_classes_share():
    explainer, images = cam(torch.float64), uniform(3, 3, 32, 32)

    contrast = explainer.explain(images, 1, foils=2).check_additivity()
    reverse = explainer.explain(images, 2, foils=1)
    before = explainer.predict(images).softmax(1)
    with torch.no_grad():
        explainer.network.head.weight -= explainer.network.head.weight.mean(0)
    centered = explainer.explain(images, 1, foils=2)

    margin = contrast.logits[:, 1] - contrast.logits[:, 2]
    tolerance = TOLERANCE[torch.float64]
    assert_near(contrast.saliency(), -reverse.saliency(), tolerance)
    assert_near(contrast.contributions.sum(1) + contrast.base, margin, tolerance, scale=contrast.logits)
    assert_near(centered.saliency(), contrast.saliency(), tolerance)
    assert_near(explainer.predict(images).softmax(1), before, tolerance)


def test_one_active_cell_gets_all_of_the_evidence():
    features = torch.zeros(1, 6, 4, 4)
    features[0, 3, 1, 2] = 5

    explanations = explanations_of(features)

    expected = torch.zeros(4, 4)
    expected[1, 2] = explanations.weights[0, 3] * 5 / 16
    assert_near(explanations.saliency((4, 4))[0], expected)
    assert explanations.contributions[0].nonzero().flatten().tolist() == [3]


def test_shifted_features_shift_the_map_and_keep_the_logits():
    features = uniform(1, 6, 4, 4)

    explanations, shifted = explanations_of(features), explanations_of(features.roll((1, 2), (2, 3)))

    assert_near(shifted.logits, explanations.logits)
    assert_near(shifted.saliency((4, 4)), explanations.saliency((4, 4)).roll((1, 2), (1, 2)))


def test_a_batch_is_its_images_one_by_one():
    explainer, images = cam(), uniform(5, 3, 32, 32)

    whole = explainer.explain(images)

    for n in range(5):
        one = explainer.explain(images[n : n + 1])
        assert_near(one.contributions[0], whole.contributions[n])
        assert_near(one.maps[0], whole.maps[n])


def test_many_explanations_leave_nothing_behind():
    explainer, images = cam(), uniform(1, 3, 16, 16)
    explainer.explain(images)

    def count_tensors():
        gc.collect()
        return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())

    before = count_tensors()
    for _ in range(30):
        explainer.explain(images).saliency()

    assert count_tensors() <= before + 2
    for module in explainer.network.modules():
        assert not module._forward_hooks and not module._backward_hooks and not module._forward_pre_hooks


def test_maps_come_back_bit_by_bit_from_a_state_dict():
    images, other = uniform(2, 3, 32, 32), small_network(seed=9)

    other.load_state_dict(small_network().state_dict())

    assert torch.equal(other.decompose(images).maps, small_network().decompose(images).maps)
    assert torch.equal(other(images), small_network()(images))


def test_forward_gives_logits_with_gradients_and_so_does_decompose():
    network, images = small_network(), uniform(2, 3, 32, 32)

    assert torch.equal(network(images), network.decompose(images).logits)
    network.decompose(images).scores.sum().backward()
    assert network.backbone.stem[0].weight.grad.abs().sum() > 0


def test_dropout_is_between_pooling_and_head_and_silent_when_explaining():
    network, images = small_network(dropout=0.5), uniform(2, 3, 32, 32)
    explainer = ek.explainer("cam", network=network)
    network.train()

    explanations = explainer.explain(images).check_additivity()

    assert network.training
    assert_near(explanations.logits, small_network().decompose(images).logits)
    features = uniform(1, 32, 4, 4)
    network.dropout.train()
    torch.manual_seed(0)
    dropped = pooled(features, network.head, network.dropout).logits
    torch.manual_seed(0)
    assert_near(dropped, network.head(F.dropout(features.mean((2, 3)), 0.5, True)))


def test_heads_stay_in_full_precision_under_autocast():
    explainer = cam()

    with torch.autocast("cpu", torch.bfloat16):
        explanations = explainer.explain(uniform(4, 3, 32, 32))

    assert explanations.logits.dtype is torch.float32 and explanations.maps.dtype is torch.float32
    explanations.check_additivity()


def test_a_filter_that_is_off_is_no_part_of_the_mean_that_the_head_sums():
    explainer, images = cam(filters=6), uniform(3, 3, 32, 32)
    network = explainer.network
    features = network.further(network.backbone(images))
    kept = [0, 2, 3, 5]
    expected = features.mean((2, 3))[:, kept] @ network.head.weight[:, kept].T + network.head.bias

    explainer.disable_units(["filter 1", "filter 4"])

    assert_near(network(images), expected)
    assert torch.equal(explainer.explain(images).maps, features.detach())
