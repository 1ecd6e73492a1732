"""What a class is: means of sums, worked out again image by image; one pass; each image once."""

import json
import pickle
from functools import cache
from itertools import combinations

import pytest
import torch
from attrs import evolve
from toys import FAR, Cells, Varying, batch_of, data_of, noise, toy, wine

from explainkit.data.images import Batch
from explainkit.errors import AlgebraError, InputError, UnknownNameError
from explainkit.quantiles import Quantiles
from explainkit.questions.class_level import _Tally, decisive_units, explain_class
from explainkit.testing import specimen, tiny_data
from explainkit.wording import DESPITE, MOSTLY, TELLING, USUALLY, percent, signed

SUMMED = (
    "cam", "protopnet", "senn", "ccnn", "ra-cnn", "captum/integrated-gradients",
    "captum/layer-integrated-gradients",
)  # fmt: skip
ARCHITECTURES = SUMMED[:5]


def toys():
    return {
        "cells": toy(),
        "cells with a reference": toy(reference=0.3),
        "weights of each image": toy(Varying()),
        "weights of each image, with a reference": toy(Varying(seed=1), reference=0.2),
        "biases of each image": toy(Varying(seed=2, own_weights=False)),
    }


def explained(name):
    return toys()[name] if name in toys() else specimen(name)


def images_for(explainer, count=40):
    return noise(count) if explainer.classes == ("ant", "bee", "cat") else tiny_data().train.batch(
        torch.arange(count)).images  # fmt: skip


def labels_for(count):
    return torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(5))


@cache
def told_of(name):
    """An explainer, its images, their labels, image by image what is said of them, and of their classes."""
    explainer = explained(name)
    images = images_for(explainer)
    labels = labels_for(len(images))
    told = explainer.explain(images, labels)
    classes = explainer.explain_class([batch_of(images, labels)])
    return explainer, images, labels, told, classes


def close(one, other, scale=None):
    scale = float(other.abs().max()) if scale is None else scale
    return torch.allclose(one.double().cpu(), other.double().cpu(), rtol=FAR, atol=FAR * scale + 1e-7)


every_sum = pytest.mark.parametrize("name", [*SUMMED, *toys()])
every_architecture = pytest.mark.parametrize("name", [*ARCHITECTURES, *toys()])


# the sums


@every_sum
def test_base_and_mean_contributions_make_the_mean_logit(name):
    _, _, labels, told, classes = told_of(name)
    single = told.residual

    for row, label in enumerate(classes.index.tolist()):
        mine = labels == label
        assert close(classes.logits[row], told.logits[mine].mean(0))
        assert close(classes.base[row], told.base[mine].mean())
        assert close(classes.contributions[row], told.contributions[mine].mean(0))
        assert close(classes.scores[row], told.scores[mine].mean(0))
        total = classes.logits[row, label]
        scale = told.contributions[mine].abs().sum(1).mean().item()
        sums = classes.base[row] + classes.contributions[row].sum() + single[mine].mean()
        assert close(sums, total, scale)
        assert classes[label].total == pytest.approx(total.item())
        assert classes[label].residual == pytest.approx(classes.residual[row].item(), abs=1e-5 * scale)
    if told.claim == "exact":
        assert classes.check() is classes


@every_sum
def test_spread_agreement_and_counts_are_those_of_a_loop(name):
    _, _, labels, told, classes = told_of(name)

    for row, label in enumerate(classes.index.tolist()):
        mine = told.contributions[labels == label].double()
        mean = mine.mean(0)
        assert classes.counts[row] == len(mine)
        assert close(classes.spread[row], mine.std(0, correction=0))
        same = (mine.sign() == mean.sign()).double().mean(0)
        assert torch.allclose(classes.agreement[row].double(), same)
        predicted = told.logits[labels == label].argmax(1).tolist()
        assert classes.confusion[row].tolist() == [predicted.count(c) for c in range(3)]
        assert classes[label].accuracy == pytest.approx(predicted.count(label) / len(mine))


@every_sum
def test_quantiles_are_near_the_true_ones(name):
    _, _, labels, told, classes = told_of(name)

    for row, label in enumerate(classes.index.tolist()):
        mine = told.contributions[labels == label].double()
        bin = 4 / 256 * (mine.amax(0) - mine.amin(0)) + 1e-6 * mine.abs().amax(0) + 1e-12
        for place, share in enumerate((0.05, 0.5, 0.95)):
            below = mine.quantile(share, dim=0, interpolation="lower") - bin
            above = mine.quantile(share, dim=0, interpolation="higher") + bin
            assert ((classes.quantiles[place, row] >= below) & (classes.quantiles[place, row] <= above)).all()


def test_a_unit_that_is_mostly_silent_agrees_as_often_whichever_sign_it_has():
    network = Cells(classes=2, units=2)
    with torch.no_grad():
        network.cells.weight[:] = 0.1
        network.cells.bias[:] = -2.0
        network.head.weight[:] = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    bright = torch.ones(10, 3, 32, 32)
    bright[3:] = 0  # silent in seven of ten

    told = toy(network, classes=("ant", "bee")).explain_class([batch_of(bright, torch.zeros(10).long())])

    assert told.agreement[0].tolist() == pytest.approx([0.3, 0.3])


# decisive units


def fewest_by_brute_force(added, margin):
    """The sizes of all sets of units without which the margin is gone."""
    sizes = [
        size for size in range(len(added) + 1) for some in combinations(range(len(added)), size)
        if margin - sum(added[k] for k in some) <= 0
    ]  # fmt: skip
    return min(sizes, default=None)


@pytest.mark.parametrize("name", ["cells", "cells with a reference", "weights of each image", "senn", "ccnn"])
def test_decisive_units_are_as_few_as_brute_force_finds(name):
    _, _, labels, told, _ = told_of(name)
    if name.startswith("cells"):  # the labels of half of them as the network has it
        labels = labels.where(torch.arange(len(labels)) % 2 == 0, told.logits.argmax(1))
        told = explained(name).explain(told.images, labels)
    units = decisive_units(told)
    reference = 0 if told.units.reference is None else told.units.reference
    found = 0

    for n in range(len(told)):
        others = told.logits[n].clone()
        others[labels[n]] = -torch.inf
        rival = others.argmax()
        margin = (told.logits[n, labels[n]] - told.logits[n, rival]).item()
        row = torch.tensor([n])
        weights = told.decomposition.weights_for_rows(row, labels[n][None])
        weights = weights - told.decomposition.weights_for_rows(row, rival[None])
        added = (weights[0] * (told.scores[n] - reference)).tolist()
        fewest = None if margin <= 0 else fewest_by_brute_force(added, margin)
        assert int(units[n].sum()) == (fewest or 0)
        if fewest:
            assert margin - sum(added[k] for k in units[n].nonzero()[:, 0].tolist()) <= 1e-6
            found += 1
    assert found


@every_architecture
def test_decisive_is_the_share_of_rightly_classified_images(name):
    _, _, labels, told, classes = told_of(name)
    right = told.logits.argmax(1) == labels
    units = decisive_units(told).double()

    assert not units[~right].any()
    for row, label in enumerate(classes.index.tolist()):
        mine = right & (labels == label)
        expected = units[mine].mean(0) if mine.any() else torch.zeros(units.shape[1])
        assert close(classes.decisive[row], expected)


# linearity


@every_architecture
def test_linearity_is_how_much_mean_weights_explain(name):
    _, _, labels, told, classes = told_of(name)
    reference = 0 if told.units.reference is None else told.units.reference

    for row, label in enumerate(classes.index.tolist()):
        mine = labels == label
        scores = (told.scores[mine] - reference).double()
        logits = (told.totals - told.base)[mine].double()
        error = (logits - scores @ told.weights[mine].double().mean(0)).square().mean()
        assert classes.linearity[row].item() == pytest.approx(
            1 - (error / logits.var(correction=0)).item(), abs=1e-3
        )


def test_a_class_of_one_image_is_linear():
    images = noise(3)

    told = toy(Varying()).explain_class([batch_of(images, torch.arange(3))])

    assert told.linearity.tolist() == pytest.approx([1.0] * 3, abs=1e-3)


# contrasts


@every_architecture
def test_a_contrast_is_the_mean_of_contrasts_and_sums_to_the_mean_margin(name):
    explainer, images, labels, told, classes = told_of(name)

    for label in classes.index.tolist():
        mine = labels == label
        for rival in {0, 1, 2} - {label}:
            contrast = classes[label].contrast(rival)
            single = explainer.explain(images[mine], label, against=rival)
            scale = single.contributions.abs().sum(1).mean().item()
            assert close(contrast.contributions, single.contributions.mean(0), scale)
            assert contrast.base == pytest.approx(single.base.mean().item(), abs=FAR * scale)
            margin = (told.logits[mine, label] - told.logits[mine, rival]).mean().item()
            assert contrast.total == pytest.approx(margin, abs=FAR * max(scale, abs(margin)))
            assert abs(contrast.residual) <= 1e-4 * max(scale, told.logits.abs().max().item())
            assert contrast.against_name == explainer.classes[rival]
            assert explainer.classes[rival] in contrast.sentence()


def test_without_a_rival_given_it_is_the_class_most_often_taken_for():
    _, _, labels, told, classes = told_of("cells")

    for label in range(3):
        predicted = told.logits[labels == label].argmax(1)
        wrong = torch.bincount(predicted, minlength=3)
        wrong[label] = -1
        mean = told.logits[labels == label].mean(0)
        mean[label] = -torch.inf
        rival = int(wrong.argmax()) if wrong.max() > 0 else int(mean.argmax())
        assert classes[label].rival == classes[label].contrast().against == rival


@pytest.mark.parametrize("name", ["captum/integrated-gradients", "captum/layer-integrated-gradients"])
def test_a_post_hoc_sum_is_averaged_and_its_contrast_refused_in_words(name):
    *_, classes = told_of(name)

    assert classes.decisive is None and classes.linearity is None and classes.every is None
    with pytest.raises(InputError, match="contributions to all classes"):
        classes[0].contrast(1)
    assert all(item.decisive is None for item in classes[0].evidence)


# one pass


@every_sum
def test_batches_and_their_order_change_nothing(name):
    explainer, images, labels, _, whole = told_of(name)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    pieces = [
        Batch(images=images[some], labels=labels[some], ids=some) for some in order.split(7)
    ]  # fmt: skip
    again = explainer.explain_class(iter(pieces), max_batch=3)

    assert torch.equal(again.counts, whole.counts) and torch.equal(again.index, whole.index)
    assert torch.equal(again.confusion, whole.confusion)
    for field in ("logits", "base", "contributions", "scores"):
        scale = float(whole.contributions.abs().sum(1).max())
        assert close(getattr(again, field), getattr(whole, field), scale)
    scale = float(whole.contributions.abs().max())
    assert torch.allclose(again.spread, whole.spread, rtol=1e-2, atol=1e-3 * scale)
    ids = [{found.id for found in item.exemplars} for item in again[0].evidence if item.exemplars]
    assert all(len(some) == 3 for some in ids)


def sizes(tally):
    """Numbers that are held, by attribute, whatever is reached from there."""
    return {name: len(pickle.dumps(value)) for name, value in vars(tally).items() if name != "first"}


@pytest.mark.parametrize("network", [Cells(), Varying()])
def test_memory_does_not_grow_with_the_number_of_images(network):
    explainer = toy(network)
    wanted = torch.ones(3, dtype=torch.bool)
    images, labels = noise(12), torch.arange(12) % 3
    told = explainer.explain(images, labels)
    tally = _Tally(told, wanted)
    numbers = []
    for step in range(50):
        tally.add(told, labels, torch.arange(12) + 12 * step)
        if step in (0, 49):
            numbers.append(sizes(tally))

    assert numbers[0].keys() == numbers[1].keys() and len(tally.first) == 0
    for name, size in numbers[0].items():
        assert numbers[1][name] == pytest.approx(size, abs=64), name


def test_a_stream_is_read_once_and_nothing_is_asked_of_it_twice():
    images, labels = noise(30), labels_for(30)
    asked = []

    def stream():
        for some in torch.arange(30).split(8):
            asked.append(len(some))
            yield Batch(images=images[some], labels=labels[some], ids=some)

    told = toy().explain_class(stream())

    assert asked == [8, 8, 8, 6] and int(told.counts.sum()) == 30


def test_explaining_leaves_network_modes_gradients_and_random_state_alone():
    explainer, images = toy(), noise(9)
    explainer.network.train()
    explainer.network.head.weight.grad = torch.ones_like(explainer.network.head.weight)
    state = [value.clone() for value in explainer.network.state_dict().values()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():
        told = explainer.explain_class([batch_of(images, torch.arange(9) % 3)])

    assert torch.equal(torch.rand(1), expected) and explainer.network.training
    assert (explainer.network.head.weight.grad == 1).all()
    assert all(map(torch.equal, state, explainer.network.state_dict().values()))
    assert not told.contributions.requires_grad and not told.contributions.is_inference()


# exemplars


def true_best(told, labels, ids, label, unit):
    """Images of the class by score, the largest first."""
    mine = (labels == label).nonzero()[:, 0]
    order = told.scores[mine, unit].argsort(descending=True, stable=True)
    return ids[mine[order]].tolist(), told.scores[mine[order], unit].tolist()


@every_sum
def test_exemplars_are_the_images_of_the_class_with_the_largest_scores(name):
    _, images, labels, told, classes = told_of(name)
    ids = torch.arange(len(images))

    for label in classes.index.tolist():
        for unit in range(min(len(told.units), 12)):
            found = classes[label].evidence_of(unit).exemplars
            best, scores = true_best(told, labels, ids, label, unit)
            score_of = dict(zip(best, scores, strict=True))
            assert [score_of[item.id] for item in found] == pytest.approx(scores[:3], rel=1e-5, abs=1e-7)
            assert len({item.id for item in found}) == len(found) == 3
            for item in found:
                x0, y0, x1, y1 = item.box
                assert 0 <= x0 < x1 <= images.shape[3] and 0 <= y0 < y1 <= images.shape[2]
                assert item.label == label


@pytest.mark.parametrize("name", ["cam", "protopnet", "ra-cnn", "cells"])
def test_the_box_of_an_exemplar_is_around_its_best_cell(name):
    _, _, _, told, classes = told_of(name)
    h, w = told.maps.shape[2:]
    height, width = told.images.shape[2:]

    for item in classes[1].strongest(6):
        group = 0 if told.units.group is None else int(told.units.group[item.unit])
        for found in item.exemplars:
            map = told.maps[found.id, item.unit]
            if map.max() <= 0:
                assert found.box == (0, 0, width, height)
                continue
            assert found.cell == divmod(int(map.argmax()), w)
            frame = (0, 0, width, height) if told.boxes is None else told.boxes[found.id, group].tolist()
            x = frame[0] + (frame[2] - frame[0]) * (found.cell[1] + 0.5) / w
            y = frame[1] + (frame[3] - frame[1]) * (found.cell[0] + 0.5) / h
            assert found.box[0] <= x <= found.box[2] and found.box[1] <= y <= found.box[3]
            assert found.box[2] - found.box[0] <= 3 * (frame[2] - frame[0]) / w + 2


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 3, 5, 40])
def test_a_stream_that_comes_round_again_keeps_each_image_once(count, size):
    images, labels = noise(3 * count), torch.arange(3 * count) % 3
    ids = torch.arange(3 * count).repeat(4)
    stream = [Batch(images=images[some], labels=labels[some], ids=some) for some in ids.split(size)]
    told = toy().explain_class(stream)
    once = toy().explain_class([batch_of(images, labels)])

    assert (told.counts == 4 * once.counts).all()
    for item in told:
        for unit in range(len(told.units)):
            found = [image.id for image in item.evidence_of(unit).exemplars]
            assert len(set(found)) == len(found) == min(count, 3)
    kept = told.examples.ids
    assert (kept >= -1).all() and ((kept >= 0).sum(1) == min(count, 3)).all()


def test_where_a_unit_has_no_place_the_whole_image_is_shown():
    *_, classes = told_of("senn")

    for item in classes[0].evidence:
        assert all(found.box == (0, 0, 32, 32) for found in item.exemplars)


def test_pictures_are_those_of_the_images():
    data = tiny_data()
    told = specimen("protopnet").explain_class(data, ["square 1"])

    for item in told["square 1"].strongest(4):
        for found in item.exemplars:
            assert torch.equal(found.image, data.train.images[found.id]) and found.split == "train"
            assert data.train.labels[found.id] == 1
    streamed = specimen("protopnet").explain_class(data.batches("test"))
    assert streamed[0].strongest(1)[0].exemplars[0].split == "test"
    assert torch.equal(
        streamed[0].strongest(1)[0].exemplars[0].image,
        data.test.images[streamed[0].strongest(1)[0].exemplars[0].id],
    )


# which classes


@pytest.mark.parametrize("asked", ["bee", 1, ["bee"], [1], ["bee", 1]])
def test_classes_are_asked_for_by_name_and_index(asked):
    explainer, images, labels, _, whole = told_of("cells")
    told = explainer.explain_class([batch_of(images, labels)], asked)

    assert told.index.tolist() == [1] and len(told) == 1
    assert torch.equal(told.contributions[0], whole.contributions[1])
    assert told["bee"].target == told[1].target == 1 and told["bee"].name == "bee"
    assert "bee" in told and "ant" not in told
    with pytest.raises(InputError, match="ant"):
        told["ant"]
    with pytest.raises(UnknownNameError, match="bee"):
        told["bees"]


def test_some_classes_come_in_the_order_of_all():
    explainer, images, labels, _, whole = told_of("weights of each image")
    told = explainer.explain_class([batch_of(images, labels)], ["cat", "ant"])

    assert [item.name for item in told] == ["ant", "cat"]
    assert close(told.every, whole.every[[0, 2]]) and close(told.linearity, whole.linearity[[0, 2]])
    assert told[2].contrast("bee").total == pytest.approx(whole[2].contrast("bee").total, rel=1e-5)


def test_classes_without_images_are_left_out_unless_asked_for():
    images = noise(6)
    batch = batch_of(images, torch.tensor([0, 2] * 3))

    told = toy().explain_class([batch])

    assert told.index.tolist() == [0, 2] and told["cat"].count == 3
    with pytest.raises(InputError, match="bee"):
        toy().explain_class([batch], ["ant", "bee"])
    with pytest.raises(InputError, match="data have none"):
        toy().explain_class([batch], "bee")


# refusals


def test_contributions_that_add_up_to_nothing_are_refused_in_words():
    explainer = specimen("captum/saliency")

    with pytest.raises(InputError, match="add up to nothing"):
        explainer.explain_class(tiny_data())


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_out_of_range_are_refused_in_words(labels):
    with pytest.raises(InputError, match="labels in 0 … 2"):
        toy().explain_class([batch_of(noise(2), torch.tensor(labels))])


@pytest.mark.parametrize(
    "data", [torch.rand(2, 3, 32, 32), [torch.rand(2, 3, 32, 32)], 3, "a", None]
)  # fmt: skip
def test_what_is_no_stream_of_batches_is_refused_in_words(data):
    with pytest.raises(InputError, match="batches"):
        toy().explain_class(data)


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, 1).long(), torch.zeros(3).long()])
def test_labels_that_are_none_are_refused_in_words(labels):
    with pytest.raises(InputError, match="label"):
        toy().explain_class([Batch(images=noise(2), labels=labels, ids=torch.arange(2))])


def test_a_contrast_with_itself_is_refused_in_words():
    *_, classes = told_of("cells")

    with pytest.raises(InputError, match="another class"):
        classes["ant"].contrast("ant")


def test_one_batch_will_do():
    _, images, labels, _, whole = told_of("cells")

    assert torch.equal(toy().explain_class(batch_of(images, labels)).contributions, whole.contributions)


def test_data_without_images_are_refused_in_words():
    with pytest.raises(InputError, match="data have none"):
        toy().explain_class([])
    with pytest.raises(InputError, match="data have none"):
        toy().explain_class([batch_of(noise(2)[:0], torch.zeros(0).long())])


def test_data_of_other_classes_are_refused_in_words():
    data = data_of(noise(6), torch.arange(6) % 3, classes=("dog", "emu", "fox"))

    with pytest.raises(InputError, match="dog"):
        toy().explain_class(data)


def test_a_class_that_nobody_knows_is_refused_by_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'bee'"):
        toy().explain_class([batch_of(noise(2), torch.arange(2))], "bea")


def test_a_sum_that_does_not_hold_is_found():
    *_, classes = told_of("cells")

    with pytest.raises(AlgebraError, match="ant"):
        evolve(classes, base=classes.base + 1).check()


# tables, words, drawings


def test_a_table_is_told_of_by_its_columns():
    explainer, data = wine()
    told = explainer.explain_class(data).check()

    assert [item.name for item in told] == list(data.classes)
    strongest = told[0].strongest(3)
    assert all(item.name in data.features for item in strongest)
    assert all(item.exemplars == () for item in strongest)
    assert json.loads(told.to_json()) and told[0].figure().axes and "<article" in told[0]._repr_html_()
    contrast = told[0].contrast()
    assert abs(contrast.residual) < 1e-3 * max(1, abs(contrast.total))


@every_sum
def test_json_says_what_the_values_say(name):
    *_, classes = told_of(name)

    read = json.loads(classes.to_json())

    assert [item["class"] for item in read] == [item.name for item in classes]
    for item, told in zip(read, classes, strict=True):
        assert item["total"] == pytest.approx(told.total) and item["images"] == told.count
        assert item["sentence"] == told.sentence()
        for evidence in item["evidence"]:
            unit = told.evidence_of(evidence["unit"])
            assert evidence["contribution"] == unit.contribution and evidence["name"] == unit.name


def test_json_of_a_contrast_tells_nothing_that_is_not_of_the_contrast():
    *_, classes = told_of("cells")
    facts = classes["ant"].contrast("bee").facts()

    assert facts["against"] == "bee"
    assert facts["evidence"][0].keys() == {"unit", "name", "phrase", "score", "contribution", "share"}


def test_one_image_a_class_is_valid_json():
    json.loads(toy(Varying()).explain_class([batch_of(noise(2), torch.arange(2))]).to_json())


@every_sum
def test_every_class_has_a_sentence_and_a_figure(name):
    *_, classes = told_of(name)

    for item in classes:
        assert f"{item.count} image" in item.sentence() and item.sentence().endswith(".")
        item.figure().canvas.draw()
        assert "<article" in item._repr_html_()
    if classes.every is not None:
        contrast = classes[0].contrast()
        contrast.figure().canvas.draw()
        assert "<article" in contrast._repr_html_()


@every_sum
def test_a_sentence_says_what_the_values_say(name):
    *_, classes = told_of(name)

    for item in classes:
        said, evidence = item.sentence(), item.evidence
        reasons = sorted((e for e in evidence if e.contribution > 0), key=lambda e: -e.contribution)
        doubts = sorted((e for e in evidence if e.contribution < 0), key=lambda e: e.contribution)
        total = sum(e.contribution for e in reasons)
        if not reasons:
            assert "For it: nothing" in said and signed(item.base) in said
            continue
        assert f"({signed(reasons[0].contribution)}" in said and reasons[0].words in said
        if "mostly" in said:
            assert reasons[0].contribution > MOSTLY * total
        told = [e for e in reasons[1:3] if e.contribution >= TELLING * total]
        assert all(f"{e.words} ({signed(e.contribution)}" in said for e in told)
        against = bool(doubts) and -doubts[0].contribution >= DESPITE * total
        assert ("Against it" in said) == against
        if reasons[0].decisive:
            assert f"decisive in {percent(reasons[0].decisive)}" in said
        if reasons[0].agreement < USUALLY:
            assert f"of that sign in only {percent(reasons[0].agreement)}" in said


def test_names_from_data_are_escaped_in_markup():
    hostile = ("<script>alert(1)</script>", "$x_{y}$ & more", "\\frac")
    told = toy(classes=hostile).explain_class(batch_of(noise(9), torch.arange(9) % 3))

    for item in (told[0], told[0].contrast(1), told[1]):
        assert "<script" not in item._repr_html_()
        item.figure().canvas.draw()


@pytest.mark.parametrize("data", [tiny_data(), [batch_of(noise(2), torch.arange(2))]])
def test_no_images_at_once_are_refused_in_words(data):
    with pytest.raises(InputError, match="max_batch"):
        toy().explain_class(data, max_batch=0)


def test_a_network_of_one_class_is_told_of():
    network = Cells(classes=1)
    told = toy(network, classes=("ant",)).explain_class([batch_of(noise(5), torch.zeros(5).long())])

    assert told["ant"].sentence() and told.check() and told["ant"].accuracy == 1
    assert "rather than" not in told["ant"]._repr_html_() and told["ant"].figure().axes
    json.loads(told.to_json())


def test_the_function_and_the_method_say_the_same():
    explainer, images, labels, _, classes = told_of("cells")

    assert torch.equal(explain_class(explainer, [batch_of(images, labels)]).base, classes.base)


def test_quantiles_of_the_tally_are_a_stream():
    assert isinstance(_Tally(toy().explain(noise(1)), torch.ones(3).bool()).quantiles, Quantiles)
