"""Parts of other images, and attention elsewhere: the head says what the search promised."""

import itertools

import pytest
import torch
from macnn_networks import explainer, fitted_explainer, small_network
from plugin_cases import assert_near, uniform

import explainkit as ek
from explainkit.explanations.decisions import Decision
from explainkit.questions.goals import Goals
from explainkit.testing import fitted_example, tiny_dataset, tiny_images
from explainkit_macnn.counterfactuals import (
    added_logits,
    attention_moves,
    largest_gains,
    part_gains,
    part_swaps,
)

SWAP, MOVE = "ma-cnn/part-swap", "ma-cnn/attention-move"
IMAGES = uniform(5, 3, 32, 32, dtype=torch.float64)
OTHERS = uniform(4, 3, 32, 32, seed=1, dtype=torch.float64)


def goals_of(*targets):
    return Goals(
        decision=Decision(rule="softmax"), targets=torch.tensor(targets),
        wanted=torch.ones(len(targets), dtype=torch.bool),
    )  # fmt: skip


def network_with_spread_heads(parts=3):
    """Whose predictions differ between images."""
    network = small_network(parts=parts, dtype=torch.float64)
    with torch.no_grad():
        network.heads.weight.mul_(8)
        scores = torch.cat([network.outputs(IMAGES).scores, network.outputs(OTHERS).scores])
        network.heads.bias.sub_(torch.einsum("npd,pcd->npc", scores, network.heads.weight).mean(0))
    return network


def head(network, parts):
    """Logits (C,) of part features (P, D), a part at a time."""
    return sum(network.heads.weight[i] @ parts[i] + network.heads.bias[i] for i in range(network.parts))


@pytest.mark.parametrize("parts", [2, 3])
def test_a_swap_is_the_smallest_set_of_all_and_moves_features_least(parts):
    network = network_with_spread_heads(parts)
    own, other = (network.decompose(images).scores.detach() for images in (IMAGES, OTHERS))
    targets = [(int(logits.argmax()) + 1) % 4 for logits in network(IMAGES)]

    exemplars, swapped, is_reached = part_swaps(network, own, other, goals_of(*targets))

    for n, target in enumerate(targets):
        best = None
        for m, subset in itertools.product(range(4), itertools.product([False, True], repeat=parts)):
            mixed = own[n].view(parts, -1).clone()
            for i in range(parts):
                if subset[i]:
                    mixed[i] = other[m].view(parts, -1)[i]
            if head(network, mixed).argmax() == target:
                moved = (mixed.flatten() - own[n]).square().sum().item()
                best = min(best or (99, 0, 0, ()), (sum(subset), moved, m, subset))
        assert bool(is_reached[n]) == (best is not None)
        if best is not None:
            assert int(swapped[n].sum()) == best[0]
            assert exemplars[n] == best[2] and swapped[n].tolist() == list(best[3])


def test_all_parts_swapped_are_the_exemplars_logits():
    network = network_with_spread_heads()
    own, other = (network.decompose(images).scores.detach() for images in (IMAGES, OTHERS))
    target = int(network(OTHERS)[0].argmax())
    goals = goals_of(*[target] * 5)

    _, _, is_reached = part_swaps(network, own, other[:1], goals)

    assert is_reached.all()  # at the latest with all of them
    assert_near(head(network, other[0].view(3, -1)), network(OTHERS)[0], 1e-9)


def test_the_largest_gains_close_the_gap_most_of_all_sets_of_their_size():
    added = uniform(4, 2, 5, 3, dtype=torch.float64) - 0.5
    targets, foils = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2])

    gains = part_gains(added, foils, goals_of(*targets.tolist()))
    subsets = largest_gains(gains)

    for n, m in itertools.product(range(4), range(2)):
        margin = added[n, m, :, targets[n]] - added[n, m, :, foils[n]]
        assert_near(gains[n, m], margin, 1e-12)
        for size in range(6):
            best = max(
                sum(margin[i].item() for i in chosen) for chosen in itertools.combinations(range(5), size)
            )
            chosen = subsets[n, m, size].bool()
            assert int(chosen.sum()) == size and margin[chosen].sum().item() == pytest.approx(best)


def test_many_parts_are_swapped_one_after_the_other():
    network = network_with_spread_heads(parts=8)
    own, other = (network.decompose(images).scores.detach() for images in (IMAGES, OTHERS))
    targets = [(int(logits.argmax()) + 1) % 4 for logits in network(IMAGES)]

    exemplars, swapped, is_reached = part_swaps(network, own, other, goals_of(*targets))

    assert is_reached.any()
    for n in is_reached.nonzero()[:, 0].tolist():
        source = other[exemplars[n]].view(8, -1)
        mixed = torch.where(swapped[n][:, None], source, own[n].view(8, -1))
        assert head(network, mixed).argmax() == targets[n]
        assert (swapped.sum(1)[~is_reached] == 0).all()


def test_what_a_move_adds_is_what_the_head_says_of_the_delta_map():
    network = network_with_spread_heads()
    outputs = network.outputs(IMAGES)

    added = added_logits(network, outputs.features, outputs.scores.flatten(1))

    for n, i, cell in ((0, 0, 0), (1, 2, 37), (4, 1, 63)):
        delta = torch.zeros(8, 8, dtype=torch.float64)
        delta[cell // 8, cell % 8] = 1
        parts = outputs.scores[n].clone()
        parts[i] = torch.stack([(outputs.features[n, j] * delta).sum() for j in range(32)])
        expected = head(network, parts) - outputs.logits[n]
        assert_near(added[n, i, cell], expected, 1e-9, scale=outputs.logits)


def test_a_move_is_to_the_nearest_cell_that_flips():
    network = network_with_spread_heads()
    outputs = network.outputs(IMAGES)
    scores, peaks = outputs.scores.flatten(1).detach(), outputs.attention.flatten(2).argmax(2)
    targets = [int(logits.argsort()[-2]) for logits in outputs.logits]

    cells = attention_moves(network, outputs.features.detach(), peaks, scores, goals_of(*targets))

    some = 0
    for n, target in enumerate(targets):
        nearest = None
        for i, cell in itertools.product(range(3), range(64)):
            parts = outputs.scores[n].clone()
            parts[i] = outputs.features[n].flatten(1)[:, cell]
            if head(network, parts).argmax() == target:
                down, along = cell // 8 - peaks[n, i] // 8, cell % 8 - peaks[n, i] % 8
                distance = int(down**2 + along**2)
                nearest = distance if nearest is None else min(nearest, distance)
        if nearest is not None:
            some += 1
            (part,) = (cells[n] >= 0).nonzero()[:, 0].tolist()
            cell = int(cells[n, part])
            down, along = cell // 8 - peaks[n, part] // 8, cell % 8 - peaks[n, part] % 8
            assert int(down**2 + along**2) == nearest
    assert some >= 2


def test_where_one_part_is_not_enough_several_look_where_they_argue_most():
    network = network_with_spread_heads()
    outputs = network.outputs(IMAGES)
    scores, peaks = outputs.scores.flatten(1).detach(), outputs.attention.flatten(2).argmax(2)
    features = outputs.features.detach()
    added = added_logits(network, features, scores)
    foil = int(outputs.logits[0].argmax())
    target = (foil + 1) % 4
    gains = added[0, :, :, target] - added[0, :, :, foil]
    with torch.no_grad():  # the gap is now more than any part closes alone, and less than two do
        largest = gains.amax(1).sort(descending=True).values
        assert (largest[:2] > 0).all()
        gap = largest[0] + largest[1] / 2
        now = outputs.logits[0, target] - outputs.logits[0, foil]
        network.heads.bias[0, target] -= now + gap
        network.heads.bias[0, [c for c in range(4) if c not in (target, foil)]] -= 1e4

    cells = attention_moves(network, features[:1], peaks[:1], scores[:1], goals_of(target))[0]

    order = gains.amax(1).argsort(descending=True)
    assert (cells >= 0).tolist() == [bool(i in order[:2]) for i in range(3)]
    for i in order[:2].tolist():
        assert cells[i] == gains[i].argmax()


def test_units_that_are_off_stay_off_in_both():
    model = explainer()
    model.disable_units([0, 33, 70])
    dataset = uniform(6, 3, 32, 32, seed=2)
    bank = ek.Batch(images=dataset, labels=torch.arange(6) % 4, ids=torch.arange(6))

    found = model.counterfactual(uniform(3, 3, 32, 32), method=[SWAP, MOVE], distractors=bank)

    for edits in found.edits.values():
        assert not edits.after[:, [0, 33, 70]].any()


def test_they_succeed_as_the_head_says_and_are_put_in_words():
    model, images = fitted_explainer(), tiny_images()
    targets = (model.predict(images).argmax(1) + 1) % 3

    found = model.counterfactual(images, targets, method=[SWAP, MOVE])

    swap, move = found.edits[SWAP], found.edits[MOVE]
    assert swap.feasible.all()  # with all parts of an image of the target at the latest
    for edits in (swap, move):
        logits = edits.after @ found.explanations.decomposition.weights.T
        logits = logits + found.explanations.decomposition.bias
        assert (logits.argmax(1) == targets)[edits.feasible].all()
        assert edits.verified_by == "algebra"
    for item in found:
        text = item.edits[SWAP].sentence
        assert text.startswith("With the features of part ") and "of the bank (" in text
        assert f"it would be {item.target_name} by its evidence" in text
        assert item.edits[MOVE].sentence.startswith(("With part", "No edit"))


def test_they_run_by_default_for_this_architecture_and_no_other():
    model = fitted_example("ma-cnn")

    assert tuple(model.counterfactual(tiny_images()).edits) == ("score-edit", "region-swap", MOVE, SWAP)
    assert not {SWAP, MOVE} & set(fitted_example("cam").counterfactual_methods())


def test_a_target_without_exemplars_has_no_swap():
    model = fitted_explainer()
    batch = tiny_dataset().test.batch(torch.tensor([0, 3]))  # both of class 0

    found = model.counterfactual(tiny_images()[:3], [1, 2, 1], method=SWAP, distractors=batch)

    already = model.predict(tiny_images()[:3]).argmax(1) == torch.tensor([1, 2, 1])
    assert torch.equal(found.edits[SWAP].feasible, already)
    assert torch.equal(found.edits[SWAP].after, found.edits[SWAP].before)


def test_an_image_that_is_the_target_already_stays_as_it_is():
    model, images = fitted_explainer(), tiny_images()

    found = model.counterfactual(images, model.predict(images).argmax(1), method=[SWAP, MOVE])

    for edits in found.edits.values():
        assert edits.feasible.all() and not edits.size.any() and not any(edits.descriptions)
    assert "already" in found[0].sentence()


def test_exemplars_are_a_number():
    with pytest.raises(ek.InputError, match="exemplars"):
        fitted_explainer().counterfactual(tiny_images(), method=SWAP, exemplars=0)
