"""Third-party plugins: one that learns concepts and answers for classes alone, one with edits of its own."""

import json
from pathlib import Path

import pytest
import torch
from attrs import define
from PIL import Image
from torch.nn import functional as F

import explainkit as ek
from explainkit import registry
from explainkit.cli import main
from explainkit.errors import (
    InputError,
    NotFittedError,
    PluginWarning,
    UnknownNameError,
    UnsupportedNetworkError,
)
from explainkit.testing import check_explainer, fitted_example, tiny_dataset, tiny_images

HOOKS = """
@hookimpl
def explainkit_explainers():
    return [
        Offer("mine/concepts", "A fixture", "thirdparty_explainkit_mine.parts:ConceptDirections"),
        Offer("mine/colors", "A fixture", "thirdparty_explainkit_mine.parts:MeanColors"),
    ]

@hookimpl
def explainkit_counterfactual_methods():
    return [
        Offer("mine/fade", "A fixture", "thirdparty_explainkit_mine.parts:Fade"),
        Offer("mine/borrow", "A fixture", "thirdparty_explainkit_mine.parts:Borrow"),
    ]
"""
METHODS = ("score-edit", "region-swap", "mine/borrow", "mine/fade")


@pytest.fixture
def plugin(install):
    package = install("mine", HOOKS)
    (package / "parts.py").write_text(Path(__file__).with_name("concept_plugin.py").read_text())


@pytest.fixture
def concepts(plugin):
    return fitted_example("mine/concepts")


@pytest.fixture
def colors(plugin):
    return ek.explainer("mine/colors").fit(tiny_dataset(), seed=0, device="cpu", progress=False)


@pytest.fixture
def folders(tmp_path):
    """A folder of images for each of two concepts, which are the classes of a data set too."""
    for concept, color in (("reddish", 0), ("bluish", 2)):
        (tmp_path / "concepts" / concept).mkdir(parents=True)
        for number in range(10):
            picture = torch.full((32, 32, 3), 20 + number)
            picture[..., color] = 200 + number
            path = tmp_path / "concepts" / concept / f"{number}.png"
            Image.fromarray(picture.byte().numpy()).save(path)
    return tmp_path


def test_a_method_that_learns_concepts_keeps_every_promise_with_no_change_of_the_core(concepts):
    check_explainer(concepts, tiny_images())


def test_class_explanations_are_means_of_the_slopes_along_learned_directions(concepts):
    batch = tiny_dataset().test.batch(torch.arange(12))
    class_explanations = concepts.explain_class([batch])

    network, directions = concepts.network, concepts.learned["directions"]
    features = network[:-1](batch.images)
    for item in class_explanations:
        slopes = []
        for feature, label in zip(features, batch.labels.tolist(), strict=True):
            if label != item.target:
                continue
            feature = feature.detach().requires_grad_()
            F.linear(feature, network[-1].weight, network[-1].bias)[label].backward()
            slopes.append(torch.stack([feature.grad @ direction for direction in directions]))
        torch.testing.assert_close(item.contributions, torch.stack(slopes).mean(0), rtol=1e-4, atol=1e-6)
        agreement = (torch.stack(slopes).sign() == item.contributions.sign()).float().mean(0)
        given = [item.evidence_of(unit).sign_agreement for unit in range(3)]
        assert given == pytest.approx(agreement.tolist())
        assert item.residual is None and item.facts()["residual"] is None
    with pytest.raises(InputError, match="claims no sum"):
        class_explanations.check_additivity()


def test_it_refuses_single_images_and_all_questions_before_it_has_learned(concepts):
    with pytest.raises(InputError, match="meaning only in the mean over a class"):
        concepts.explain(tiny_images())
    with pytest.raises(InputError, match="meaning only in the mean over a class"):
        next(concepts.explain_stream(tiny_dataset()))
    blank = ek.explainer("mine/concepts", network=concepts.network, classes=concepts.classes)
    with pytest.raises(NotFittedError, match=r"call fit.* with concept examples"):
        blank.explain_class(tiny_dataset())
    with pytest.raises(InputError, match="images of concepts by their names"):
        blank.fit([tiny_images()])
    with pytest.raises(InputError, match="Concept 'red': Expected at least one image"):
        blank.fit({"red": tiny_images()[:0], "blue": tiny_images()})
    with pytest.raises(InputError, match="different names; two are called '1'"):
        blank.fit({1: tiny_images(), "1": tiny_images()})


def test_concepts_are_learned_from_a_mapping_as_from_a_data_set(concepts):
    dataset = tiny_dataset()
    batch = dataset.train.batch(torch.arange(len(dataset.train)))
    examples = {name: batch.images[batch.labels == label] for label, name in enumerate(dataset.classes)}

    again = ek.explainer("mine/concepts", network=concepts.network, classes=concepts.classes).fit(examples)

    torch.testing.assert_close(again.learned["directions"], concepts.learned["directions"])
    assert again.units.names == tuple(dataset.classes)


def test_what_was_learned_is_refused_beside_another_network(concepts, tmp_path):
    ek.save(concepts, tmp_path / "concepts")

    with pytest.raises(InputError, match="network=…"):
        ek.load(tmp_path / "concepts")
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3))
    with pytest.raises(UnsupportedNetworkError, match="Concept directions learned about"):
        ek.load(tmp_path / "concepts", network=other)


def test_a_comparison_has_its_class_explanations_and_no_column(colors, tmp_path):
    concepts = ek.explainer("mine/concepts", network=colors.network, classes=colors.classes)
    concepts.fit(tiny_dataset())

    comparison = ek.compare([colors, concepts], tiny_images(), distractors=tiny_dataset())

    assert list(comparison.explanations) == ["mine/colors"] and not comparison.failures
    assert list(comparison.class_explanations) == ["mine/colors", "mine/concepts"]
    assert list(comparison.counterfactuals) == ["mine/colors"]
    assert "not in logits" in comparison.save(tmp_path / "page.html").read_text()
    alone = ek.compare([colors, concepts], tiny_images())
    assert "meaning only in the mean" in alone.failures["mine/concepts"]


def test_explainkit_counterfactual_methods_are_those_of_the_core_and_of_plugins(colors, concepts):
    assert colors.counterfactual_methods() == METHODS
    assert concepts.counterfactual_methods() == ()


def test_a_plugin_with_edits_of_its_own_keeps_every_promise(colors):
    check_explainer(colors, tiny_images())


def test_edits_by_plugins_are_verified_by_the_network_and_told(colors):
    counterfactuals = colors.counterfactual(tiny_images(), distractors=tiny_dataset())

    assert tuple(counterfactuals.edits) == METHODS
    fades = counterfactuals.edits["mine/fade"]
    predictions = colors.predict(fades.images).argmax(1)
    assert torch.equal(fades.success, predictions == counterfactuals.targets) and fades.success.any()
    assert torch.equal(counterfactuals.success, fades.success | counterfactuals.edits["region-swap"].success)
    for row, item in enumerate(counterfactuals):
        edit = item.edits["mine/fade"]
        assert (edit.kind, edit.verified_by, edit.unit) == ("image", "network", "pixel")
        assert edit.size == int((fades.images[row] != tiny_images()[row]).any(0).sum())
        text = (
            f"{fades.descriptions[row]}, the network says so."
            if edit.success
            else "No edit that was tried of"
        )
        assert text in item.sentence() and edit.sentence in item.sentence()
    borrowed = counterfactuals.edits["mine/borrow"]
    said = colors.network.head(borrowed.after).argmax(1) == counterfactuals.targets
    assert torch.equal(said | ~borrowed.feasible, torch.ones(6, dtype=torch.bool))
    assert borrowed.feasible.any() and counterfactuals[0].changes_by("mine/borrow")
    assert "mine/fade" in repr(counterfactuals)


def test_one_method_can_be_asked_for_with_its_settings(colors):
    images, dataset = tiny_images(), tiny_dataset()

    coarse = colors.counterfactual(images, method="mine/fade", distractors=dataset, steps=2)

    assert tuple(coarse.edits) == ("mine/fade",) and coarse[0].changes == []
    assert set(coarse.edits["mine/fade"].descriptions) <= {"Faded by 0%", "Faded by 50%", "Faded by 100%"}
    assert torch.equal(coarse.success, coarse.edits["mine/fade"].success)
    scores = colors.counterfactual(images, method=["score-edit"], norm="l1")
    assert torch.equal(scores.success, scores.edits["score-edit"].feasible)
    assert coarse[0].figure().axes and scores[0].figure().axes
    with pytest.raises(UnknownNameError, match=r"no counterfactual method 'fade'.* Did you mean 'mine/fade'"):
        colors.counterfactual(images, method="fade")
    with pytest.raises(UnknownNameError, match=r"no setting 'stepz'.* Did you mean 'steps'"):
        colors.counterfactual(images, method="mine/fade", distractors=dataset, stepz=3)
    with pytest.raises(UnknownNameError, match="no setting 'norm'"):
        colors.counterfactual(images, method="region-swap", distractors=dataset, norm="l1")


def test_pages_and_json_show_any_edit(colors, tmp_path):
    counterfactuals = colors.counterfactual(tiny_images(), distractors=tiny_dataset())

    page = ek.report(counterfactuals, tmp_path / "page.html").read_text()

    assert "Scores that would have to change, by mine/borrow" in page
    assert "edited by mine/fade" in page and "Faded by" in page
    facts = json.loads(json.dumps(counterfactuals[0].facts(), allow_nan=False))
    assert [edit["method"] for edit in facts["edits"]] == list(METHODS)
    assert {edit["kind"] for edit in facts["edits"]} == {"scores", "image"}


def test_the_command_trains_and_asks_both(plugin, folders, capsys):
    model, learned, concepts = folders / "model", folders / "learned", folders / "concepts"
    of_folder = ["--dataset", "folder", "--dataset-option", f"path={concepts}", "--dataset-option", "size=32"]

    assert main(["train", "mine/colors", *of_folder, "--out", str(model)]) == 0
    assert main(["train", "mine/concepts", "--network", str(model), *of_folder, "--out", str(learned)]) == 0
    capsys.readouterr()
    page = folders / "page.html"
    status = main(
        ["explain", str(learned), "--network", str(model), "--question", "class", *of_folder,
         "--out", str(page)]
    )  # fmt: skip
    output = capsys.readouterr().out
    assert status == 0 and "on average over" in output and "Concept directions" not in output
    assert "not in logits" in page.read_text()
    image = str(concepts / "reddish" / "0.png")
    assert main(["explain", str(learned), "--network", str(model), image, "--out", str(page)]) != 0
    assert "meaning only in the mean over a class" in capsys.readouterr().err
    status = main(
        ["explain", str(model), image, "--question", "counterfactual", "--method", "mine/fade", *of_folder,
         "--out", str(page)]
    )  # fmt: skip
    output = capsys.readouterr().out
    assert status == 0 and "Faded by" in output and "By its evidence" not in output


# what a plugin may get wrong


def offer(monkeypatch, method_class):
    """Let the method "mine/fade" be another."""
    find = registry.find
    monkeypatch.setattr(
        registry, "find", lambda kind, name: method_class if name == "mine/fade" else find(kind, name)
    )


def asked(colors, method_class, monkeypatch, **settings):
    """Counterfactuals of three images by a method of this test alone."""
    find = registry.find
    monkeypatch.setattr(
        registry, "find", lambda kind, name: method_class if name == "mine/fade" else find(kind, name)
    )
    return colors.counterfactual(
        tiny_images()[:3], "square 0", method="mine/fade", distractors=tiny_dataset(), **settings
    )


def method(search, **members):
    """A class of methods with this search."""
    members = {"search": search, "supports": classmethod(lambda cls, explainer: True)} | members
    return define(eq=False, kw_only=True)(type("Made", (ek.CounterfactualMethod,), members))


def test_a_method_leaves_no_trace_in_network_images_and_random_state(colors, monkeypatch):
    def search(self, question):
        images = question.images.requires_grad_()
        question.explainer.network(images).sum().backward()
        with torch.no_grad():
            question.images.fill_(0.5)
            question.explanations.images.fill_(0.2)
        return ek.ImageEdits(images=torch.rand_like(question.images.detach()))

    images = tiny_images()[:3].clone()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    offer(monkeypatch, method(search))
    for parameter in colors.network.parameters():  # training leaves some
        parameter.grad = None
    counterfactuals = colors.counterfactual(images, method="mine/fade")

    assert torch.equal(torch.rand(2), expected) and torch.equal(images, tiny_images()[:3])
    assert all(parameter.grad is None for parameter in colors.network.parameters())
    assert torch.equal(counterfactuals.images, images)
    assert (counterfactuals.edits["mine/fade"].size == 32 * 32).all()


def test_the_network_is_asked_whatever_a_method_says_of_its_images(colors, monkeypatch):
    def search(self, question):
        says = torch.ones(3, dtype=torch.bool)
        return ek.ImageEdits(images=question.images, success=says, logits=torch.zeros(3, 4))

    counterfactuals = asked(colors, method(search), monkeypatch)

    said = colors.predict(tiny_images()[:3]).argmax(1) == 0
    assert torch.equal(counterfactuals.success, said) and not said.all()
    assert counterfactuals.edits["mine/fade"].logits.shape == (3, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda q: None, "'mine/fade' to return ImageEdits or ScoreEdits; got NoneType"),
        (lambda q: q.images, "'mine/fade' to return ImageEdits or ScoreEdits; got Tensor"),
        (lambda q: ek.ImageEdits(images=[1]), "Images|images by 'mine/fade' as a tensor .* got list"),
        (lambda q: ek.ImageEdits(images=q.images[:1]), r"images by 'mine/fade' as a tensor .* got \(1,"),
        (lambda q: ek.ImageEdits(images=q.images * torch.nan), "Images by 'mine/fade': "),
        (lambda q: ek.ImageEdits(images=q.images + 7), "Images by 'mine/fade': "),
        (lambda q: ek.ImageEdits(images=q.images, descriptions=("a",)), "3 descriptions of mine/fade; got 1"),
        (lambda q: ek.ImageEdits(images=q.images, descriptions=(1, 2, 3)), "a tuple of texts"),
        (lambda q: ek.ImageEdits(images=q.images, unit=None), "unit of mine/fade as a word; got None"),
        (lambda q: ek.ImageEdits(images=q.images, sizes=torch.tensor([-1, 0, 0])), "mine/fade.sizes in 0"),
        (lambda q: ek.ImageEdits(images=q.images, sizes=torch.zeros(2).long()), r"mine/fade.sizes of \(3,\)"),
        (lambda q: ek.ImageEdits(images=q.images, regions=torch.ones(3, 4)), "mine/fade.regions of"),
        (lambda q: ek.ImageEdits(images=q.images, sources=q.images[0]), "mine/fade.sources of"),
        (
            lambda q: ek.ImageEdits(images=q.images, lower_bound=torch.zeros(1).long()),
            "mine/fade.lower_bound",
        ),
        (lambda q: q.score_edits(torch.zeros(3, 2)), r"edited scores as a tensor \(3, 12\); got \(3, 2\)"),
        (lambda q: q.score_edits([1.0]), "edited scores as a tensor .* got list"),
        (lambda q: q.score_edits(q.explanations.scores * torch.nan), "edited scores that are finite"),
        (lambda q: q.score_edits(q.explanations.scores, torch.zeros(1)), "lower_bound as a tensor"),
    ],
)
def test_what_a_method_returns_is_checked_and_named(colors, monkeypatch, given, message):
    with pytest.raises(InputError, match=message):
        asked(colors, method(lambda self, question: given(question)), monkeypatch)


def test_scores_of_a_method_without_a_bound_claim_none(colors, monkeypatch):
    counterfactuals = asked(
        colors, method(lambda self, q: q.score_edits(q.explanations.scores.double() * 1.5)), monkeypatch
    )

    for item in counterfactuals:
        assert "plausible" not in item.sentence() and "needed" not in item.sentence()
        assert item.facts()["edits"][0]["lower_bound"] is None


@pytest.mark.parametrize(
    "broken",
    [
        method(lambda self, q: None, supports=classmethod(lambda cls, explainer: 1 / 0)),
        lambda: None,
        type("Foreign", (), {"supports": lambda explainer: True}),
        ek.CounterfactualMethod,
    ],
)
def test_a_broken_method_is_left_out_with_a_warning_and_the_others_go_on(colors, monkeypatch, broken):
    offer(monkeypatch, broken)

    with pytest.warns(PluginWarning, match="'mine/fade' is left out"):
        assert colors.counterfactual_methods() == ("score-edit", "region-swap", "mine/borrow")
    with pytest.warns(PluginWarning, match="'mine/fade' is left out"):
        assert colors.counterfactual(tiny_images(), method="score-edit").success.any()


@pytest.mark.parametrize("value", [[], "", 3, [None]])
def test_methods_are_given_by_name(colors, value):
    with pytest.raises((InputError, UnknownNameError)):
        colors.counterfactual(tiny_images(), method=value)


def test_distractors_are_a_data_set_or_a_batch(colors):
    with pytest.raises(InputError, match="distractors as a data set or a Batch; got list"):
        colors.counterfactual(tiny_images(), distractors=[tiny_images()])


@pytest.mark.parametrize(
    "result", [None, ({}, None), ([], "units"), ({"a": 3}, "units"), ({3: "t"}, "units")]
)
def test_a_fit_that_fails_changes_nothing(concepts, monkeypatch, result):
    before, units = concepts.learned, concepts.units
    if isinstance(result, tuple):
        result = (
            {k: torch.zeros(1) if v == "t" else v for k, v in result[0].items()} if result[0] else result[0],
            units if result[1] == "units" else result[1],
        )
    monkeypatch.setattr(type(concepts), "learn", lambda self, examples: result)

    with pytest.raises(InputError, match="Expected learn"):
        concepts.fit(tiny_dataset())
    assert concepts.learned is before and concepts.units is units
    with pytest.raises(InputError, match="seed"):
        concepts.fit(tiny_dataset(), seed=2**64)


def test_what_is_learned_meanwhile_does_not_mix_with_what_is_asked(concepts):
    dataset = tiny_dataset()
    expected = concepts.explain_class(dataset)
    names = list(reversed(dataset.classes))
    examples = {
        name: dataset.train.images[dataset.train.labels == dataset.classes.index(name)] for name in names
    }

    def batches():
        for index, batch in enumerate(dataset.batches("train", 24)):
            if index == 1:
                concepts.fit({name: of_class.float() / 255 for name, of_class in examples.items()})
            yield batch

    given = concepts.explain_class(batches())

    assert concepts.units.names == tuple(names) and given.units.names == expected.units.names
    torch.testing.assert_close(given.contributions, expected.contributions)


def test_a_network_that_is_given_to_load_keeps_its_mode(concepts, tmp_path):
    concepts.network.train()
    ek.save(concepts, tmp_path / "concepts")

    ek.load(tmp_path / "concepts", network=concepts.network)

    assert concepts.network.training
    concepts.network.eval()


def test_what_was_learned_is_loaded_beside_a_network_that_states_its_normalization(concepts, tmp_path):
    normalized = ek.explainer(
        "mine/concepts", network=concepts.network, classes=concepts.classes, mean=(0.5,) * 3, std=(0.2,) * 3
    ).network
    learner = ek.explainer("mine/concepts", network=normalized, classes=concepts.classes).fit(tiny_dataset())

    loaded = ek.load(ek.save(learner, tmp_path / "learner"), network=normalized)

    batch = tiny_dataset().test.batch(torch.arange(6))
    one, other = loaded.explain_class([batch]), learner.explain_class([batch])
    assert torch.equal(one.contributions, other.contributions)


def test_edits_of_rows_are_counted_in_columns():
    wines = ek.dataset("wine")
    rows = wines.test.batch(torch.arange(2)).images
    edits = ek.ImageEdits(images=rows, sizes=torch.tensor([1, 0]), unit="column")

    assert edits.describe(0, "a wine") == "With 1 column edited"
    assert edits.describe_failure(0, "a wine") == "No edit that was tried of the row made it a wine."
