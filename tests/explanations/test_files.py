"""Explanations in files: what is loaded is what was saved, whole or not at all."""

import json
import os
import pickle
import time

import pytest
import torch
from attrs import evolve
from cam_cases import Payload, assert_same_explanations, drawn, make_cam, make_images, sum_tolerance
from explanation_cases import make_explanations, make_units
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

import explainkit as ek
from explainkit.errors import FormatError
from explainkit.explanations.batch import Explanations
from explainkit.explanations.decomposition import Decomposition


@pytest.fixture
def file(tmp_path):
    return make_cam().explain(make_images()).save(tmp_path / "explanations.safetensors")


@pytest.mark.parametrize("maps", [None, 0, 1, 5, 32, 99])
def test_loaded_explanations_are_the_same(tmp_path, maps):
    explanations = make_cam().explain(make_images())

    loaded = Explanations.load(
        explanations.save(tmp_path / "explanations.safetensors", maps=maps, dtype=torch.float32)
    )

    assert_same_explanations(loaded, explanations)
    assert (
        loaded.classes == explanations.classes
        and loaded.additivity == explanations.additivity
        and repr(loaded) == repr(explanations)
    )
    assert loaded.provenance.model_digest == explanations.provenance.model_digest
    for size in (None, (8, 8), (5, 7)):
        torch.testing.assert_close(loaded.saliency(size), explanations.saliency(size), atol=1e-5, rtol=1e-4)
    assert loaded[1].sentence() == explanations[1].sentence()


def test_half_precision_maps_keep_every_sum(tmp_path):
    explanations = make_cam().explain(make_images())

    loaded = Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert_same_explanations(loaded, explanations)
    torch.testing.assert_close(
        loaded.saliency().sum((1, 2)),
        explanations.saliency().sum((1, 2)),
        atol=sum_tolerance(explanations),
        rtol=0,
    )
    torch.testing.assert_close(
        loaded.saliency(),
        explanations.saliency(),
        atol=2e-3 * float(explanations.saliency().abs().max()),
        rtol=0,
    )
    assert loaded.maps.shape[1] == 10 and loaded.map_units.shape == (4, 10)


def make_max_pooled(maps, **fields):
    """Explanations of one image whose units are pooled by the maximum."""
    count = maps.shape[1]
    scores = maps.flatten(2).amax(2)
    weights = torch.linspace(1, 2, count)[None]
    return Explanations(
        logits=torch.stack([(scores * weights).sum(1), torch.zeros(1)], 1),
        targets=torch.tensor([0]),
        base=torch.zeros(1),
        scores=scores,
        weights=weights,
        maps=maps,
        units=ek.Units(kind="prototype", names=[f"p{k}" for k in range(count)], pooling="max", **fields),
        classes=("a", "b"),
        images=torch.zeros(1, 3, 8, 8),
        additivity="exact",
        provenance=ek.Provenance(explainer="made", created=""),
    )


def test_a_saved_maximum_stays_at_its_cell(tmp_path):
    maps = torch.full((1, 1, 4, 4), 0.99999)
    maps[0, 0, 2, 1] = 1.0
    explanations = make_max_pooled(maps)

    loaded = Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert torch.equal(loaded.saliency((4, 4)), explanations.saliency((4, 4)))


@pytest.mark.parametrize("maps", [0, 2, None])
def test_maps_in_boxes_keep_their_saliency(tmp_path, maps):
    explanations = make_max_pooled(drawn(1, 6, 4, 4), group=torch.tensor([0, 1, 0, 1, 0, 1]))
    boxes = torch.tensor([[[0.0, 0, 8, 8], [2, 2, 6, 7]]])
    explanations = evolve(explanations, boxes=boxes, units=evolve(explanations.units, pooling="mean"))

    loaded = Explanations.load(
        explanations.save(tmp_path / "explanations.safetensors", maps=maps, dtype=torch.float32)
    )

    torch.testing.assert_close(loaded.saliency(), explanations.saliency(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        loaded.nonspatial, explanations.nonspatial, atol=sum_tolerance(explanations), rtol=0
    )


def test_saved_units_without_a_place_stay_nonspatial(tmp_path):
    maps = drawn(1, 6, 4, 4)
    maps[:, ::2] = 0
    explanations = evolve(make_max_pooled(maps), scores=torch.ones(1, 6), logits=torch.zeros(1, 2))

    loaded = Explanations.load(explanations.save(tmp_path / "explanations.safetensors", maps=2))

    torch.testing.assert_close(loaded.nonspatial, explanations.nonspatial, atol=1e-4, rtol=0)


def test_loaded_explanations_can_be_contrasted(tmp_path):
    explanations = make_cam().explain(make_images())

    loaded = Explanations.load(
        explanations.save(tmp_path / "explanations.safetensors", maps=None, dtype=torch.float32)
    )

    assert_same_explanations(loaded.contrast("wren").check_additivity(), explanations.contrast("wren"))
    torch.testing.assert_close(loaded.contrast("wren").saliency(), explanations.contrast("wren").saliency())


def test_a_contrast_of_the_strongest_maps_still_adds_up(file):
    contrast = Explanations.load(file).contrast("wren").check_additivity()

    spatial = contrast.explained_output - contrast.base - contrast.residual - contrast.nonspatial
    torch.testing.assert_close(contrast.saliency().sum((1, 2)), spatial, atol=sum_tolerance(contrast), rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("callable_weights", [False, True])
def test_a_contrast_of_loaded_explanations_has_no_remainder_map(tmp_path, pooling, callable_weights):
    """The remainder was distributed with the weights of the target alone: kept.

    It would falsify the saliency.
    """
    reference = drawn(5, seed=9).double()
    explanations = make_explanations(
        reference=reference, callable_weights=callable_weights,
        units=make_units(reference=reference, pooling=pooling),
    )  # fmt: skip
    path = explanations.save(tmp_path / "explanations.safetensors", maps=2, dtype=torch.float64)
    foils = (explanations.targets + 1) % 3

    loaded = Explanations.load(path)
    contrast = loaded.contrast(foils)

    assert loaded.remainder_map is not None and contrast.remainder_map is None
    decomposition = explanations.decomposition
    weights = decomposition.weights_for(explanations.targets) - decomposition.weights_for(foils)
    contributions = weights * (explanations.scores - reference)
    torch.testing.assert_close(contrast.check_additivity().contributions, contributions)
    expected = torch.zeros(4, 4, 4).double()
    for n in range(4):
        for unit in sorted(range(5), key=lambda unit: -abs(explanations.contributions[n, unit]))[:2]:
            map = explanations.maps[n, unit]
            share = map / map.sum() if pooling == "mean" else (map == map.max()).double()
            expected[n] += contributions[n, unit] * share
    torch.testing.assert_close(contrast.saliency((4, 4)), expected)
    torch.testing.assert_close(contrast.nonspatial, contributions.sum(1) - expected.sum((1, 2)))


def test_a_contrast_of_loaded_maps_in_boxes_has_no_remainder_map(tmp_path):
    group = torch.tensor([0, 1, 0, 1, 1])
    boxes = torch.tensor([[0.0, 0, 16, 16], [4, 8, 12, 16]], dtype=torch.float64).expand(4, 2, 4)
    explanations = make_explanations(boxes=boxes, units=make_units(group=group))
    path = explanations.save(tmp_path / "explanations.safetensors", maps=2, dtype=torch.float64)

    loaded = Explanations.load(path)
    contrast = loaded.contrast("wren").check_additivity()

    assert loaded.remainder_map is not None and contrast.remainder_map is None
    complete = explanations.contrast("wren")
    is_mapped = torch.zeros(4, 5).double().scatter(1, loaded.map_units, 1)
    of_mapped_units = evolve(complete, weights=complete.weights * is_mapped)
    torch.testing.assert_close(contrast.saliency(), of_mapped_units.saliency())
    torch.testing.assert_close(contrast.nonspatial, (complete.contributions * (1 - is_mapped)).sum(1))


def test_a_saved_contrast_stays_one(tmp_path):
    explanations = make_cam().explain(make_images(), foils="wren")

    loaded = Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert_same_explanations(loaded.check_additivity(), explanations)
    assert loaded[0].foil_name == "wren"


def test_loaded_explanations_can_be_saved_again(file, tmp_path):
    loaded = Explanations.load(file)

    again = Explanations.load(loaded.save(tmp_path / "again.safetensors"))

    assert_same_explanations(again, loaded)
    torch.testing.assert_close(again.saliency(), loaded.saliency())


@pytest.mark.parametrize("has_room", [True, False])
def test_weights_that_depend_on_the_image_are_kept_where_there_is_room(tmp_path, monkeypatch, has_room):
    explanations = make_cam().explain(make_images())
    table = explanations.decomposition.weights
    decomposition = evolve(explanations.decomposition, weights=lambda rows, targets: table[targets])
    explanations = evolve(explanations, decomposition=decomposition)
    monkeypatch.setattr("explainkit.explanations.files.LARGEST_WEIGHTS", 10**6 if has_room else 0)

    loaded = Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert_same_explanations(loaded, explanations)
    if has_room:
        assert torch.equal(loaded.contrast(0).contributions, explanations.contrast(0).contributions)
    else:
        assert loaded.decomposition is None


def test_images_that_are_no_bytes_are_kept_unchanged(tmp_path):
    explanations = make_cam().explain(drawn(2, 3, 16, 16))

    assert torch.equal(
        Explanations.load(explanations.save(tmp_path / "explanations.safetensors")).images,
        explanations.images,
    )


def test_double_precision_is_kept(tmp_path):
    explainer = make_cam()
    explainer.network.double()
    explanations = explainer.explain(make_images())

    loaded = Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert_same_explanations(loaded, explanations)
    assert loaded.maps.dtype is torch.float64


def test_a_failing_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def failing(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ek.InputError, match="No space left"):
        make_cam(seed=3).explain(make_images()).save(file)

    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("path", ["file/explanations.safetensors", "."])
def test_a_path_that_cannot_be_written_says_so(tmp_path, path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ek.InputError, match="Expected a path that can be written"):
        make_cam().explain(make_images()).save(tmp_path / path)


def test_what_is_no_file_is_left_alone_and_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "real" / "explanations.safetensors")

    make_cam().explain(make_images()).save(tmp_path / "link.safetensors")

    assert (tmp_path / "link.safetensors").is_symlink()
    assert (tmp_path / "real" / "explanations.safetensors").is_file()
    with pytest.raises(ek.InputError, match="no file"):
        make_cam().explain(make_images()).save("/dev/zero")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ek.InputError, match="No such file"):
        Explanations.load(tmp_path / "nothing.safetensors")


def test_diagnostics_come_back_from_files(tmp_path):
    explanations = make_explanations(diagnostics={"confidence": torch.arange(4.0).double()})

    loaded = Explanations.load(explanations.save(tmp_path / "explanations.safetensors"))

    assert loaded.diagnostics["confidence"].tolist() == [0.0, 1.0, 2.0, 3.0]


def with_header(length, text):
    return length.to_bytes(8, "little") + text


DAMAGED = {
    "empty": lambda content: b"",
    "seven bytes": lambda content: content[:7],
    "cut in the header": lambda content: content[:100],
    "cut in the values": lambda content: content[:-10],
    "longer": lambda content: content + b"\0" * 10,
    "an endless header": lambda content: with_header(2**63, content[8:]),
    "a header over the file": lambda content: with_header(len(content), content[8:]),
    "an empty header": lambda content: with_header(0, b""),
    "a header that is a list": lambda content: with_header(2, b"[]"),
    "a deep header": lambda content: with_header(400_000, b"[" * 400_000),
    "a deep header inside": lambda content: to_bytes(
        from_bytes(content), metadata={"explainkit": "[" * 200_000}
    ),
    "a pickle": lambda content: pickle.dumps(Payload()),
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

    with pytest.raises(FormatError, match=r"explanations\.safetensors"):
        Explanations.load(file)

    assert time.perf_counter() - started < 5 and not (tmp_path / "sprung").exists()


def test_a_file_of_another_schema_names_both(file, monkeypatch):
    monkeypatch.setattr("explainkit.explanations.files.SCHEMA", "1.0")
    make_cam().explain(make_images()).save(file)
    monkeypatch.undo()

    with pytest.raises(FormatError, match=r"schema 1\.0; .* reads 2\.x"):
        Explanations.load(file)


def test_the_file_holds_one_key_and_tensors_alone(file):
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    assert list(header["__metadata__"]) == ["explainkit"]
    facts = json.loads(header["__metadata__"]["explainkit"])
    assert facts["schema"] == "explainkit.explanations/2.0" and facts["provenance"]["explainer"] == "cam"
    assert isinstance(Explanations.load(file).decomposition, Decomposition)
