"""CCNN, by its formulas: each is worked out again here, slowly and literally."""

import copy
import math
import re
import warnings
from functools import cache
from itertools import pairwise

import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.images import ArraySplit, Caption
from explainkit.data.phrases import phrasebook
from explainkit.data.vectors import hashed, phrase_vectors
from explainkit.errors import BindError, NotFittedError
from explainkit.explanation import Units
from explainkit.testing import tiny_data, tiny_images
from explainkit.training import Trainer
from explainkit_ccnn.explainer import ConfoundedWarning, SpeechlessWarning, shares
from explainkit_ccnn.model import CCNNNetwork
from explainkit_ccnn.trainer import counter, guided_loss, head_loss, semantic, stray_l1, uniqueness

PHRASES = ("red crest", "red tail", "blue crest", "long tail", "grey wing")
OF_CLASSES = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def network(size=(32, 32), seed=0, of_classes=OF_CLASSES, **settings):
    torch.manual_seed(seed)
    cells = size[0] // 4 * (size[1] // 4)
    made = CCNNNetwork(ek.backbone("tiny"), of_classes, phrase_vectors(PHRASES), cells, 4, **settings)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had seen data
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def quiet(explainer, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return explainer.fit(data, device="cpu", progress=False)


def tiny(**settings):
    return ek.explainer("ccnn", preset="tiny", **settings)


@cache
def fitted():
    return quiet(tiny(), tiny_data())


def retold(data, split, texts):
    """`data` with other captions of a split; ``None`` for none."""
    old = data.splits[split]
    captions = None if texts is None else tuple(Caption(text=text) for text in texts)
    new = ArraySplit(images=old.images, labels=old.labels, captions=captions)
    return evolve(data, splits={**data.splits, split: new})


def captions_of(data, split="train"):
    return [c.text for batch in data.batches(split, 50) for c in batch.captions]


def said_of(images, phrases, share=0.4, seed=0):
    said = drawn(images, phrases, seed=seed) < share
    said[0] = False  # an image of which nothing is said
    return said


def cosine(one, other):
    """By loops, of lists."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = [math.sqrt(sum(a * a for a in values)) for values in (one, other)]
    return product / (lengths[0] * lengths[1])


def alikeness(net, maps):
    """cos(map k of image i, phrase k'), as nested lists, by loops."""
    cells, table = net.visual.tolist(), net.vectors.tolist()
    textual = net.textual.tolist()
    words = [
        [sum(w * row[j] for w, row in zip(vector, textual, strict=True)) for j in range(len(textual[0]))]
        for vector in table
    ]
    found = []
    for image in maps.flatten(2).tolist():
        places = [
            [sum(v * row[j] for v, row in zip(flat, cells, strict=True)) for j in range(len(cells[0]))]
            for flat in image
        ]
        found.append([[cosine(place, word) for word in words] for place in places])
    return found


class Aligned:
    """In place of a network: `seen` and `said` give what they are given, as unit vectors."""

    def __init__(self, words):
        self.words = words

    def seen(self, maps):
        return F.normalize(maps, dim=-1, eps=1e-8)

    def said(self):
        return F.normalize(self.words, dim=1)


# uniqueness


@pytest.mark.parametrize("gain", [1.0, 5.0])
def test_uniqueness_is_that_of_a_loop(gain):
    scores, said = drawn(4, 6), said_of(4, 6)

    total = 0.0
    for i in range(4):
        mean = sum(scores[i].tolist()) / 6
        for k in range(6):
            y = 1 / (1 + math.exp(-gain * (scores[i, k].item() - mean)))
            total -= math.log(y) if said[i, k] else math.log(1 - y)

    assert uniqueness(scores, said, gain).item() == pytest.approx(total / 24, rel=1e-5)


def test_balanced_uniqueness_weighs_what_was_said_like_what_was_not():
    scores, said = drawn(4, 6), said_of(4, 6, 0.2)
    terms = F.binary_cross_entropy_with_logits(
        5 * (scores - scores.mean(1, keepdim=True)), said.float(), reduction="none"
    )

    found = uniqueness(scores, said, 5.0, balanced=True)

    assert found.item() == pytest.approx((terms[said].mean() + terms[~said].mean()).item() / 2, rel=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
def test_equal_scores_tell_nothing_whatever_was_said(balanced):
    for share in (0.1, 0.5, 0.9):
        found = uniqueness(torch.full((5, 7), 3.2), said_of(5, 7, share), 5.0, balanced)
        assert found.item() == pytest.approx(math.log(2), rel=1e-5)


def test_uniqueness_does_not_see_what_all_scores_have_in_common():
    scores, said = drawn(5, 7), said_of(5, 7)

    torch.testing.assert_close(uniqueness(scores + 10 * drawn(5, 1), said), uniqueness(scores, said))


@pytest.mark.parametrize("value", [False, True])
def test_uniqueness_of_nothing_or_everything_said_is_finite(value):
    scores = drawn(3, 4).requires_grad_()

    uniqueness(scores, torch.full((3, 4), value), 5.0, balanced=True).backward()

    assert scores.grad.isfinite().all()


# semantic and counter loss


def test_semantic_loss_is_that_of_a_loop():
    net, maps, said = network(), drawn(4, 5, 8, 8), said_of(4, 5)
    alike = alikeness(net, maps)

    total = 0.0
    for i, k in said.nonzero().tolist():
        for other in range(5):
            if other != k:
                total += max(0.0, 0.3 + alike[i][k][other] - alike[i][k][k])

    assert semantic(net, maps, said, 0.3).item() == pytest.approx(total / 20, rel=1e-4)


def test_counter_loss_is_that_of_a_loop():
    net, maps, said = network(), drawn(4, 5, 8, 8), said_of(4, 5)
    alike, order = alikeness(net, maps), torch.tensor([2, 0, 3, 1])

    total = 0.0
    for i in range(4):
        j = int(order[i])
        for k in range(5):
            if said[i, k] and not said[j, k]:
                total += max(0.0, 0.5 + alike[j][k][k] - alike[i][k][k])

    assert total and counter(net, maps, said, order, 0.5).item() == pytest.approx(total / 20, rel=1e-4)


def test_semantic_loss_is_zero_where_maps_are_their_own_phrases_and_no_others():
    maps = torch.eye(4).expand(3, 4, 4)

    assert semantic(Aligned(torch.eye(4)), maps, said_of(3, 4), 1.0) == 0
    opposed = torch.tensor([[1.0, 0], [-1.0, 0]])
    assert semantic(Aligned(opposed), opposed.expand(3, 2, 2), said_of(3, 2), 2.0) == 0


def test_semantic_loss_of_phrases_that_are_all_alike_is_the_margin_for_each_pair():
    said = said_of(3, 4)

    found = semantic(Aligned(torch.ones(4, 6)), drawn(3, 4, 6), said, 0.7)

    assert found.item() == pytest.approx(0.7 * 3 * int(said.sum()) / 12, rel=1e-5)


def test_maps_of_phrases_that_were_not_said_change_nothing():
    net, said = network(), said_of(4, 5)
    maps = drawn(4, 5, 8, 8).requires_grad_()

    semantic(net, maps, said, 1.0).backward()

    assert not maps.grad[~said].any() and maps.grad[said].flatten(1).any(1).all()


def test_counter_loss_is_zero_without_a_counter_image_or_a_difference():
    net, maps, said = network(), drawn(4, 5, 8, 8), said_of(4, 5)

    assert counter(net, maps, said, torch.arange(4)) == 0
    alike = said[:1].expand(4, 5) | said[1:2]
    assert counter(net, maps, alike, torch.tensor([1, 2, 3, 0])) == 0
    assert counter(net, maps[:1], said[1:2], torch.tensor([0])) == 0


def test_counter_loss_of_equal_maps_is_the_margin_for_each_difference():
    net, said, order = network(), said_of(4, 5), torch.tensor([1, 2, 3, 0])
    maps = drawn(1, 5, 8, 8).expand(4, 5, 8, 8)

    found = counter(net, maps, said, order, 0.5)

    assert found.item() == pytest.approx(0.5 * int((said & ~said[order]).sum()) / 20, rel=1e-5)


def test_neither_sees_how_large_maps_and_vectors_are():
    net, maps, said, order = network(), drawn(4, 5, 8, 8), said_of(4, 5), torch.tensor([1, 2, 3, 0])
    before = semantic(net, maps, said), counter(net, maps, said, order)

    larger = maps * (0.1 + 9 * drawn(4, 5, 1, 1, seed=1))
    net.vectors *= 0.1 + 9 * drawn(5, 1, seed=2)

    after = semantic(net, larger, said), counter(net, larger, said, order)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)


def test_cosines_are_cosines():
    net = network()

    alike = net.seen(drawn(9, 5, 64)) @ net.said().T

    assert alike.min() >= -1 - 1e-6 and alike.max() <= 1 + 1e-6
    torch.testing.assert_close(net.said().norm(dim=1), torch.ones(5))


def test_one_image_a_dead_map_and_an_image_without_phrases_have_finite_gradients():
    net = network()
    for said in (torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 5, dtype=torch.bool)):
        maps = torch.zeros(1, 5, 8, 8, requires_grad=True)

        loss = semantic(net, maps, said) + counter(net, maps, said, torch.tensor([0]))
        loss.backward()

        assert loss.isfinite() and maps.grad.isfinite().all()
        assert said.any() or loss == 0
    assert not net.seen(torch.zeros(2, 64)).any()


# their sum


def batch_of(data, count=8):
    return data.train.batch(torch.arange(count))


def test_the_loss_is_classification_and_the_weight_times_the_three():
    net, batch, said = network(), batch_of(tiny_data()), said_of(96, 5)

    torch.manual_seed(3)
    terms = guided_loss(net, batch, said, 0.4, 5.0, True, 0.3, 0.2, 0.1)

    torch.manual_seed(3)
    order, parts = torch.randperm(8), net.decompose(batch.images)
    here = said[batch.ids]
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {
            "cross_entropy": F.cross_entropy(parts.logits, batch.labels, label_smoothing=0.1).item(),
            "uniqueness": 0.4 * uniqueness(parts.scores, here, 5.0, True).item(),
            "semantic": 0.4 * semantic(net, parts.maps, here, 0.3).item(),
            "counter": 0.4 * counter(net, parts.maps, here, order, 0.2).item(),
        }
    )
    assert list(guided_loss(net, batch, said, 0.0)) == ["cross_entropy"]


def test_filters_silenced_at_random_are_silent_in_the_logits_alone():
    net = network(dropout=0.5).train()

    parts = net.decompose(tiny_images())

    silent = parts.scores == 0
    assert 0 < silent.float().mean() < 1
    torch.testing.assert_close(parts.logits, parts.scores @ net.head.weight.T)
    assert (parts.activations.flatten(2).any(2) & silent).any()


def test_what_only_the_projections_learn_from_is_no_part_of_the_logits():
    net, images = network(), tiny_images()
    before = net(images)

    with torch.no_grad():
        net.visual.mul_(7)
        net.textual.add_(1)
        net.vectors.neg_()

    assert torch.equal(net(images), before)


def test_the_price_is_on_weights_that_no_phrase_asked_for():
    net = network()
    with torch.no_grad():
        net.head.weight.copy_(drawn(3, 5) - 0.5)

    found = stray_l1(net)
    found.backward()

    total = sum(abs(net.head.weight[c, k].item()) for c in range(3) for k in range(5) if not OF_CLASSES[k, c])
    assert found.item() == pytest.approx(total / 15)
    assert not net.head.weight.grad[OF_CLASSES.T].any() and net.head.weight.grad[~OF_CLASSES.T].all()


def test_the_last_stage_has_classification_and_that_price():
    net, batch = network(), batch_of(tiny_data())
    with torch.no_grad():
        net.head.weight.add_(0.1)

    terms = head_loss(net, batch)

    assert terms["cross_entropy"] == F.cross_entropy(net(batch.images), batch.labels)
    assert terms["stray"] == stray_l1(net)


def test_the_order_of_phrases_is_no_matter():
    net, batch, said = network(), batch_of(tiny_data()), said_of(96, 5)
    order, other = torch.tensor([3, 0, 4, 1, 2]), network()
    with torch.no_grad():
        other.concepts.weight.copy_(net.concepts.weight[order])
        other.concepts.bias.copy_(net.concepts.bias[order])
        other.head.weight.copy_(net.head.weight[:, order])
        other.vectors.copy_(net.vectors[order])
        other.of_classes.copy_(net.of_classes[order])

    torch.manual_seed(0)
    one = guided_loss(net, batch, said)
    torch.manual_seed(0)
    two = guided_loss(other, batch, said[:, order])

    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other(batch.images), net(batch.images), rtol=1e-5, atol=1e-6)


# the sum


def test_phrases_and_cells_sum_to_the_logit_literally():
    model, images = fitted(), tiny_images()

    told = model.explain(images, 1).check()

    net = copy.deepcopy(model.network).double()
    maps = net.decompose(images.double()).maps
    weight = net.head.weight[1]
    for i in range(len(images)):
        by_phrase = by_cell = 0.0
        for k in range(maps.shape[1]):
            by_phrase += maps[i, k].mean().item() * weight[k].item()
            by_cell += sum(cell * weight[k].item() / 64 for cell in maps[i, k].flatten().tolist())
        assert by_phrase == pytest.approx(told.logits[i, 1].item(), abs=1e-5)
        assert by_cell == pytest.approx(by_phrase, abs=1e-12)
    assert not told.base.any() and told.residual.abs().max() < 1e-5
    torch.testing.assert_close(told.saliency().sum((1, 2)), told.logits[:, 1], rtol=1e-4, atol=1e-5)


def test_nothing_but_phrases_speaks_for_a_class():
    net = fitted().network

    assert net.head.bias is None and {name for name, _ in net.head.named_parameters()} == {"weight"}
    assert not net.decompose(tiny_images()).bias.any()


def test_a_contrast_sums_to_the_margin():
    told = fitted().explain(tiny_images(), 0, against=2).check()

    margin = told.logits[:, 0] - told.logits[:, 2]
    torch.testing.assert_close(told.contributions.sum(1), margin, rtol=1e-5, atol=1e-5)


def test_maps_say_where_and_are_never_negative():
    parts = fitted().network.decompose(tiny_images())

    assert parts.maps.min() >= 0 and torch.equal(parts.scores, parts.maps.mean((2, 3)))


def test_images_need_not_be_square_and_may_be_of_another_size_when_explained():
    data = tiny_data()
    splits = {name: evolve(split, images=split.images[:, :, :24]) for name, split in data.splits.items()}
    model = quiet(tiny(), evolve(data, size=(24, 32), splits=splits))

    assert model.network.visual.shape[0] == 6 * 8
    assert model.explain(drawn(2, 3, 40, 36)).check().maps.shape[2:] == (10, 9)


# the stages


def phase_by_phase(model, data):
    """The network before the first phase, and after each one."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = model.build(ek.Task(classes=data.classes, size=data.size, data=data))
    yield None, copy.deepcopy(net)
    for phase in model.phases():
        Trainer(device="cpu", progress=False).run(net, data, [phase])
        yield phase.name, copy.deepcopy(net)


def changed(one, other):
    """The children of which a parameter is not what it was, to the bit."""
    after = dict(other.named_parameters())
    return {
        name.partition(".")[0]
        for name, value in one.named_parameters()
        if not torch.equal(value, after[name])
    }


def test_each_stage_moves_what_it_names_and_nothing_else():
    steps = list(phase_by_phase(tiny(first=1), tiny_data()))

    assert [(name, changed(one, other)) for (_, one), (name, other) in pairwise(steps)] == [
        ("filters", {"concepts", "visual", "textual"}),
        ("guided", {"backbone", "concepts", "visual", "textual"}),
        ("last", {"head"}),
    ]
    for (_, one), (name, other) in pairwise(steps):
        for key, value in one.named_buffers():
            still = name != "guided" or not key.startswith("backbone")
            assert not still or torch.equal(value, dict(other.named_buffers())[key]), (name, key)


def test_without_guidance_the_projections_never_move():
    steps = list(phase_by_phase(tiny(concept_weight=0.0), tiny_data()))

    assert changed(steps[0][1], steps[-1][1]) == {"backbone", "concepts", "head"}


def test_the_settings_of_the_paper_are_its_three_stages():
    model = ek.explainer("ccnn", preset="paper")
    model._book = phrasebook(captions_of(tiny_data()), tiny_data().train.labels, 3)

    stages = [(phase.name, phase.epochs, set(phase.rates.values())) for phase in model.phases()]

    assert stages == [("filters", 20, {1e-3}), ("guided", 50, {1e-4}), ("last", 20, {1e-4})]
    assert model.start == 0.1 and model.margin == 1.0 and model.counter_margin == 0.5
    assert (model.concept_weight, model.joint, model.dropout) == (0.4, 24, 0.5)


@pytest.mark.parametrize("start", [0.1, 1.0])
def test_a_class_begins_with_its_phrases_and_no_others(start):
    net = network(start=start)

    for c in range(3):
        for k in range(5):
            assert net.head.weight[c, k].item() == pytest.approx(start if OF_CLASSES[k, c] else 0.0)


# phrases


def test_the_filters_are_the_phrases_of_the_training_captions_in_order():
    model, data = fitted(), tiny_data()

    book = phrasebook(captions_of(data), data.train.labels, 3, per_class=4, least=1)

    assert model.units.phrases == book.phrases and list(book.phrases) == sorted(book.phrases)
    assert torch.equal(model.network.of_classes, book.of_classes)
    torch.testing.assert_close(model.network.vectors, phrase_vectors(book.phrases))
    texts, labels = captions_of(data), data.train.labels.tolist()
    for k, phrase in enumerate(model.units.phrases):  # names and columns are of one order
        classes = {label for text, label in zip(texts, labels, strict=True) if phrase in text.lower()}
        assert classes == set(model.network.of_classes[k].nonzero()[:, 0].tolist())


def test_every_phrase_that_is_told_is_in_the_vocabulary_and_keeps_its_filter(tmp_path):
    model = fitted()
    told = model.explain(tiny_images())

    again = ek.load(ek.save(model, tmp_path / "model"))

    assert again.units.phrases == model.units.phrases
    assert torch.equal(again.network.concepts.weight, model.network.concepts.weight)
    texts = {text for text in captions_of(tiny_data())}
    for one, other in zip(told, again.explain(tiny_images()), strict=True):
        assert one.sentence() == other.sentence()
        for phrase in re.findall(r"the ([a-z ]+?) \(", one.sentence()):
            unit = model.units.phrases.index(phrase)
            assert one.evidence_of(unit).phrase == phrase and any(phrase in text.lower() for text in texts)


def test_what_is_said_of_other_splits_changes_nothing():
    data = tiny_data()
    other = retold(data, "test", ["A picture with a purple square."] * 24)
    other = retold(other, "validation", None)

    one, two = fitted(), quiet(tiny(), other)

    assert one.units.phrases == two.units.phrases
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[name]), name


@pytest.mark.parametrize(("share", "classes"), [(0.0, [0, 2]), (0.1, [2])])
def test_what_is_seldom_said_of_a_class_is_no_phrase_of_it(share, classes):
    data = tiny_data()
    texts = captions_of(data)
    texts[:6] = [text.replace("red", "blue") for text in texts[:6]]  # two of the 32 of square 0

    model = quiet(tiny(share=share), retold(data, "train", texts))

    k = model.units.phrases.index("blue square")
    assert model.network.of_classes[k].nonzero()[:, 0].tolist() == classes


def test_images_without_captions_are_refused_in_words():
    with pytest.raises(ek.InputError, match=r"captions of the training images.*tiny has none"):
        quiet(tiny(), retold(tiny_data(), "train", None))


def test_phrases_are_wanted_before_training_is_planned():
    with pytest.raises(ek.InputError, match=r"call fit\(data\)"):
        tiny().phases()
    with pytest.raises(ek.InputError, match=r"call fit\(data\)"):
        tiny().build(ek.Task(classes=3, size=32))


def test_a_class_of_which_nothing_is_said_is_named():
    data = tiny_data()
    texts = ["" if "blue" in text else text for text in captions_of(data)]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = tiny().fit(retold(data, "train", texts), device="cpu", progress=False)

    told = [str(each.message) for each in caught if each.category is SpeechlessWarning]
    assert len(told) == 1 and "no phrase that tells square 2 from other classes" in told[0]
    assert model.explain(tiny_images(), "square 2").check()


def test_phrases_that_may_be_mistaken_are_named_and_remembered(tmp_path):
    data = tiny_data()
    with pytest.warns(ConfoundedWarning, match=r"\(like 'red square'\)") as caught:
        model = tiny().fit(data, device="cpu", progress=False)
    assert {each.filename for each in caught} == {__file__}  # where fit was called
    book = phrasebook(captions_of(data), data.train.labels, 3, per_class=4, least=1)

    again = ek.load(ek.save(model, tmp_path / "model"))

    assert again.confounded == model.confounded == book.confounded()
    assert again.confounded["first corner"] == "red square"


def test_phrases_that_can_be_told_apart_are_not_named():
    data = tiny_data()
    texts = [re.sub(" and .*", "", text) for text in captions_of(data)]

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConfoundedWarning)
        model = tiny().fit(retold(data, "train", texts), device="cpu", progress=False)

    assert model.confounded == {} and len(model.units) == 3


def test_before_training_no_phrase_is_known():
    with pytest.raises(NotFittedError):
        _ = tiny().confounded


# word vectors


def test_word_vectors_are_read_from_a_file_and_saved_with_the_network(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("red 1 0 0\ngreen 0 1 0\nsquare 0 0 2\nother 9 9 9\n", encoding="utf-8")
    model = quiet(tiny(vectors=str(path)), tiny_data())

    folder = ek.save(model, tmp_path / "model")
    path.unlink()
    again = ek.load(folder)

    k = model.units.phrases.index("red square")
    assert model.network.vectors[k].tolist() == [1, 0, 2]
    corner = model.network.vectors[model.units.phrases.index("first corner")]
    torch.testing.assert_close(corner, (hashed("first", 3) + hashed("corner", 3)) * 4 / 3)
    assert torch.equal(again.network.vectors, model.network.vectors) and again.vectors == str(path)
    assert torch.equal(again.predict(tiny_images()), model.predict(tiny_images()))


def test_words_are_hashed_without_a_file():
    assert fitted().network.vectors.shape[1] == 50
    assert torch.equal(fitted().network.vectors, phrase_vectors(fitted().units.phrases))


@pytest.mark.parametrize(
    ("text", "told"),
    [("other 1 2\n", r"vectors of words such as blue, corner.*has none"), (None, "Expected word vectors at")],
)
def test_a_file_without_the_words_is_refused_in_words(tmp_path, text, told):
    path = tmp_path / "vectors.txt"
    if text:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(ek.InputError, match=told):
        quiet(tiny(vectors=str(path)), tiny_data())


def test_a_saved_state_without_phrases_is_refused_in_words():
    state = fitted().network.state_dict()
    for vectors in (None, torch.zeros(6), torch.zeros(0, 50)):
        spoiled = {name: value for name, value in state.items() if name != "vectors"}
        spoiled |= {} if vectors is None else {"vectors": vectors}
        with pytest.raises(ek.InputError, match=r"vectors \(K, E\)"):
            tiny().restore(spoiled, tiny_data().classes, (32, 32), None)


# what is said


def said(contributions, phrases=PHRASES, **fields):
    """The sentence of one image with these contributions."""
    count = len(contributions)
    units = Units(
        kind="phrase", names=[f"filter {k}" for k in range(count)], phrases=phrases and phrases[:count],
        pooling="mean",
    )  # fmt: skip
    told = fitted().explain(tiny_images()[:1])
    told = evolve(
        told, units=units, maps=None, decomposition=None, scores=torch.tensor([contributions]),
        weights=torch.ones(1, count), classes=["cardinal", "jay", "wren"], targets=torch.tensor([0]),
        **fields,
    )  # fmt: skip
    return told[0].sentence()


def test_a_sentence_tells_shares_until_nine_tenths_are_told():
    assert said([6.0, 3.0, 0.5, 0.5]) == "cardinal, because of the red crest (60 %) and the red tail (30 %)."
    assert said([5.0, 3.0, 2.0]) == (
        "cardinal, because of the red crest (50 %), the red tail (30 %) and the blue crest (20 %)."
    )


def test_a_sentence_tells_what_speaks_most_against_it():
    assert said([3.0, -1.0]) == "cardinal, because of the red crest (75 %), despite the red tail (-25 %)."
    assert said([3.0, -0.01]) == "cardinal, because of the red crest (100 %)."


def test_a_sentence_says_when_nothing_speaks_for_it():
    assert said([-1.0, -3.0]) == "cardinal, though no phrase speaks for it, despite the red tail (-75 %)."
    assert said([0.0, 0.0]) == "cardinal, though no phrase speaks for it."
    assert "because of the red crest (under 1 %), despite" in said([0.001, -3.0])


def test_a_sentence_tells_five_phrases_at_most_and_what_the_others_come_to():
    assert said([1.0] * 8, phrases=None).endswith("filter 4 (12 %) and 3 other phrases (38 %).")
    assert said([1.0] * 6, phrases=None).endswith("filter 4 (17 %) and one other phrase (17 %).")
    assert said([3.0] * 5 + [0.1], phrases=None).endswith("and filter 4 (20 %).")


def test_the_shares_that_a_sentence_tells_come_to_what_speaks_for_the_class():
    parts = drawn(40, 12) - 0.4
    for contributions in parts.tolist():
        told = [int(share) for share in re.findall(r"\((\d+) %\)", said(contributions, phrases=None))]
        positive = sum(c for c in contributions if c > 0) / sum(abs(c) for c in contributions)
        assert 90 * positive - 3.5 <= sum(told) <= 100 * positive + 3.5


def test_a_sentence_names_the_rival():
    told = said([3.0, 1.0], against=torch.tensor([1]))

    assert told.startswith("cardinal rather than jay, because of the red crest (75 %) and")


def test_filters_without_phrases_go_by_their_names():
    assert said([3.0, 1.0], None) == "cardinal, because of filter 0 (75 %) and filter 1 (25 %)."


def test_shares_of_all_phrases_come_to_one_and_keep_their_signs():
    told = fitted().explain(tiny_images(), 1)

    found = shares(told)

    torch.testing.assert_close(found.abs().sum(1), torch.ones(len(told)))
    assert torch.equal(found.sign(), told.contributions.sign())
    for item, row in zip(told, found, strict=True):
        for text in re.findall(r"the ([a-z ]+) \((-?\d+) %\)", item.sentence()):
            k = told.units.phrases.index(text[0])
            assert abs(100 * row[k].item() - int(text[1])) <= 0.5 + 1e-4


def test_a_number_of_reasons_asks_for_the_plain_sentence():
    told = fitted().explain(tiny_images())[0]

    assert "%" in told.sentence() and "%" not in told.sentence(supporting=2)


def test_drawing_shows_the_strongest_phrases():
    told = fitted().explain(tiny_images())[0]

    figure = told.figure()
    figure.canvas.draw()

    shown = " ".join(
        text
        for axes in figure.axes
        for text in [axes.get_title(), *(each.get_text() for each in axes.texts + axes.get_yticklabels())]
    )
    assert told.strongest(1)[0].phrase in shown.replace("\n", " ")


def test_networks_of_another_form_are_refused():
    with pytest.raises(BindError, match="whose filters have no phrases"):
        ek.explainer("ccnn", network=nn.Linear(3, 3), classes=["a", "b", "c"])


def test_a_network_trained_elsewhere_is_explained_by_its_filters():
    model = ek.explainer("ccnn", network=network(), classes=["a", "b", "c"])

    told = model.explain(tiny_images()).check()

    assert told.units.phrases is None and model.confounded == {} and "filter" in told[0].sentence()


def test_it_learns_what_phrases_mean():
    data = tiny_data()
    texts = [re.sub(" and .*", "", text) for text in captions_of(data)]
    data = retold(data, "train", texts)

    model = quiet(tiny(guided=6, last=2), data)

    assert model.evaluate(data, ("test",))["test"]["accuracy"] == 1
    batch = data.test.batch(torch.arange(24))
    scores = model.network.eval().decompose(batch.images).scores
    for k, colour in enumerate(("blue", "green", "red")):
        assert model.units.phrases[k] == f"{colour} square"
        there = batch.labels == {"red": 0, "green": 1, "blue": 2}[colour]
        assert scores[there, k].min() > scores[~there, k].max()
