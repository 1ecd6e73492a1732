"""Explanations without images: numbers, words and places are there, and what draws them says what is not."""

import pickle

import pytest
import torch
from attrs import evolve
from cam_cases import make_cam, make_images
from explanation_cases import drawn, make_explanations

import explainkit as ek
from explainkit.errors import InputError
from explainkit.testing import fitted_example, tiny_images


@pytest.fixture
def explanations():
    return make_cam().explain(make_images())


def test_a_file_without_images_has_all_but_them(explanations, tmp_path):
    whole = explanations.save(tmp_path / "whole.safetensors", maps=None, dtype=torch.float32)
    bare = explanations.save(tmp_path / "bare.safetensors", maps=None, dtype=torch.float32, images=False)

    loaded = ek.Explanations.load(bare)

    assert not loaded.has_images and explanations.has_images
    assert loaded.images.shape == explanations.images.shape
    for name in ("logits", "scores", "contributions", "residual", "maps"):
        assert torch.equal(getattr(loaded, name), getattr(explanations, name)), name
    assert [item.sentence() for item in loaded] == [item.sentence() for item in explanations]
    torch.testing.assert_close(loaded.saliency(), explanations.saliency())
    assert whole.stat().st_size - bare.stat().st_size > explanations.images.numel() / 2


def test_absent_images_take_no_memory_whatever_is_done_with_them(explanations):
    bare = explanations.without_images()
    again = pickle.loads(pickle.dumps(bare))

    for value in (bare, again, bare[1:3], bare[[0, 2]], bare.to("cpu"), ek.Explanations.concat([bare, bare])):
        assert not value.has_images and value.images.isnan().all()
        assert value.images.untyped_storage().nbytes() < 100
    assert bare[1:3].images.shape == (2, 3, 16, 16)
    assert ek.Explanations.concat([bare, bare[:0], bare[:1]]).images.shape == (5, 3, 16, 16)
    assert bare[:0].images.shape == (0, 3, 16, 16)


def test_parts_with_and_without_images_are_not_put_together(explanations):
    with pytest.raises(InputError, match="without_images"):
        ek.Explanations.concat([explanations, explanations.without_images()])


def test_images_can_be_put_back(explanations):
    again = evolve(explanations.without_images(), images=explanations.images)

    assert again.has_images and torch.equal(again.images, explanations.images)


def test_no_network_takes_absent_images_for_images(explanations):
    with pytest.raises(InputError):
        make_cam().explain(explanations.without_images().images)


def test_what_has_no_images_is_saved_without(explanations, tmp_path):
    path = explanations.without_images().save(tmp_path / "bare.safetensors")

    assert not ek.Explanations.load(path).has_images
    assert not ek.Explanations.from_json(explanations.without_images().to_json(images=True)).has_images


@pytest.mark.parametrize(
    "name",
    [
        "protopnet", "senn", "captum/saliency",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cam", "ccnn", "ra-cnn")),
    ],
)  # fmt: skip
def test_each_explainer_is_drawn_without_images(name, tmp_path):
    bare = fitted_example(name).explain(tiny_images()[:2]).without_images()

    bare[0].figure().canvas.draw()
    assert "<article" in bare[0]._repr_html_()
    page = ek.report(bare, tmp_path / "page.html").read_text()
    assert page.count("the image was left out") == 2


def test_a_page_shows_columns_with_and_without_images_of_one_size(explanations, tmp_path):
    ek.report([explanations, explanations.without_images()], tmp_path / "page.html")

    other = make_explanations(images=drawn(4, 3, 9, 9))
    with pytest.raises(InputError, match="same images"):
        ek.report([explanations, other.without_images()], tmp_path / "page.html")


def test_a_row_of_a_table_that_is_left_out_shows_no_column(tmp_path):
    rows = make_explanations(images=drawn(4, 5), maps=None)

    bare = rows.without_images()

    assert bare.is_tabular and not bare.has_images and torch.equal(bare.contributions, rows.contributions)
    assert "nan" not in bare[0]._repr_html_().lower()
    assert not ek.Explanations.load(bare.save(tmp_path / "rows.safetensors")).has_images
