"""A backbone that one explainer learned is another's to begin with."""

import pytest
import torch

import explainkit as ek
from explainkit.errors import FormatError
from explainkit.testing.examples import tiny_dataset


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A fitted CAM and the folder that it is saved in."""
    cam = ek.explainer("cam", preset="tiny", epochs=1).fit(tiny_dataset(), device="cpu", progress=False)
    folder = tmp_path_factory.mktemp("saved") / "cam"
    ek.save(cam, folder)
    return cam, folder


def test_a_backbone_begins_with_the_weights_of_a_saved_explainer(saved):
    cam, folder = saved
    for path in (folder, str(folder)):
        backbone = ek.backbone("tiny", weights=path)
        expected = cam.network.backbone.state_dict()
        assert backbone.state_dict().keys() == expected.keys()
        for name, value in backbone.state_dict().items():
            assert torch.equal(value, expected[name])


@pytest.mark.parametrize("name", ["protopnet", "ra-cnn"])
def test_another_architecture_trains_on_from_them_and_its_saved_form_needs_them_no_more(
    saved, name, tmp_path
):
    cam, folder = saved
    model = ek.explainer(name, preset="tiny", weights=str(folder))
    network = model.build(ek.Task(classes=tiny_dataset().classes, size=tiny_dataset().size))
    stem = cam.network.backbone.stem[0].weight
    found = [value for key, value in network.state_dict().items() if key.endswith("stem.0.weight")]
    assert found
    assert all(torch.equal(value, stem) for value in found)
    model.fit(tiny_dataset(), device="cpu", progress=False)
    ek.save(model, tmp_path / name)
    folder.rename(folder.with_name("moved"))
    try:
        images = tiny_dataset().test.batch(torch.arange(2)).images
        assert torch.equal(ek.load(tmp_path / name).explain(images).logits, model.explain(images).logits)
    finally:
        folder.with_name("moved").rename(folder)


def test_a_backbone_of_another_form_says_which_form_was_saved(saved):
    with pytest.raises(ek.InputError, match=r"Expected a backbone of the form that .* has, 'tiny' with"):
        ek.backbone("small", weights=saved[1])


def test_an_explainer_without_a_backbone_is_no_source_of_weights(tmp_path):
    ra_cnn = ek.explainer("ra-cnn", preset="tiny").fit(tiny_dataset(), device="cpu", progress=False)
    ek.save(ra_cnn, tmp_path / "ra-cnn")
    with pytest.raises(ek.InputError, match="Expected a saved explainer with one backbone; 'ra-cnn'"):
        ek.backbone("tiny", weights=tmp_path / "ra-cnn")


def test_a_damaged_folder_is_refused(saved, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in saved[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / "network.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "network.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match="is not what was saved"):
        ek.backbone("tiny", weights=folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ek.InputError, match=r"weights of 'tiny' as the folder .* none at .*nothing"):
        ek.backbone("tiny", weights=str(tmp_path / "nothing"))


def test_a_backbone_of_the_same_shapes_and_other_strides_is_refused(tmp_path):
    model = ek.explainer("cam", backbone="small", epochs=1)
    model.fit(tiny_dataset(), device="cpu", progress=False)
    ek.save(model, tmp_path / "small")
    with pytest.raises(ek.InputError, match="Expected a backbone of the form"):
        ek.backbone("small-fine", weights=tmp_path / "small")


def test_a_path_is_a_folder_of_weights_and_the_model_is_saved_with_it(saved, tmp_path):
    model = ek.explainer("cam", preset="tiny", epochs=1, weights=saved[1])
    ek.save(model.fit(tiny_dataset(), device="cpu", progress=False), tmp_path / "cam")
    assert ek.load(tmp_path / "cam").weights == str(saved[1])
