"""A folder of explanations says what the explanations said, without being read as a whole."""

import json
import sys

import pytest
import torch
from pipeline_cases import DamagedSplit, make_split, rows_of

import explainkit as ek
from explainkit.errors import FormatError, InputError, MissingPackageError, UnknownNameError
from explainkit.pipeline.restoring import OTHERS
from explainkit.pipeline.row_schema import COLUMNS, arrow_schema
from explainkit.testing import fitted_example

compute = pytest.importorskip("pyarrow.compute")
SIZES = {"batch_size": 4, "images_per_file": 8}


@pytest.fixture(scope="module")
def dataset(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "out"
    return ek.explain_dataset(model, DamagedSplit(20, [5, 6]), folder, top=3, **SIZES)


def test_nothing_but_the_manifest_is_read_at_first(dataset, monkeypatch):
    monkeypatch.setattr("explainkit.pipeline.dataset.part_files", lambda folder: 1 / 0)

    again = ek.ExplanationDataset(str(dataset.folder))

    assert again.num_images == 20 and again.classes == dataset.classes
    assert again.units.names == dataset.units.names
    assert again.provenance.model_digest == again.manifest["model"]["digest"]


def test_its_length_is_that_of_its_rows(dataset):
    assert len(dataset) == 20 == len(dataset.to_arrow())
    assert "20 images by cam" in repr(dataset)


def test_columns_are_those_of_the_schema(dataset):
    assert dataset.to_arrow().schema.equals(arrow_schema())
    assert dataset.to_arrow(["id", "target"]).column_names == ["id", "target"]
    assert list(dataset.to_pandas(["logit"])) == ["logit"]
    assert [item.name for item in COLUMNS] == dataset.to_arrow().column_names


@pytest.mark.parametrize("name", ["cam", "protopnet", "senn", "captum/integrated-gradients"])
@pytest.mark.parametrize("top", [None, 2])
def test_explanations_come_back(name, top, tmp_path):
    explainer, split = fitted_example(name), make_split(7)
    stored = ek.explain_dataset(explainer, split, tmp_path / "out", top=top, **SIZES)

    explanations = ek.Explanations.concat(list(stored))

    expected = ek.Explanations.concat(
        [explainer.explain(split.batch(ids).images, batch_size=4) for ids in torch.arange(7).split(4)]
    )
    for column in ("logits", "targets", "base"):
        assert torch.equal(getattr(explanations, column), getattr(expected, column)), column
    assert explanations.ids == tuple(range(7)) and not explanations.has_images
    assert explanations.classes == expected.classes and explanations.decision == expected.decision
    assert explanations.provenance.model_digest == expected.provenance.model_digest
    torch.testing.assert_close(explanations.explained_output, expected.explained_output)
    if expected.residual is not None:
        torch.testing.assert_close(explanations.residual, expected.residual, atol=1e-5, rtol=0)
    torch.testing.assert_close(explanations.saliency((8, 8)), expected.saliency((8, 8)), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(explanations.nonspatial, expected.nonspatial, atol=1e-5, rtol=1e-5)
    count = len(expected.units)
    if top is None or top >= count:
        assert torch.equal(explanations.contributions, expected.contributions)
        assert [item.sentence() for item in explanations] == [item.sentence() for item in expected]
    else:
        assert explanations.units.names == (*expected.units.names, OTHERS)
        kept = expected.top(top)
        assert torch.equal(explanations.contributions.gather(1, kept.unit), kept.contribution)
        torch.testing.assert_close(explanations.contributions[:, -1], kept.remainder)
        assert (explanations.contributions[:, :-1] != 0).sum(1).le(top).all()
    if explanations.additivity == "exact":
        explanations.check_additivity()


def test_stored_explanations_are_drawn(dataset, tmp_path):
    explanations = next(iter(dataset))

    page = ek.report(explanations[:2], tmp_path / "why.html")

    assert OTHERS in page.read_text()


def test_contrasts_come_back(model, tmp_path):
    split = make_split(4)
    stored = ek.explain_dataset(model, split, tmp_path / "out", foils="square 0", targets=1, top=None)

    (explanations,) = stored

    assert explanations.foils.tolist() == [0] * 4
    expected = model.explain(split.batch(torch.arange(4)).images, 1, foils=0)
    assert torch.equal(explanations.explained_output, expected.explained_output)


def test_images_that_could_not_be_read_have_rows_and_no_explanations(dataset):
    assert sum(len(part) for part in dataset) == 18
    assert [row["id"] for row in rows_of(dataset) if row["error"]] == [5, 6]


def test_explanations_come_at_most_some_hundred_at_a_time(model, tmp_path):
    stored = ek.explain_dataset(model, make_split(600), tmp_path / "out", batch_size=64, images_per_file=640)

    assert [len(part) for part in stored] == [256, 256, 88]


def test_images_of_several_sizes_come_apart(tmp_path):
    class Growing:
        labels = torch.zeros(12, dtype=torch.long)

        def __len__(self):
            return 12

        def batch(self, ids):
            size = 32 if int(ids[0]) < 8 else 40
            images = torch.rand(len(ids), 3, size, size, generator=torch.Generator().manual_seed(0))
            return ek.Batch(images=images, labels=self.labels[ids], ids=ids)

    stored = ek.explain_dataset(
        fitted_example("cam"), Growing(), tmp_path / "out", batch_size=4, images_per_file=12
    )

    assert [tuple(part.images.shape) for part in stored] == [(8, 3, 32, 32), (4, 3, 40, 40)]


def test_rows_are_filtered_by_values_lists_and_expressions(dataset):
    rows = rows_of(dataset)

    def ids(filtered):
        assert len(filtered) == len(filtered.to_arrow())
        return filtered.to_arrow(["id"])["id"].to_pylist()

    assert ids(dataset.filter(label="square 1")) == [row["id"] for row in rows if row["label"] == "square 1"]
    wrong = [row["id"] for row in rows if row["is_label"] is False]
    assert ids(dataset.filter(is_label=False)) == wrong and wrong
    both = dataset.filter(label=["square 0", "square 2"]).filter(is_label=False)
    assert ids(both) == [row["id"] for row in rows if row["is_label"] is False and row["label"] != "square 1"]
    assert ids(dataset.filter(target=None)) == [5, 6]
    expression = compute.field("logit") > 0
    assert ids(dataset.filter(expression)) == [row["id"] for row in rows if row["logit"] and row["logit"] > 0]
    assert len(dataset.filter(label="nothing")) == 0 and list(dataset.filter(label="nothing")) == []


def test_explanations_of_filtered_rows_are_those_of_all_rows(dataset):
    filtered = [item for part in dataset.filter(label="square 2") for item in part]

    expected = {part.ids[index]: part[index] for part in dataset for index in range(len(part))}
    assert filtered
    for item in filtered:
        original = expected[item.batch.ids[item.index]]
        assert torch.equal(item.contributions, original.contributions)


def test_columns_and_filters_that_there_are_not_are_refused(dataset):
    with pytest.raises(UnknownNameError, match=r"No column is called 'targets'. There are: id, path"):
        dataset.filter(targets=1)
    with pytest.raises(UnknownNameError, match="There are: id, path"):
        dataset.to_arrow(["x"])
    with pytest.raises(InputError, match=r"an expression of pyarrow, .*got str"):
        dataset.filter("id > 3")


def test_without_logits_there_are_tables_alone(model, tmp_path):
    stored = ek.explain_dataset(model, make_split(3), tmp_path / "out", logits=False)

    assert stored.to_arrow()["logits"].null_count == 3
    with pytest.raises(InputError, match="logits=False"):
        list(stored)


def test_a_folder_is_complete_when_all_shards_are_there(model, tmp_path):
    split = make_split(20)
    first = ek.explain_dataset(model, split, tmp_path / "out", shard=(0, 2), **SIZES)
    assert not first.is_complete and first.missing == ((8, 16), (16, 20))
    assert "2 of 3 files missing" in repr(first)
    with pytest.raises(InputError, match=r"2 are missing, the first for images 8 to 15"):
        first.check()

    both = ek.explain_dataset(model, split, tmp_path / "out", shard=(1, 2), **SIZES)

    assert both.is_complete and both.check() is both and first.is_complete


def test_what_is_no_folder_of_explanations_is_refused(tmp_path, dataset):
    with pytest.raises(
        InputError, match=r"a folder that explain_dataset wrote, with manifest.json; there is none"
    ):
        ek.ExplanationDataset(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": "explainkit.explanations/2.0"}')
    with pytest.raises(FormatError, match=r"Expected explainkit\.explanation-dataset"):
        ek.ExplanationDataset(tmp_path)
    for broken in ("{", "[]", '{"schema": "explainkit.explanation-dataset/2.0"}'):
        (tmp_path / "manifest.json").write_text(broken)
        with pytest.raises((FormatError, InputError)):
            ek.ExplanationDataset(tmp_path)
    facts = json.loads((dataset.folder / "manifest.json").read_text()) | {
        "schema": "explainkit.explanation-dataset/9.0"
    }
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(FormatError, match=r"has schema 9.0"):
        ek.ExplanationDataset(tmp_path)


def test_a_damaged_file_is_said_to_be_damaged(model, tmp_path):
    stored = ek.explain_dataset(model, make_split(12), tmp_path / "out", **SIZES)
    (tmp_path / "out" / "part-00000000.parquet").write_bytes(b"PAR1 and no more")

    for ask in (stored.to_arrow, lambda: list(stored), lambda: len(stored)):
        with pytest.raises(FormatError, match="whole files"):
            ask()


def test_a_missing_library_is_named_with_its_extra(model, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match=r"explainkit-sdk\[pandas\]"):
        dataset.to_pandas()
    for module in ("pyarrow", "pyarrow.parquet", "pyarrow.dataset"):
        monkeypatch.setitem(sys.modules, module, None)
    for ask in (
        lambda: ek.ExplanationDataset(dataset.folder),
        lambda: ek.explain_dataset(model, make_split(2), tmp_path / "out"),
    ):
        with pytest.raises(MissingPackageError, match=r"pyarrow.*explainkit-sdk\[arrow\]"):
            ask()
    assert not (tmp_path / "out").exists()
