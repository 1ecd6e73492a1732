"""Explainers in folders: what is loaded explains the same; what is damaged or foreign is refused."""

import json
import os
import pickle
import sys
import time
from pathlib import Path

import pytest
import torch
from attrs import evolve
from cam_cases import CLASSES, Payload, assert_same_explanations, drawn, make_cam, make_images

import explainkit as ek
from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.errors import FormatError, NotFittedError
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.units import UnitPicture
from explainkit.testing import tiny_dataset
from explainkit_cam.explainer import CAM
from explainkit_cam.model import CAMNetwork


@pytest.fixture
def saved(tmp_path):
    return ek.save(make_cam(epochs=3), tmp_path / "model")


def test_a_loaded_explainer_explains_the_same(saved):
    explainer = make_cam(epochs=3)

    loaded = ek.load(saved)

    before, after = explainer.explain(make_images()), loaded.explain(make_images())
    assert_same_explanations(before, after)
    assert torch.equal(before.saliency(), after.saliency())
    assert loaded.settings() == explainer.settings() and loaded.settings()["epochs"] == 3
    assert loaded.classes == CLASSES and loaded.size == (16, 16) and not loaded.bound
    assert after.provenance.model_digest == before.provenance.model_digest and after.provenance.seed == 0
    assert not loaded.network.training


def test_loading_leaves_random_state_alone(saved):
    torch.manual_seed(1)
    state = torch.get_rng_state()

    ek.load(saved)

    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_saved_twice_has_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        ek.save(make_cam(), tmp_path / name)

    for part in ("explainer.json", "network.safetensors"):
        assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "two" / part).read_bytes()


def test_units_are_saved_with_all_their_fields(tmp_path):
    explainer = make_cam()
    picture = UnitPicture(
        id=3,
        split="train",
        label=1,
        cell=(0, 1),
        box=(0, 0, 8, 8),
        image=torch.randint(0, 256, (3, 16, 16)).byte(),
    )
    bare = UnitPicture(kind="least", id=4, label=0, box=(8, 8, 16, 16))
    explainer.units = evolve(
        explainer.units,
        group=torch.arange(32) % 2,
        reference=drawn(32),
        score_range=drawn(2, 3, 32).sort(0).values,
        phrases=("red crest", *[None] * 31),
        pictures=((picture, bare), *[()] * 31),
        parent=torch.arange(32) % 3,
        parents=("head", "body", "tail"),
        class_affinity=drawn(32, 3),
        phrasing=ek.Phrasing(measure="share", coverage=0.8, noun="part"),
    )

    units = ek.load(ek.save(explainer, tmp_path / "model")).units

    for name in ("group", "reference", "score_range", "parent", "class_affinity"):
        assert torch.equal(getattr(units, name), getattr(explainer.units, name))
    assert units.phrases == explainer.units.phrases and units.names == explainer.units.names
    assert units.parents == ("head", "body", "tail") and units.phrasing == explainer.units.phrasing
    first, second = units.pictures[0]
    assert (first.kind, second.kind, second.cell) == ("training", "least", None)
    assert (first.id, first.split, first.label, first.cell, first.box) == (
        3,
        "train",
        1,
        (0, 1),
        (0, 0, 8, 8),
    )
    assert torch.equal(first.image, picture.image) and second.image is None and units.pictures[5] == ()


def test_what_is_not_fitted_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError, match="fit"):
        ek.save(CAM(), tmp_path / "model")

    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_the_old(saved):
    ek.save(make_cam(seed=5), saved)

    assert_same_explanations(ek.load(saved).explain(make_images()), make_cam(seed=5).explain(make_images()))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()

    ek.load(ek.save(make_cam(), tmp_path / "model"))


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(ek.InputError, match="something else"):
        ek.save(make_cam(), tmp_path)

    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "model").write_text("mine")

    with pytest.raises(ek.InputError, match="something else"):
        ek.save(make_cam(), tmp_path / "model")

    assert (tmp_path / "model").read_text() == "mine"


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failing_write_leaves_the_old_folder(saved, monkeypatch, fails_at):
    targets, replace = [], os.replace

    def failing(source, target):
        targets.append(target)
        if len(targets) == fails_at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ek.InputError, match="No space left"):
        ek.save(make_cam(seed=5), saved)

    assert_same_explanations(ek.load(saved).explain(make_images()), make_cam().explain(make_images()))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_disk_that_fills_up_leaves_the_old_folder(saved, monkeypatch):
    def failing(self, *_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", failing)
        with pytest.raises(ek.InputError, match="No space left"):
            ek.save(make_cam(seed=5), saved)

    assert_same_explanations(ek.load(saved).explain(make_images()), make_cam().explain(make_images()))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ek.InputError, match="Expected a folder that can be written"):
        ek.save(make_cam(), tmp_path / "file" / "model")


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(ek.InputError, match="No such file"):
        ek.load(tmp_path / "nothing")


def rewrite_description(folder, **changes):
    """Change facts of the description in `folder`."""
    path = folder / "explainer.json"
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "text",
    ["", "{", "not json", "[]", "null", "3", '"text"', "{}", "[" * 200_000, "9" * 10_000, "\ufeff{}"],
    ids=range(11),
)
def test_a_folder_with_a_foreign_description_is_refused_quickly(saved, text):
    (saved / "explainer.json").write_text(text)
    started = time.perf_counter()

    with pytest.raises(FormatError):
        ek.load(saved)

    assert time.perf_counter() - started < 5


def test_a_description_that_is_not_text_is_refused(saved):
    (saved / "explainer.json").write_bytes(b"\xff\xfe\x00\x80" * 9)

    with pytest.raises(FormatError, match="damaged"):
        ek.load(saved)


def test_a_folder_of_another_schema_names_both(saved):
    rewrite_description(saved, schema="explainkit.explainer/1.0")

    with pytest.raises(FormatError, match=r"schema 1\.0; .* reads 2\.x"):
        ek.load(saved)


def test_a_higher_minor_number_only_adds(saved):
    rewrite_description(saved, schema="explainkit.explainer/2.9", moods=["new"])

    assert_same_explanations(ek.load(saved).explain(make_images()), make_cam().explain(make_images()))


def test_explanations_are_not_taken_for_an_explainer(saved):
    rewrite_description(saved, schema="explainkit.explanations/2.0")

    with pytest.raises(FormatError, match=r"Expected explainkit\.explainer"):
        ek.load(saved)


@pytest.mark.parametrize("index", [3, 200, -1])
def test_weights_that_differ_by_one_bit_are_refused(saved, index):
    path = saved / "network.safetensors"
    content = bytearray(path.read_bytes())
    content[index] ^= 1
    path.write_bytes(content)

    with pytest.raises(FormatError, match="SHA-256 differs"):
        ek.load(saved)


@pytest.mark.parametrize(
    "missing", ["explainer", "settings", "classes", "input", "units", "digest", "bound", "schema"]
)
def test_a_description_that_lacks_something_is_refused(saved, missing):
    path = saved / "explainer.json"
    facts = json.loads(path.read_text())
    del facts[missing]
    path.write_text(json.dumps(facts))

    with pytest.raises(FormatError):
        ek.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": ["a"]},
        {"settings": {"network": 3}},
        {"settings": {"classes": ["a"]}},
        {"settings": {"backbone": 3}},
        {"settings": {"backbone": ["tiny"]}},
        {"settings": {"backbone": "small"}},
        {"classes": 3},
        {"classes": ["a", "b"]},
        {"classes": [1, 2, 3]},
        {"input": 3},
        {"input": {"size": ["a", "b"]}},
        {"input": {"depth": 3}},
        {"input": {"mean": [0.5]}},
        {"input": {"channels": True}},
        {"units": None},
        {"units": {"kind": "filter"}},
        {"units": []},
        {"explainer": 3},
        {"explainer": ["cam"]},
        {"explainer": None},
        {"digest": None},
        {"bound": "yes"},
    ],
    ids=str,
)
def test_a_description_with_the_wrong_kind_of_value_is_refused(saved, changes):
    rewrite_description(saved, **changes)

    with pytest.raises(FormatError):
        ek.load(saved)


@pytest.mark.parametrize(
    "name", ["os:system", "trap:Trap", "builtins.eval", "explainkit_cam.explainer:CAM", "../cam", "camm"]
)
def test_no_name_in_a_file_is_imported(saved, tmp_path, monkeypatch, name):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    rewrite_description(
        saved, explainer=name, **{"class": "trap:Trap", "module": "trap", "py/object": "trap.Trap"}
    )

    with pytest.raises(ek.ExplainKitError):
        ek.load(saved)

    assert "trap" not in sys.modules and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("part", ["explainer.json", "network.safetensors"])
def test_nothing_is_unpickled(saved, tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    (saved / part).write_bytes(pickle.dumps(Payload()))
    if part == "network.safetensors":
        import hashlib

        rewrite_description(saved, digest=hashlib.sha256((saved / part).read_bytes()).hexdigest())

    with pytest.raises(FormatError):
        ek.load(saved)

    assert not (tmp_path / "sprung").exists()


def test_only_what_has_learned_can_be_saved(tmp_path):
    class Guess(ek.PostHocExplainer):
        card = ek.Card(title="Guess", citation="made for tests", additivity="none", unit_kind="pixels")

        def explain_batch(self, images, targets, foils):
            raise NotImplementedError

    with pytest.raises(ek.InputError, match="Guess has learned nothing"):
        ek.save(Guess.from_network(CAMNetwork(ek.backbone("tiny"), 3)), tmp_path / "model")


def test_a_bound_explainer_asks_for_its_network(tmp_path):
    torch.manual_seed(0)
    network = CAMNetwork(ek.backbone("tiny"), 3).eval()
    explainer = ek.explainer("cam", network=network, classes=CLASSES, size=(16, 16), backbone="tiny")
    folder = ek.save(explainer, tmp_path / "model")

    with pytest.raises(ek.InputError, match="network="):
        ek.load(folder)
    loaded = ek.load(folder, network=CAMNetwork(ek.backbone("tiny"), 3))

    assert_same_explanations(loaded.explain(make_images()), explainer.explain(make_images()))
    assert loaded.classes == CLASSES and loaded.bound


def test_a_network_of_another_form_does_not_fit(tmp_path):
    network = CAMNetwork(ek.backbone("tiny"), 3)
    folder = ek.save(ek.explainer("cam", network=network, size=(16, 16)), tmp_path / "model")

    with pytest.raises(FormatError, match="does not fit"):
        ek.load(folder, network=CAMNetwork(ek.backbone("small"), 3))


def test_an_interpretable_explainer_is_what_is_loaded(saved):
    assert isinstance(ek.load(saved), InterpretableExplainer)


def test_how_training_images_were_changed_is_on_record_and_saved(tmp_path):
    dataset = evolve(tiny_dataset(), augment=FlipShiftBrightness())
    model = ek.explainer("cam", preset="tiny", epochs=1).fit(dataset, device="cpu", progress=False)
    plain = ek.explainer("cam", preset="tiny", epochs=1).fit(tiny_dataset(), device="cpu", progress=False)
    explanations = ek.load(ek.save(model, tmp_path / "model")).explain(
        tiny_dataset().test.batch(torch.arange(2))
    )
    loaded = ek.Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert list(loaded.provenance.augment) == ["all"]
    assert "FlipShiftBrightness" in loaded.provenance.augment["all"]
    assert plain.provenance().augment == {}
