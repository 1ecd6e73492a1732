"""Explanations go to other processes, and come back as they were."""

import copy
import json
import multiprocessing
import pickle
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve
from cam_cases import make_cam, make_images
from PIL import Image

import explainkit as ek
from explainkit.errors import ConformanceError, InputError
from explainkit.explainers.state import state_digest
from explainkit.testing import architectures, fitted_example, tiny_dataset, tiny_images
from explainkit.testing.image_checks import check_pickles


def the_same(one, other):
    assert torch.equal(one.contributions, other.contributions)
    assert torch.equal(one.saliency(), other.saliency())
    assert [item.sentence() for item in one] == [item.sentence() for item in other]
    assert one.provenance.model_digest == other.provenance.model_digest


@pytest.mark.parametrize("name", architectures())
def test_contrasts_and_counterfactuals_are_made_of_what_was_pickled(name):
    explanations = fitted_example(name).explain(tiny_images())
    again = pickle.loads(pickle.dumps(explanations))

    the_same(again.contrast(0), explanations.contrast(0))


def _explain(model):
    torch.set_num_threads(1)
    return model.explain(make_images())


def test_models_go_to_other_processes_and_explanations_come_back():
    model = make_cam()

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        explanations = pool.apply(_explain, (model,))

    the_same(explanations, _explain(model))


def test_the_conformance_kit_finds_weights_that_do_not_pickle():
    model = fitted_example("senn")
    explanations = model.explain(tiny_images())
    weights = explanations.decomposition.weights
    local = evolve(explanations.decomposition, weights=lambda rows, targets: weights(rows, targets))
    broken = SimpleNamespace(explain=lambda images: evolve(explanations, decomposition=local))

    check_pickles(model, tiny_images())
    with pytest.raises(ConformanceError, match="classes of a module"):
        check_pickles(broken, tiny_images())


def test_a_pickle_holds_the_digest_and_not_the_network():
    model = make_cam()
    explanations = model.explain(make_images())
    content = pickle.dumps(explanations.provenance)

    assert len(content) < 5000 and b"CAMNetwork" not in content
    assert copy.deepcopy(explanations.provenance).model_digest == explanations.provenance.model_digest


def test_the_digest_is_computed_once_until_something_changes(monkeypatch):
    network, calls = make_cam().network, []
    digest = state_digest(network)
    monkeypatch.setattr(
        "explainkit.explainers.state.tensors_digest", lambda state: calls.append(len(state)) or "another"
    )

    assert state_digest(network) == digest and not calls
    with torch.no_grad():
        network.head.weight[0, 0] += 1
    assert state_digest(network) == "another"
    network.head.bias.data[0] += 1  # which leaves the version as it was
    state_digest(network)
    network.load_state_dict(make_cam(seed=1).network.state_dict())
    state_digest(network)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["cam", "protopnet", "ra-cnn", "senn", "captum/occlusion"])
@pytest.mark.parametrize("maps", [0, 1, 2, 10_000, None])
def test_maps_are_dropped_batch_by_batch_and_sums_and_saliency_stay(name, maps):
    model = fitted_example(name)
    whole = model.explain(tiny_images(), batch_size=4)

    fewer = model.explain(tiny_images(), maps=maps, batch_size=4)

    assert torch.equal(fewer.contributions, whole.contributions)
    assert [item.sentence() for item in fewer] == [item.sentence() for item in whole]
    if whole.maps is None or maps is None:
        assert fewer.maps is None and not fewer.saliency().any()
        assert fewer.decomposition is None or fewer.decomposition.maps is None
        return
    assert fewer.maps.shape[1] == min(maps, whole.maps.shape[1])
    torch.testing.assert_close(fewer.saliency(), whole.saliency(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(fewer.nonspatial, whole.nonspatial, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fewer.keep_maps(1).saliency(), whole.saliency(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("maps", [-1, 1.5, "some", True])
def test_maps_are_all_some_or_none(maps):
    with pytest.raises(InputError, match="maps as 'all'"):
        make_cam().explain(make_images(), maps=maps)


def test_explanations_know_what_their_images_are_called(tmp_path):
    model, dataset = fitted_example("cam"), tiny_dataset()
    batch = dataset.test.batch(torch.tensor([5, 2, 9]))
    files = []
    for index, image in enumerate(batch.images):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")).save(files[-1])

    explanations = model.explain(batch, batch_size=2)

    assert explanations.ids == (5, 2, 9) and explanations[[2, 0]].ids == (9, 5)
    assert model.explain(files).ids == tuple(map(str, files))
    assert model.explain(batch.images).ids is None
    assert model.explain(batch, [["square 0", "square 1"], [], [2]]).ids == (5, 5, 9)
    loaded = ek.Explanations.load(explanations.save(tmp_path / "saved"))
    assert loaded.ids == explanations.ids
    for name in ("captum/saliency", "captum/lime"):
        assert fitted_example(name).explain(batch).ids == (5, 2, 9)


def test_a_stream_gives_the_explanations_of_each_batch_in_order():
    model, dataset = fitted_example("cam"), tiny_dataset()

    parts = list(model.explain_stream(dataset.batches("test", 10), maps=1))

    assert [len(part) for part in parts] == [10, 10, 4]
    assert [name for part in parts for name in part.ids] == list(range(24))
    whole = model.explain(dataset.test.batch(torch.arange(24)))
    torch.testing.assert_close(torch.cat([part.contributions for part in parts]), whole.contributions)
    assert len(list(model.explain_stream(dataset, batch_size=24))) == 1
    lists = model.explain_stream([dataset.test.batch(torch.arange(3)).images, whole.images[:2]])
    assert [len(part) for part in lists] == [3, 2]
    for wrong in (whole.images, "a.png", 3):
        with pytest.raises(InputError, match="call explain"):
            next(model.explain_stream(wrong))


def test_a_stream_takes_memory_for_one_batch():
    model = fitted_example("cam")
    gone = []

    def batches():
        for _ in range(6):
            images = torch.rand(4, 3, 32, 32)
            weakref.finalize(images, gone.append, True)
            yield images
            del images

    for count, part in enumerate(model.explain_stream(batches())):
        assert len(part) == 4 and len(gone) >= count - 1


def test_parts_of_a_stream_are_put_together(tmp_path):
    model, dataset = fitted_example("ra-cnn"), tiny_dataset()
    whole = model.explain(dataset.test.batch(torch.arange(24)))

    together = ek.Explanations.concat(model.explain_stream(dataset.batches("test", 10)))

    torch.testing.assert_close(together.contributions, whole.contributions, rtol=1e-4, atol=1e-5)
    assert together.ids == whole.ids and together.image_index is None
    the_same(
        ek.Explanations.load(together.save(tmp_path / "file", maps=None)).contrast(1), together.contrast(1)
    )
    several = [model.explain(dataset.test.batch(torch.arange(2)), [[0, 1], [2]]) for _ in range(2)]
    assert ek.Explanations.concat(several).image_index.tolist() == [0, 0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda model, images: [], "at least one"),
        (lambda model, images: [model.explain(images), fitted_example("senn").explain(images)], "explainer"),
        (lambda model, images: [model.explain(images), model.explain(images, foils=0)], "contrast"),
        (lambda model, images: [model.explain(images), model.explain(images, maps=2)], "maps"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(parts, message):
    with pytest.raises(InputError, match=message):
        ek.Explanations.concat(parts(fitted_example("cam"), tiny_images()))


WITHOUT_PLUGINS = """
import importlib.metadata, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("explainkit_"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
importlib.metadata.entry_points = lambda **_: ()
import explainkit as ek
explanations = ek.Explanations.load(sys.argv[1])
text = ek.Explanations.from_json(open(sys.argv[2]).read())
assert not [name for name in sys.modules if name.startswith("explainkit_")]
print(json.dumps([[item.sentence() for item in each] for each in (explanations, text)]))
"""


@pytest.mark.parametrize("name", ["ccnn", "protopnet", "senn"])
def test_a_stored_explanation_reads_the_same_where_no_plugin_is_installed(name, tmp_path):
    explanations = fitted_example(name).explain(tiny_images())
    file = explanations.save(tmp_path / "explanations.safetensors")
    text = tmp_path / "explanations.json"
    text.write_text(explanations.to_json(), encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_PLUGINS, str(file), str(text)], capture_output=True, text=True
    )

    assert ran.returncode == 0, ran.stderr
    sentences = [item.sentence() for item in explanations]
    assert json.loads(ran.stdout) == [sentences, sentences]
