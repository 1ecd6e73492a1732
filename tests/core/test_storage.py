import json
import os
import pickle
import sys
import time
from pathlib import Path

import pytest
import torch
from attrs import evolve
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

import explainkit as ek
from explainkit.decomposition import Decomposition
from explainkit.errors import FormatError, NotFittedError
from explainkit.explanation import Exemplar
from explainkit.interfaces import InterpretableExplainer
from explainkit_cam.explainer import CAM
from explainkit_cam.model import CAMNetwork

CLASSES = ("cardinal", "jay", "wren")


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def cam(seed=0, **settings):
    """An explainer as `fit` leaves it, without the cost."""
    torch.manual_seed(seed)
    explainer = CAM(backbone="tiny", **settings)
    explainer._seed = seed
    return explainer._adopt(explainer._built(ek.Task(classes=3)).eval(), CLASSES, (16, 16))


def images(count=4):
    return drawn(count, 3, 16, 16).mul(255).round() / 255


def same(one, other):
    for name in ("logits", "targets", "base", "scores", "weights", "contributions", "residual", "images"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    torch.testing.assert_close(one.unplaced, other.unplaced, atol=1e-6, rtol=0)


@pytest.fixture
def saved(tmp_path):
    return ek.save(cam(epochs=3), tmp_path / "model")


@pytest.fixture
def file(tmp_path):
    return cam().explain(images()).save(tmp_path / "told.safetensors")


# explainers


def test_a_loaded_explainer_says_the_same(saved):
    explainer = cam(epochs=3)

    loaded = ek.load(saved)

    before, after = explainer.explain(images()), loaded.explain(images())
    same(before, after)
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
        ek.save(cam(), tmp_path / name)

    for part in ("explainer.json", "network.safetensors"):
        assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "two" / part).read_bytes()


def test_units_are_saved_with_all_that_is_known_of_them(tmp_path):
    explainer = cam()
    exemplar = Exemplar(
        id=3,
        split="train",
        label=1,
        cell=(0, 1),
        box=(0, 0, 8, 8),
        image=torch.randint(0, 256, (3, 16, 16)).byte(),
    )
    bare = Exemplar(id=4, split="train", label=0, cell=(1, 1), box=(8, 8, 16, 16))
    explainer.units = evolve(
        explainer.units,
        group=torch.arange(32) % 2,
        reference=drawn(32),
        range=drawn(2, 3, 32),
        phrases=("red crest", *[None] * 31),
        exemplars=((exemplar, bare), *[()] * 31),
    )

    units = ek.load(ek.save(explainer, tmp_path / "model")).units

    for name in ("group", "reference", "range"):
        assert torch.equal(getattr(units, name), getattr(explainer.units, name))
    assert units.phrases == explainer.units.phrases and units.names == explainer.units.names
    first, second = units.exemplars[0]
    assert (first.id, first.split, first.label, first.cell, first.box) == (
        3,
        "train",
        1,
        (0, 1),
        (0, 0, 8, 8),
    )
    assert torch.equal(first.image, exemplar.image) and second.image is None and units.exemplars[5] == ()


def test_what_is_not_fitted_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError, match="fit"):
        ek.save(CAM(), tmp_path / "model")

    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_the_old(saved):
    ek.save(cam(seed=5), saved)

    same(ek.load(saved).explain(images()), cam(seed=5).explain(images()))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()

    ek.load(ek.save(cam(), tmp_path / "model"))


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(ek.InputError, match="something else"):
        ek.save(cam(), tmp_path)

    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "model").write_text("mine")

    with pytest.raises(ek.InputError, match="something else"):
        ek.save(cam(), tmp_path / "model")

    assert (tmp_path / "model").read_text() == "mine"


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_failing_write_leaves_the_old_folder(saved, monkeypatch, fails_at):
    replaced, replace = [], os.replace

    def failing(source, target):
        replaced.append(target)
        if len(replaced) == fails_at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ek.InputError, match="No space left"):
        ek.save(cam(seed=5), saved)

    same(ek.load(saved).explain(images()), cam().explain(images()))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_disk_that_fills_up_leaves_the_old_folder(saved, monkeypatch):
    def failing(self, *_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", failing)
        with pytest.raises(ek.InputError, match="No space left"):
            ek.save(cam(seed=5), saved)

    same(ek.load(saved).explain(images()), cam().explain(images()))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ek.InputError, match="Expected a folder that can be written"):
        ek.save(cam(), tmp_path / "file" / "model")


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(ek.InputError, match="No such file"):
        ek.load(tmp_path / "nothing")


def rewritten(folder, **changes):
    """`folder` with facts changed; the digest is put right if weights are."""
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
    rewritten(saved, schema="explainkit.explainer/2.0")

    with pytest.raises(FormatError, match=r"schema 2\.0; .* reads 1\.x"):
        ek.load(saved)


def test_a_higher_minor_number_only_adds(saved):
    rewritten(saved, schema="explainkit.explainer/1.9", moods=["new"])

    same(ek.load(saved).explain(images()), cam().explain(images()))


def test_explanations_are_not_taken_for_an_explainer(saved):
    rewritten(saved, schema="explainkit.explanations/1.0")

    with pytest.raises(FormatError, match=r"Expected explainkit\.explainer"):
        ek.load(saved)


@pytest.mark.parametrize("place", [3, 200, -1])
def test_weights_that_differ_by_one_bit_are_refused(saved, place):
    path = saved / "network.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)

    with pytest.raises(FormatError, match="SHA-256 differs"):
        ek.load(saved)


@pytest.mark.parametrize(
    "missing", ["explainer", "settings", "classes", "size", "units", "digest", "bound", "schema"]
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
        {"size": 3},
        {"size": ["a", "b"]},
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
    rewritten(saved, **changes)

    with pytest.raises(FormatError):
        ek.load(saved)


@pytest.mark.parametrize(
    "name", ["os:system", "trap:Trap", "builtins.eval", "explainkit_cam.explainer:CAM", "../cam", "camm"]
)
def test_no_name_in_a_file_is_imported(saved, tmp_path, monkeypatch, name):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    rewritten(saved, explainer=name, **{"class": "trap:Trap", "module": "trap", "py/object": "trap.Trap"})

    with pytest.raises(ek.ExplainKitError):
        ek.load(saved)

    assert "trap" not in sys.modules and not (tmp_path / "sprung").exists()


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize("part", ["explainer.json", "network.safetensors"])
def test_nothing_is_unpickled(saved, tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    (saved / part).write_bytes(pickle.dumps(Bomb()))
    if part == "network.safetensors":
        import hashlib

        rewritten(saved, digest=hashlib.sha256((saved / part).read_bytes()).hexdigest())

    with pytest.raises(FormatError):
        ek.load(saved)

    assert not (tmp_path / "sprung").exists()


def test_only_what_has_learned_can_be_saved(tmp_path):
    class Guess(ek.PostHocExplainer):
        card = ek.Card(title="Guess", citation="", claim="none", speaks="pixels")

        def explain_batch(self, images, targets, against):
            raise NotImplementedError

    with pytest.raises(ek.InputError, match="Guess has learned nothing"):
        ek.save(Guess.bind(CAMNetwork(ek.backbone("tiny"), 3)), tmp_path / "model")


def test_a_bound_explainer_asks_for_its_network(tmp_path):
    torch.manual_seed(0)
    network = CAMNetwork(ek.backbone("tiny"), 3).eval()
    explainer = ek.explainer("cam", network=network, classes=CLASSES, size=(16, 16), backbone="tiny")
    folder = ek.save(explainer, tmp_path / "model")

    with pytest.raises(ek.InputError, match="network="):
        ek.load(folder)
    loaded = ek.load(folder, network=CAMNetwork(ek.backbone("tiny"), 3))

    same(loaded.explain(images()), explainer.explain(images()))
    assert loaded.classes == CLASSES and loaded.bound


def test_a_network_of_another_form_does_not_fit(tmp_path):
    network = CAMNetwork(ek.backbone("tiny"), 3)
    folder = ek.save(ek.explainer("cam", network=network, size=(16, 16)), tmp_path / "model")

    with pytest.raises(FormatError, match="does not fit"):
        ek.load(folder, network=CAMNetwork(ek.backbone("small"), 3))


def test_an_interpretable_explainer_is_what_is_loaded(saved):
    assert isinstance(ek.load(saved), InterpretableExplainer)


# explanations


@pytest.mark.parametrize("maps", [None, 0, 1, 5, 32, 99])
def test_loaded_explanations_say_the_same(tmp_path, maps):
    told = cam().explain(images())

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors", maps=maps, dtype=torch.float32))

    same(loaded, told)
    assert loaded.classes == told.classes and loaded.claim == told.claim and repr(loaded) == repr(told)
    assert loaded.provenance.model_digest == told.provenance.model_digest
    for size in (None, (8, 8), (5, 7)):
        torch.testing.assert_close(loaded.saliency(size), told.saliency(size), atol=1e-5, rtol=1e-4)
    assert loaded[1].sentence() == told[1].sentence()


def test_half_precision_maps_keep_every_sum(tmp_path):
    told = cam().explain(images())

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors"))

    same(loaded, told)
    torch.testing.assert_close(
        loaded.saliency().sum((1, 2)), told.saliency().sum((1, 2)), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        loaded.saliency(), told.saliency(), atol=2e-3 * float(told.saliency().abs().max()), rtol=0
    )
    assert loaded.maps.shape[1] == 10 and loaded.map_units.shape == (4, 10)


def pooled_by_max(maps, **fields):
    """Explanations of one image whose units are pooled by the maximum."""
    count = maps.shape[1]
    scores = maps.flatten(2).amax(2)
    weights = torch.linspace(1, 2, count)[None]
    return ek.Explanations(
        logits=torch.stack([(scores * weights).sum(1), torch.zeros(1)], 1),
        targets=torch.tensor([0]),
        base=torch.zeros(1),
        scores=scores,
        weights=weights,
        maps=maps,
        units=ek.Units(kind="prototype", names=[f"p{k}" for k in range(count)], pooling="max", **fields),
        classes=("a", "b"),
        images=torch.zeros(1, 3, 8, 8),
        claim="exact",
        provenance=ek.Provenance(explainer="made", created=""),
    )


def test_a_saved_maximum_stays_at_its_cell(tmp_path):
    maps = torch.full((1, 1, 4, 4), 0.99999)
    maps[0, 0, 2, 1] = 1.0
    told = pooled_by_max(maps)

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors"))

    assert torch.equal(loaded.saliency((4, 4)), told.saliency((4, 4)))


@pytest.mark.parametrize("maps", [0, 2, None])
def test_maps_in_boxes_keep_their_saliency(tmp_path, maps):
    told = pooled_by_max(drawn(1, 6, 4, 4), group=torch.tensor([0, 1, 0, 1, 0, 1]))
    boxes = torch.tensor([[[0.0, 0, 8, 8], [2, 2, 6, 7]]])
    told = evolve(told, boxes=boxes, units=evolve(told.units, pooling="mean"))

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors", maps=maps, dtype=torch.float32))

    torch.testing.assert_close(loaded.saliency(), told.saliency(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loaded.unplaced, told.unplaced, atol=1e-5, rtol=0)


def test_saved_units_without_a_place_stay_unplaced(tmp_path):
    maps = drawn(1, 6, 4, 4)
    maps[:, ::2] = 0
    told = evolve(pooled_by_max(maps), scores=torch.ones(1, 6), logits=torch.zeros(1, 2))

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors", maps=2))

    torch.testing.assert_close(loaded.unplaced, told.unplaced, atol=1e-4, rtol=0)


def test_what_is_loaded_can_be_contrasted(tmp_path):
    told = cam().explain(images())

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors", maps=None, dtype=torch.float32))

    same(loaded.contrast("wren").check(), told.contrast("wren"))
    torch.testing.assert_close(loaded.contrast("wren").saliency(), told.contrast("wren").saliency())


def test_a_contrast_of_the_strongest_maps_still_adds_up(file):
    contrast = ek.Explanations.load(file).contrast("wren").check()

    placed = contrast.totals - contrast.base - contrast.residual - contrast.unplaced
    torch.testing.assert_close(contrast.saliency().sum((1, 2)), placed, atol=1e-5, rtol=1e-4)


def test_a_saved_contrast_stays_one(tmp_path):
    told = cam().explain(images(), against="wren")

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors"))

    same(loaded.check(), told)
    assert loaded[0].against_name == "wren"


def test_what_is_loaded_can_be_saved_again(file, tmp_path):
    loaded = ek.Explanations.load(file)

    again = ek.Explanations.load(loaded.save(tmp_path / "again.safetensors"))

    same(again, loaded)
    torch.testing.assert_close(again.saliency(), loaded.saliency())


@pytest.mark.parametrize("room", [True, False])
def test_weights_that_depend_on_the_image_are_kept_where_there_is_room(tmp_path, monkeypatch, room):
    told = cam().explain(images())
    parts = told.decomposition
    told = evolve(told, decomposition=evolve(parts, weights=lambda rows, targets: parts.weights[targets]))
    monkeypatch.setattr("explainkit.storage.LARGEST_WEIGHTS", 10**6 if room else 0)

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors"))

    same(loaded, told)
    if room:
        assert torch.equal(loaded.contrast(0).contributions, told.contrast(0).contributions)
    else:
        assert loaded.decomposition is None


def test_images_that_are_no_bytes_are_kept_as_they_are(tmp_path):
    told = cam().explain(drawn(2, 3, 16, 16))

    assert torch.equal(ek.Explanations.load(told.save(tmp_path / "told.safetensors")).images, told.images)


def test_double_precision_is_kept(tmp_path):
    explainer = cam()
    explainer.network.double()
    told = explainer.explain(images())

    loaded = ek.Explanations.load(told.save(tmp_path / "told.safetensors"))

    same(loaded, told)
    assert loaded.maps.dtype is torch.float64


def test_a_failing_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def failing(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ek.InputError, match="No space left"):
        cam(seed=3).explain(images()).save(file)

    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("place", ["file/told.safetensors", "."])
def test_a_path_that_cannot_be_written_says_so(tmp_path, place):
    (tmp_path / "file").write_text("")

    with pytest.raises(ek.InputError, match="Expected a path that can be written"):
        cam().explain(images()).save(tmp_path / place)


def test_what_is_no_file_is_left_alone_and_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "real" / "told.safetensors")

    cam().explain(images()).save(tmp_path / "link.safetensors")

    assert (tmp_path / "link.safetensors").is_symlink()
    assert (tmp_path / "real" / "told.safetensors").is_file()
    with pytest.raises(ek.InputError, match="no file"):
        cam().explain(images()).save("/dev/zero")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ek.InputError, match="No such file"):
        ek.Explanations.load(tmp_path / "nothing.safetensors")


def header(length, text):
    return length.to_bytes(8, "little") + text


DAMAGED = {
    "empty": lambda content: b"",
    "seven bytes": lambda content: content[:7],
    "cut in the header": lambda content: content[:100],
    "cut in the values": lambda content: content[:-10],
    "longer": lambda content: content + b"\0" * 10,
    "an endless header": lambda content: header(2**63, content[8:]),
    "a header over the file": lambda content: header(len(content), content[8:]),
    "an empty header": lambda content: header(0, b""),
    "a header that is a list": lambda content: header(2, b"[]"),
    "a deep header": lambda content: header(400_000, b"[" * 400_000),
    "a deep header inside": lambda content: to_bytes(
        from_bytes(content), metadata={"explainkit": "[" * 200_000}
    ),
    "a pickle": lambda content: pickle.dumps(Bomb()),
    "no key": lambda content: to_bytes(from_bytes(content)),
    "another's key": lambda content: to_bytes(from_bytes(content), metadata={"format": "pt"}),
    "facts that are a list": lambda content: to_bytes(from_bytes(content), metadata={"explainkit": "[]"}),
    "facts that are a number": lambda content: to_bytes(from_bytes(content), metadata={"explainkit": "1"}),
    "a bit of a value": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "a letter of a name": lambda content: content.replace(b"cardinal", b"cardinol", 1),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_file_is_refused_quickly(file, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    file.write_bytes(DAMAGED[how](file.read_bytes()))
    started = time.perf_counter()

    with pytest.raises(FormatError, match=r"told\.safetensors"):
        ek.Explanations.load(file)

    assert time.perf_counter() - started < 5 and not (tmp_path / "sprung").exists()


def test_a_file_of_another_schema_names_both(file, monkeypatch):
    monkeypatch.setattr("explainkit.storage.SCHEMA", "2.0")
    cam().explain(images()).save(file)
    monkeypatch.undo()

    with pytest.raises(FormatError, match=r"schema 2\.0; .* reads 1\.x"):
        ek.Explanations.load(file)


def test_the_file_holds_one_key_and_tensors_alone(file):
    content = file.read_bytes()
    found = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    assert list(found["__metadata__"]) == ["explainkit"]
    facts = json.loads(found["__metadata__"]["explainkit"])
    assert facts["schema"] == "explainkit.explanations/1.0" and facts["provenance"]["explainer"] == "cam"
    assert isinstance(ek.Explanations.load(file).decomposition, Decomposition)
