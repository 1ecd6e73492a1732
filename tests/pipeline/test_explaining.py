"""Rows say what `explain` says, of every kind of explainer and setting."""

import json

import pytest
import torch
from pipeline_cases import DamagedSplit, FloatSplit, content_of, make_split, rows_of

import explainkit as ek
from explainkit.data.types import ImageDataset
from explainkit.errors import InputError, UnknownNameError
from explainkit.testing import fitted_example, tiny_dataset

SETTINGS = {
    "defaults": {},
    "all units": {"top": None},
    "a target by name": {"targets": "square 2"},
    "a target and a foil": {"targets": 1, "foils": "square 0"},
    "no places": {"saliency": None},
    "another grid": {"saliency": (3, 5)},
    "sentences": {"sentences": True, "top": 0},
}


def explained(model, split, settings):
    batches = [split.batch(ids) for ids in torch.arange(len(split)).split(4)]
    arguments = {name: settings[name] for name in ("targets", "foils") if name in settings}
    return [model.explain(batch.images, **arguments) for batch in batches]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_row_says_what_its_explanation_says(name, model, tmp_path):
    settings, split = SETTINGS[name], make_split(10)

    dataset = ek.explain_dataset(model, split, tmp_path / "out", batch_size=4, images_per_file=8, **settings)

    rows = rows_of(dataset)
    assert [row["id"] for row in rows] == list(range(10))
    top, grid = settings.get("top", 10), settings.get("saliency", (8, 8))
    items = [item for explanations in explained(model, split, settings) for item in explanations]
    for row, item in zip(rows, items, strict=True):
        facts = item.facts(len(model.units) if top is None else top)
        assert (row["prediction"], row["target"], row["foil"]) == (
            facts["prediction"], facts["target"], facts["foil"],
        )  # fmt: skip
        assert row["target_probability"] == facts["probability"]
        assert row["logit"] == facts["explained_output"] and row["base"] == facts["base"]
        assert row["residual"] == facts["residual"] and row["nonspatial"] == facts["nonspatial"]
        assert row["remainder"] == pytest.approx(facts["others"], abs=1e-6)
        assert row["units"] == facts["evidence"]
        assert row["logits"] == item.logits.tolist()
        assert (row["height"], row["width"], row["error"]) == (32, 32, None)
        assert row["sentence"] == (facts["sentence"] if settings.get("sentences") else None)
        if grid is None:
            assert row["saliency"] is None
        else:
            torch.testing.assert_close(torch.tensor(row["saliency"]), item.saliency(grid).flatten())


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_adds_up(name, model, tmp_path):
    dataset = ek.explain_dataset(model, make_split(5), tmp_path / "out", **SETTINGS[name])

    for row in rows_of(dataset):
        total = row["base"] + sum(unit["contribution"] for unit in row["units"]) + row["remainder"]
        assert total + row["residual"] == pytest.approx(row["logit"], abs=1e-5)
        if row["saliency"] is not None:
            spatial = row["logit"] - row["base"] - row["residual"] - row["nonspatial"]
            assert sum(row["saliency"]) == pytest.approx(spatial, abs=1e-5)


@pytest.mark.parametrize(
    "name", ["protopnet", "senn", "ra-cnn", "captum/saliency", "captum/integrated-gradients"]
)
def test_explainers_of_all_kinds_are_streamed(name, tmp_path):
    explainer, split = fitted_example(name), make_split(6)

    dataset = ek.explain_dataset(explainer, split, tmp_path / "out", batch_size=3, top=3)

    expected = [explainer.explain(split.batch(ids).images, batch_size=3) for ids in torch.arange(6).split(3)]
    items = [item for explanations in expected for item in explanations]
    for row, item in zip(rows_of(dataset), items, strict=True):
        assert row["target"] == item.target_name
        assert row["residual"] == item.residual
        assert [unit["name"] for unit in row["units"]] == [evidence.name for evidence in item.top(3)]
        assert dict(row["diagnostics"]) == pytest.approx(item.diagnostics)


def test_labels_give_an_image_several_rows(tmp_path):
    split = make_split(6)
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]] * 3, dtype=torch.bool)
    multi = type(split)(images=split.images, labels=labels)
    dataset = ImageDataset(
        name="labels", classes=("a", "b", "c"), size=(32, 32),
        splits={name: multi for name in ("train", "validation", "test")},
    )  # fmt: skip
    model = ek.explainer("cam", preset="tiny", epochs=1).fit(dataset, progress=False)

    rows = rows_of(ek.explain_dataset(model, dataset, tmp_path / "out", batch_size=4))

    assert {row["id"] for row in rows} == set(range(6))
    expected = model.explain(dataset.test.batch(torch.arange(4)).images)
    assert [row["id"] for row in rows if row["id"] < 4] == expected.image_index.tolist()
    for row, item in zip(rows, expected, strict=False):
        assert (row["prediction"], row["target"]) == (item.prediction_name, item.target_name)
        assert row["label"] is None
        assert row["is_label"] == labels[row["id"], item.target].item()


def test_a_data_set_is_explained_on_its_test_images_with_their_labels(model, tmp_path):
    dataset = tiny_dataset()

    rows = rows_of(ek.explain_dataset(model, dataset, tmp_path / "out"))

    assert [row["label"] for row in rows] == [dataset.classes[label] for label in dataset.test.labels]
    assert all(row["is_label"] == (row["label"] == row["target"]) for row in rows)


def test_batches_of_another_split_are_explained(model, tmp_path):
    dataset = ek.explain_dataset(model, tiny_dataset().batches("train"), tmp_path / "out")

    assert dataset.num_images == len(tiny_dataset().train) == len(dataset)


def test_values_outside_the_unit_range_are_brought_to_the_networks(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))
    model = ek.explainer("captum/input-x-gradient", network=network, value_range=(-1, 1), size=(32, 32))
    split = make_split(4)

    rows = rows_of(ek.explain_dataset(model, split, tmp_path / "out"))

    expected = model.explain(split.batch(torch.arange(4)).images * 2 - 1)
    assert [row["logit"] for row in rows] == expected.explained_output.tolist()


def test_networks_in_double_precision_have_double_columns(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3)).double()
    model = ek.explainer("captum/input-x-gradient", network=network, value_range=None, size=(32, 32))

    dataset = ek.explain_dataset(model, make_split(3), tmp_path / "out")

    assert str(dataset.to_arrow().schema.field("logit").type) == "double"
    assert next(iter(dataset)).logits.dtype == torch.float64


def test_an_image_that_cannot_be_read_is_a_row_with_an_error_and_changes_no_other(model, tmp_path):
    whole = ek.explain_dataset(model, make_split(10), tmp_path / "whole", batch_size=4)
    dataset = ek.explain_dataset(model, DamagedSplit(10, [0, 5, 8, 9]), tmp_path / "out", batch_size=4)

    for row, expected in zip(rows_of(dataset), rows_of(whole), strict=True):
        if row["id"] in (0, 5, 8, 9):
            assert f"number {row['id']} is damaged" in row["error"]
            assert row["label"] == expected["label"]
            assert all(row[name] is None for name in row if name not in ("id", "label", "error"))
        else:
            assert row == expected


def test_an_image_that_cannot_be_explained_is_a_row_with_an_error_and_changes_no_other(model, tmp_path):
    whole = ek.explain_dataset(model, FloatSplit(10, []), tmp_path / "whole", batch_size=4)
    dataset = ek.explain_dataset(model, FloatSplit(10, [2, 7]), tmp_path / "out", batch_size=4)

    for row, expected in zip(rows_of(dataset), rows_of(whole), strict=True):
        if row["id"] in (2, 7):
            assert "finite" in row["error"] and row["target"] is None
        else:
            assert row == expected


def test_a_whole_batch_that_cannot_be_explained_ends_the_run(model, tmp_path):
    with pytest.raises(InputError, match="finite"):
        ek.explain_dataset(model, FloatSplit(10, [4, 5, 6, 7]), tmp_path / "out", batch_size=4)


def test_the_first_unreadable_image_ends_the_run_where_that_is_wanted(model, tmp_path):
    with pytest.raises(InputError, match=r"Image 5 cannot be read: .*number 5 is damaged"):
        ek.explain_dataset(model, DamagedSplit(10, [5]), tmp_path / "out", on_error="raise", batch_size=4)


def test_the_manifest_says_what_all_rows_have_in_common(model, tmp_path):
    dataset = ek.explain_dataset(model, make_split(5), tmp_path / "out", top=3)

    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert facts["schema"] == "explainkit.explanation-dataset/2.0"
    assert facts["model"]["digest"] == model.provenance().model_digest
    assert facts["model"]["classes"] == list(model.classes)
    assert facts["units"]["names"] == list(model.units.names) and facts["units"]["kind"] == "filter"
    assert facts["settings"]["top"] == 3 and facts["source"]["count"] == 5
    assert {"explainkit", "torch"} <= facts["versions"].keys()
    assert dataset.manifest == facts


def test_the_same_run_twice_gives_the_same_bytes(model, tmp_path):
    for name in ("one", "other"):
        ek.explain_dataset(model, make_split(9), tmp_path / name, batch_size=4, images_per_file=4)

    one, other = (content_of(tmp_path / name) for name in ("one", "other"))
    assert len(one) == 3 and one == other


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 0}, "batch_size as a whole number of at least 1; got 0"),
        ({"top": -1}, "top as a whole number"),
        ({"saliency": (8,)}, r"saliency as height and width of a grid, or None; got \(8,\)"),
        ({"saliency": (8, 0)}, "saliency as height and width"),
        ({"images_per_file": 100}, "images_per_file as a multiple of batch_size, 64"),
        ({"workers": 1.5}, "workers as a whole number"),
        ({"shard": (2, 2)}, r"shard as which of how many, as \(0, 4\) to \(3, 4\); got \(2, 2\)"),
        ({"shard": 3}, "shard as which of how many"),
        ({"on_error": "skip"}, "on_error as 'record' or 'raise'; got 'skip'"),
        ({"targets": [0, 1]}, "targets as one class for all images"),
        ({"foils": 7}, "class index in 0 … 2; got 7"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(settings, says, model, tmp_path):
    with pytest.raises(InputError, match=says):
        ek.explain_dataset(model, make_split(3), tmp_path / "out", **settings)

    assert not (tmp_path / "out").exists()


def test_an_unknown_class_is_refused_with_the_nearest(model, tmp_path):
    with pytest.raises(UnknownNameError, match="square 1"):
        ek.explain_dataset(model, make_split(3), tmp_path / "out", targets="squere 1")


def test_progress_shows_the_rate_the_time_left_and_errors(model, tmp_path, capfd):
    ek.explain_dataset(model, DamagedSplit(40, [3]), tmp_path / "out", batch_size=4, progress=True)

    shown = capfd.readouterr().err
    assert "40/40" in shown and "1 could not be explained" in shown


def test_nothing_is_shown_where_there_is_no_terminal(model, tmp_path, capfd):
    ek.explain_dataset(model, make_split(4), tmp_path / "out")

    assert capfd.readouterr().err == ""
