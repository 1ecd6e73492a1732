"""What would change a decision: edits hold in the network's own head, sentences say what the values say."""

import json
import re
from functools import cache
from itertools import combinations

import pytest
import torch
from attrs import evolve
from scipy.optimize import linprog
from toys import Cells, Varying, balanced, batch_of, data_of, labelled, noise, toy, wine

import explainkit as ek
from explainkit.errors import InputError, NotFittedError, UnknownNameError
from explainkit.questions.counterfactual import TOLD, Counterfactuals
from explainkit.testing import specimen, tiny_data
from explainkit.wording import apart

NAMES = ("cells", "varying", "cam", "protopnet", "senn", "ccnn", "ra-cnn")
MARGIN = 0.02
every = pytest.mark.parametrize("name", NAMES)


@cache
def asked(name, cost="count", margin=0.01):
    explainer = balanced(name)
    bank, images = labelled(explainer, noise(60)), noise(10, seed=1)
    return explainer, bank, images, explainer.counterfactual(images, bank=bank, cost=cost, margin=margin)


def all_weights(told):
    """(N, C, K), row by row."""
    parts, classes = told.explanations.decomposition, len(told.classes)
    return torch.stack([
        torch.stack([parts.weights_for_rows(torch.tensor([n]), torch.tensor([c]))[0] for c in range(classes)])
        for n in range(len(told))
    ]).double()  # fmt: skip


# in the evidence


@pytest.mark.parametrize("cost", ["count", "l1", "l2"])
@every
def test_a_feasible_edit_makes_the_target_win_by_the_margin(name, cost):
    *_, told = asked(name, cost, MARGIN)
    edit, weights = told.edit, all_weights(told)
    after = told.explanations.logits.double() + torch.einsum(
        "nck,nk->nc", weights, edit.after.double() - edit.before.double()
    )

    assert edit.feasible.any()
    for n in edit.feasible.nonzero()[:, 0].tolist():
        others = after[n].clone()
        others[told.targets[n]] = -torch.inf
        assert after[n, told.targets[n]] - others.max() >= MARGIN - 1e-5
        assert edit.size[n] > 0
    assert torch.equal(edit.after[~edit.feasible], edit.before[~edit.feasible])
    assert torch.allclose(edit.logits.double()[edit.feasible], after[edit.feasible], atol=1e-5)


@every
def test_edits_stay_within_the_ranges_of_the_target(name):
    explainer, bank, _, told = asked(name)
    ranges = told.explanations.units.range
    low, high = (explainer.ranges(bank) if ranges is None else ranges)[:, told.targets]
    before, after = told.edit.before, told.edit.after
    moved = before != after

    assert (after >= torch.minimum(low, before))[moved].all()
    assert (after <= torch.maximum(high, before))[moved].all()


def fewest(told, n, low, high, margin):
    """The size of the smallest set of units that can move so that the target wins, by linear programs."""
    weights, logits, t = all_weights(told)[n], told.explanations.logits[n].double(), int(told.targets[n])
    rivals = [c for c in range(len(logits)) if c != t]
    before = told.edit.before[n].double()
    for size in range(len(before) + 1):
        for some in combinations(range(len(before)), size):
            rows = [[(weights[c, k] - weights[t, k]).item() for k in some] for c in rivals]
            gaps = [(logits[t] - logits[c]).item() - margin for c in rivals]
            ends = [
                (min(0.0, (low[n, k] - before[k]).item()), max(0.0, (high[n, k] - before[k]).item()))
                for k in some
            ]
            if not some and min(gaps) >= 0:
                return 0
            if some and linprog([0.0] * size, A_ub=rows, b_ub=gaps, bounds=ends).status == 0:
                return size
    return None


@pytest.mark.parametrize("name", ["cells", "varying", "senn", "ccnn", "protopnet"])
def test_sizes_are_those_of_brute_force(name):
    explainer, bank, _, told = asked(name, margin=0.05)
    ranges = told.explanations.units.range
    low, high = (explainer.ranges(bank) if ranges is None else ranges)[:, told.targets].double()

    for n in range(len(told)):
        best = fewest(told, n, low, high, 0.05)
        assert bool(told.edit.feasible[n]) == (best is not None)
        if best is not None:
            assert told.edit.exact[n] and told.edit.size[n] == best


@every
def test_gains_are_what_each_change_closes_of_the_gap(name):
    *_, told = asked(name)
    weights = all_weights(told)

    for n in range(len(told)):
        towards = weights[n, told.targets[n]] - weights[n, told.predictions[n]]
        for change in told[n].changes:
            closed = towards[change.unit] * (change.after - change.before)
            assert change.gain == pytest.approx(closed.item(), rel=1e-3, abs=1e-6)
            assert change.name == told.explanations.units.names[change.unit]
        gains = [change.gain for change in told[n].changes]
        assert gains == sorted(gains, reverse=True)


def test_a_change_that_rounding_would_swallow_is_the_next_number_that_there_is():
    network = Varying(classes=2, units=1, own_weights=False)
    with torch.no_grad():
        network.scores.weight[:], network.scores.bias[:] = 0.0, 3000.0
        network.weights.weight[:], network.weights.bias[:] = 0.0, torch.tensor([10.0, 9.0])
        network.bias.weight[:], network.bias.bias[:] = 0.0, torch.tensor([-30000.0, -27000.0])
    explainer = toy(network, classes=("ant", "bee"))
    ends = torch.tensor([0.0, 9000.0])[:, None, None].expand(2, 2, 1).contiguous()
    explainer.units = evolve(explainer.describe(network), range=ends)
    told = explainer.counterfactual(
        noise(1), "bee", bank=batch_of(noise(2), torch.arange(2)), margin=0, cost="l1"
    )

    assert told.edit.feasible.all() and told[0].changes[0].after < 3000
    assert "from 3000 to 2999.9" in told[0].sentence()


def test_the_runner_up_is_asked_for_by_default():
    explainer, bank, images, told = asked("cells")
    second = explainer.predict(images).topk(2, 1).indices[:, 1]

    assert torch.equal(told.targets, second)
    named = explainer.counterfactual(images, [explainer.classes[c] for c in second.tolist()], bank=bank)
    assert torch.equal(named.realised.images, told.realised.images)


# words


def with_narrow_ranges(width=0.4):
    """Edits of many scores, of which some are not proved smallest, and some not feasible."""
    network = Cells(classes=8, units=40)
    explainer = toy(network, classes=[f"class {c}" for c in range(8)])
    images = noise(40, seed=8)
    with torch.no_grad():
        network.head.bias -= explainer.predict(images).mean(0)
    scores = explainer.explain(images).scores
    low, high = scores.amin(0), scores.amax(0)
    middle = (low + high) / 2
    ends = torch.stack([middle + (low - middle) * width, middle + (high - middle) * width])
    explainer.units = evolve(explainer.describe(network), range=ends[:, None].expand(2, 8, 40).contiguous())
    targets = explainer.predict(images).argsort(1)[:, 4]
    return explainer.counterfactual(images, targets, bank=labelled(explainer, images))


def check_words(item):
    """Every number of a sentence is that of the values."""
    edit, n, said = item.batch.edit, item.index, item.sentence()
    changes, name = item.changes, item.target_name
    if item.already:
        assert said == f"It is {name} already."
        return "already"
    told = [
        f"{'rose' if c.after > c.before else 'fell'} from {' to '.join(apart(c.before, c.after))}"
        for c in changes
    ]
    if not item.feasible:
        kind = "infeasible"
        assert f"No scores within what is plausible for {name}" in said and not changes
    else:
        assert all(words in said for words in told[:TOLD]) and said.count(" from ") >= min(TOLD, len(told))
        assert (f"{len(told) - TOLD} other score" in said) == (len(told) > TOLD)
        if edit.cost != "count":
            kind = "exact" if edit.exact[n] else "not exact"
            assert ("the least change, of" in said) == bool(edit.exact[n])
        elif edit.exact[n]:
            kind = "exact"
            found = re.search(r"\((\d+) scores?, and no fewer would do\)", said)
            assert int(found[1]) == edit.size[n]
        else:
            kind = "not exact"
            found = re.search(r"\((\d+) scores?; at least (\d+) would be needed\)", said)
            assert (int(found[1]), int(found[2])) == (edit.size[n], edit.lower_bound[n])
            assert edit.lower_bound[n] < edit.size[n]
    realised = item.batch.realised
    if item.success:
        found = re.search(
            r"With (\d+) of its (\d+) (?:region|column)s taken from .*(?:image|row) (\d+)", said
        )
        assert [int(number) for number in found.groups()] == [
            realised.size[n], realised.regions[n].numel(), realised.exemplars[n],
        ]  # fmt: skip
        assert ("the mirrored" in said) == bool(realised.mirrored[n])
    else:
        assert "No swap that was tried" in said
    return kind


@pytest.mark.parametrize("cost", ["count", "l1", "l2"])
@every
def test_sentences_say_what_the_values_say(name, cost):
    *_, told = asked(name, cost, MARGIN)

    assert {check_words(item) for item in told} <= {"exact", "not exact", "infeasible"}


def test_sentences_of_what_is_not_proved_or_not_possible():
    *_, some = asked("varying")
    kinds = {check_words(item) for told in (some, with_narrow_ranges()) for item in told}

    assert kinds == {"exact", "not exact", "infeasible"}


@every
def test_facts_are_json_and_the_values(name):
    explainer, bank, images, told = asked(name)
    same = explainer.counterfactual(images[:2], told.predictions[:2], bank=bank)

    for item in [*told, *same]:
        facts = json.loads(json.dumps(item.facts(), allow_nan=False))
        assert facts["size"] == len(item.changes) == len(facts["changes"])
        assert facts["success"] == item.success and len(facts["regions"]) == item.regions
        assert facts["sentence"] == item.sentence() and facts["target"] == item.target_name
        assert item.predicted_name == explainer.classes[int(told.predictions[item.index])]


@every
def test_every_answer_is_drawn(name):
    *_, told = asked(name)

    for item in (told[0], told[-1]):
        item.figure().canvas.draw()
        assert "<article" in item._repr_html_()
    assert repr(told).startswith("<10 counterfactuals by") and isinstance(told, Counterfactuals)
    with pytest.raises(IndexError):
        told[10]


def test_names_from_data_are_escaped_in_markup():
    explainer, bank, images, _ = asked("cells")
    hostile = toy(explainer.network, classes=("<script>alert(1)</script>", "$x_{y}$ & more", "\\frac"))

    for item in hostile.counterfactual(images, bank=bank):
        assert "<script" not in item._repr_html_()
        item.figure().canvas.draw()


def test_a_table_is_answered_by_its_columns():
    explainer, data = wine()
    told = explainer.counterfactual(data.test.batch(torch.arange(12)), bank=data)

    assert {check_words(item) for item in told} <= {"exact", "infeasible", "not exact"}
    names = {change.name for item in told for change in item.changes}
    assert names and names <= {*data.features, "constant"}


# refusals


@pytest.mark.parametrize("cost", ["most", "", None, 1])
def test_costs_that_there_are_not_are_refused_in_words(cost):
    explainer, bank, images, _ = asked("cells")

    with pytest.raises(InputError, match="cost"):
        explainer.counterfactual(images, bank=bank, cost=cost)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_margins_that_are_none_are_refused_in_words(margin):
    explainer, bank, images, _ = asked("cells")

    with pytest.raises(InputError, match="margin"):
        explainer.counterfactual(images, bank=bank, margin=margin)


def test_no_images_at_once_are_refused_in_words():
    explainer, bank, images, _ = asked("cells")

    with pytest.raises(InputError, match="max_batch"):
        explainer.counterfactual(images, bank=bank, max_batch=0)


def test_a_method_that_attributes_afterwards_changes_nothing_and_says_so():
    for name in ("captum/saliency", "captum/integrated-gradients"):
        with pytest.raises(InputError, match="no scores"):
            specimen(name).counterfactual(tiny_data().test.batch(torch.arange(2)), bank=tiny_data())


def test_what_cannot_be_answered_is_refused_in_words():
    explainer, bank, images, _ = asked("cells")

    with pytest.raises(UnknownNameError, match="Did you mean 'bee'"):
        explainer.counterfactual(images, "beee", bank=bank)
    with pytest.raises(InputError):
        explainer.counterfactual(images, 3, bank=bank)
    with pytest.raises(NotFittedError, match="no network yet"):
        ek.explainer("cam").counterfactual(images, bank=bank)
    alone = toy(Cells(classes=1), classes=("ant",))
    with pytest.raises(InputError, match="two classes"):
        alone.counterfactual(images, bank=batch_of(images, torch.zeros(10).long()))


# plausible ranges, and what is kept of them


@pytest.mark.parametrize("name", ["cells", "varying", "cam", "senn", "protopnet"])
def test_ranges_are_near_the_true_quantiles(name):
    explainer = balanced(name)
    images, labels = noise(200, seed=2), torch.arange(200) % 3
    low, high = explainer.ranges(batch_of(images, labels))
    scores = explainer.explain(images, labels).scores

    for label in range(3):
        mine = scores[labels == label]
        bin = 4 / 256 * (mine.amax(0) - mine.amin(0)) + 1e-6
        for found, share in ((low[label], 0.05), (high[label], 0.95)):
            assert (found >= mine.quantile(share, dim=0, interpolation="lower") - bin).all()
            assert (found <= mine.quantile(share, dim=0, interpolation="higher") + bin).all()
    assert (low <= high).all()


def test_of_a_class_without_images_all_is_plausible_that_is_of_others():
    explainer = balanced("cells")
    low, high = explainer.ranges(batch_of(noise(40), torch.arange(40) % 2))

    assert torch.equal(low[2], low[:2].amin(0)) and torch.equal(high[2], high[:2].amax(0))


def test_ranges_of_data_are_those_of_their_training_images():
    explainer = balanced("cells")
    images, labels = noise(300), torch.arange(300) % 3
    data = data_of(images, labels)

    whole = explainer.ranges(data.train.batch(torch.arange(300)))
    assert torch.allclose(explainer.ranges(data), whole, atol=2e-2 * float(whole.max()))
    with torch.inference_mode():
        assert torch.equal(explainer.ranges(data), explainer.ranges(data))


@pytest.mark.parametrize("name", ["cam", "protopnet", "senn", "ccnn", "ra-cnn"])
def test_a_loaded_explainer_answers_the_same_with_a_bank(name, tmp_path):
    explainer, images = specimen(name), tiny_data().test.batch(torch.arange(4))
    loaded = ek.load(ek.save(explainer, tmp_path / "saved"))

    with pytest.raises(InputError, match="bank=data"):
        loaded.counterfactual(images)
    assert torch.equal(loaded.units.range, explainer.units.range)
    told, again = explainer.counterfactual(images), loaded.counterfactual(images, bank=tiny_data())
    assert torch.equal(told.realised.images, again.realised.images)
    assert [item.sentence() for item in told] == [item.sentence() for item in again]
