"""The losses are the paper's and the code's, by slow loops, and keep to their bounds."""

import math
from functools import partial

import pytest
import torch
from interpcnn_networks import peaked_maps, small_network
from plugin_cases import alone, uniform, whole_split

from explainkit.explanations.spatial import best_cells
from explainkit.testing import tiny_dataset
from explainkit_interpcnn.losses import (
    filter_loss,
    mutual_information,
    rank_weights,
    target_surrogate,
    template_information,
)
from explainkit_interpcnn.templates import templates

DOUBLE = torch.float64


def double_maps(images=6, filters=3, side=4, seed=0):
    return uniform(images, filters, side, side, seed=seed, dtype=DOUBLE)


def literal_information(products):
    """The mutual information of one filter, from e[n][t] = ln p(x|T) up to Z_T, by section 3."""
    images, count = len(products), len(products[0])
    given = [[0.0] * count for _ in range(images)]
    for t in range(count):
        z = sum(math.exp(products[n][t]) for n in range(images))
        for n in range(images):
            given[n][t] = math.exp(products[n][t]) / z
    image = [sum(row) / count for row in given]
    return sum(
        given[n][t] / count * math.log(given[n][t] / image[n]) for n in range(images) for t in range(count)
    )


def test_the_information_is_the_papers_by_loops_over_images_templates_and_cells():
    maps, made = double_maps(), templates((4, 4), 4.0, torch.empty(0, dtype=DOUBLE)).tolist()

    information = mutual_information(maps, gain=5.0)

    for unit in range(3):
        strongest = [max(maps[n, unit].flatten().tolist()) for n in range(6)]
        scale = sum(strongest) / 6
        products = [
            [5.0 * sum(x / scale * t for x, t in zip(maps[n, unit].flatten().tolist(), row, strict=True))
             for row in made]
            for n in range(6)
        ]  # fmt: skip
        assert information[unit].item() == pytest.approx(literal_information(products), abs=1e-10)


def test_the_information_has_the_gradient_of_finite_differences():
    maps = double_maps(4, 2, 3).requires_grad_()

    assert torch.autograd.gradcheck(partial(mutual_information, gain=5.0), maps)


@pytest.mark.parametrize("gain", [1.0, 10.0, 1000.0])
def test_the_information_keeps_to_its_bounds(gain):
    for maps in (double_maps(), peaked_maps(20, 3, 3), peaked_maps(4, 3, 6)):
        bound = min(math.log(len(maps)), math.log(maps.shape[2] * maps.shape[3] + 1))
        information = mutual_information(maps, gain)
        assert (information >= -1e-12).all() and (information <= bound + 1e-9).all()


def test_maps_alike_and_maps_without_places_have_no_information():
    alike = double_maps(1).expand(6, -1, -1, -1)
    flat = torch.full((6, 3, 4, 4), 0.7, dtype=DOUBLE)

    assert mutual_information(alike).abs().max() < 1e-12
    assert mutual_information(flat).abs().max() < 1e-12
    assert mutual_information(torch.zeros(6, 3, 4, 4)).abs().max() < 1e-6


def test_the_information_is_the_entropy_of_templates_less_that_within_images_and_splits_in_two():
    evidence = 4 * uniform(2, 8, 17, seed=3, dtype=DOUBLE)
    given = evidence.softmax(1)
    joint = given / 17  # p(x, T)
    image = joint.sum(2, keepdim=True)
    posterior = joint / image  # p(T|x)

    def entropy(p):
        return -(p * p.log()).sum(-1)

    information = template_information(evidence.mT)

    within = (image[..., 0] * entropy(posterior)).sum(1)
    torch.testing.assert_close(information, math.log(17) - within)
    positive = posterior[..., :-1].sum(2)
    between = (image[..., 0] * entropy(torch.stack([positive, 1 - positive], 2))).sum(1)
    spatial = (image[..., 0] * positive * entropy(posterior[..., :-1] / positive[..., None])).sum(1)
    torch.testing.assert_close(within, between + spatial)


def test_a_number_for_each_template_changes_nothing():
    evidence = uniform(3, 10, 6, dtype=DOUBLE)

    shifted = template_information(evidence + 50 * uniform(10, 1, seed=1, dtype=DOUBLE))

    torch.testing.assert_close(shifted, template_information(evidence))


def test_an_image_that_no_template_gives_leaves_information_and_gradient_finite():
    maps = torch.cat([uniform(5, 2, 8, 8), torch.zeros(1, 2, 8, 8)]).requires_grad_()

    information = mutual_information(maps, gain=1000.0)
    information.sum().backward()

    assert information.isfinite().all() and maps.grad.isfinite().all()


def test_the_order_of_images_and_the_strength_of_a_filter_change_nothing():
    maps = double_maps()
    strength = torch.tensor([0.1, 1.0, 70.0], dtype=DOUBLE)[:, None, None]

    torch.testing.assert_close(mutual_information(maps[[3, 1, 5, 0, 2, 4]]), mutual_information(maps))
    torch.testing.assert_close(mutual_information(strength * maps), mutual_information(maps))


def test_information_rises_as_maps_get_a_single_peak():
    spread, peaked = double_maps(16, 1, 6), peaked_maps(16, 1, 6)

    assert mutual_information(peaked).item() > mutual_information(spread**4).item() > 0
    assert mutual_information(spread**4).item() > mutual_information(spread).item()


def literal_weights(scores, chance, members, a=0.5):
    """The q of one filter, by the formula."""
    index = [n for n, is_member in enumerate(members) if is_member]
    if not index:
        return {}
    log_z = a * math.log(sum(math.exp(chance[n] / a) for n in index) / len(index))
    q = {n: max(math.exp(scores[n] / a) * (scores[n] - log_z + a), 0.0) for n in index}
    mean = sum(q.values()) / len(index)
    return {n: q[n] / mean if mean > 0 else 1.0 for n in index}


def surrogate_case(images=7, filters=4, classes=3):
    maps = double_maps(images, filters)
    labels = torch.arange(images) % classes
    membership = torch.nn.functional.one_hot(labels, classes).bool()
    category = torch.arange(filters) % classes
    share = torch.tensor([0.5, 0.2, 0.3], dtype=DOUBLE)
    return maps, membership, category, share


def test_the_surrogate_is_the_codes_by_loops():
    maps, membership, category, share = surrogate_case()
    made = templates((4, 4), 4.0, torch.empty(0, dtype=DOUBLE))[:-1]
    images, filters, total = 7, 4, 0.0

    surrogate = target_surrogate(maps, membership, category, share)

    def pattern(n, f):
        return made[maps[n, f].argmax()].tolist()

    def inner(x, t):
        return sum(a * b for a, b in zip(x.flatten().tolist(), t, strict=True))

    for f in range(filters):
        own = membership[:, category[f]].tolist()
        matched = [inner(maps[n, f], pattern(n, f)) for n in range(images)]
        other = [inner(maps[n, f], pattern(images - 1 - n, filters - 1 - f)) / 16 for n in range(images)]
        drawn = literal_weights([value / 16 for value in matched], other, own)
        silence = [-maps[n, f].mean().item() for n in range(images)]
        pushed = literal_weights(silence, silence, [not each for each in own])
        part = share[category[f]].item()
        total -= sum(0.5 / part * q * matched[n] for n, q in drawn.items())
        total += sum(0.5 / (1 - part) * q * maps[n, f].sum().item() for n, q in pushed.items())
    assert surrogate.item() == pytest.approx(total / images, abs=1e-10)


def test_the_surrogate_draws_to_the_template_and_off_other_images_evenly():
    maps, membership, category, share = surrogate_case()
    maps.requires_grad_()

    (gradient,) = torch.autograd.grad(target_surrogate(maps, membership, category, share), maps)

    made = templates((4, 4), 4.0, maps.detach())[:-1][best_cells(maps)].unflatten(2, (4, 4))
    own = membership[:, category]
    for n in range(7):
        for f in range(4):
            if own[n, f]:
                factor = gradient[n, f].flatten() / -made[n, f].flatten().where(
                    made[n, f].flatten() != 0, torch.nan
                )
                factor = factor[~factor.isnan()]
                assert factor.min() >= 0
                torch.testing.assert_close(factor, factor[:1].expand_as(factor))
            else:
                assert gradient[n, f].min() >= 0
                torch.testing.assert_close(gradient[n, f], gradient[n, f, 0, 0].expand(4, 4))


def test_weights_of_images_have_the_mean_1_over_those_that_they_are_of():
    scores, is_member = uniform(9, 5, dtype=DOUBLE), uniform(9, 5, seed=1) < 0.6

    weights = rank_weights(scores, scores.flip(0), is_member)

    torch.testing.assert_close(weights.sum(0), is_member.sum(0).double())
    assert not weights[~is_member].any() and (weights >= 0).all()


@pytest.mark.parametrize("strength", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("classes_present", [[0], [1, 2], [0, 1, 2]])
def test_the_surrogate_is_finite_for_silence_for_floods_and_without_images_of_a_kind(
    strength, classes_present
):
    maps = (strength * uniform(6, 4, 4, 4)).requires_grad_()
    membership = torch.zeros(6, 3, dtype=torch.bool)
    membership[torch.arange(6), torch.tensor(classes_present)[torch.arange(6) % len(classes_present)]] = True

    loss = target_surrogate(
        maps, membership, torch.arange(4) % 3, torch.tensor([1.0, 0.0, 0.0]).clamp(0.01, 0.98)
    )

    (gradient,) = torch.autograd.grad(loss, maps)
    assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("variant", ["mi", "target"])
def test_the_filter_loss_begins_after_the_warm_epochs_and_is_about_raw_maps(variant):
    network, batch = small_network(), whole_split(tiny_dataset())
    settings = {"variant": variant, "filter_weight": 0.3}
    name = {"mi": "information", "target": "template"}[variant]

    first = filter_loss(network, batch, alone(batch), warm_epochs=1, **settings)
    later = filter_loss(network, batch, alone(batch), warm_epochs=0, **settings)

    assert set(first) == {"cross_entropy"} and set(later) == {"cross_entropy", name}
    if variant == "mi":
        raw = mutual_information(network.outputs(batch.images).raw_maps).mean()
        torch.testing.assert_close(later[name], -0.3 * raw)


def test_a_weight_of_0_leaves_classification_alone():
    network, batch = small_network(), whole_split(tiny_dataset())

    assert set(filter_loss(network, batch, alone(batch), filter_weight=0, warm_epochs=0)) == {"cross_entropy"}


def test_an_annealed_weight_is_divided_by_the_epoch():
    from attrs import evolve

    network, batch = small_network(), whole_split(tiny_dataset())
    settings = {"warm_epochs": 0, "anneal": True}

    first = filter_loss(network, batch, alone(batch), **settings)["information"]
    fourth = filter_loss(network, batch, evolve(alone(batch), epoch=4), **settings)["information"]

    torch.testing.assert_close(4 * fourth, first)


def test_the_loss_in_bfloat16_is_worked_out_in_float32():
    network, batch = small_network(), whole_split(tiny_dataset())

    with torch.autocast("cpu", torch.bfloat16):
        terms = filter_loss(network, batch, alone(batch), warm_epochs=0)

    assert terms["information"].dtype is torch.float32
