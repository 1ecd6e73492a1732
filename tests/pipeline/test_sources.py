"""Files, folders and Parquet: read as `explain` reads files, in worker processes too."""

import io

import pytest
import torch
from PIL import Image
from pipeline_cases import content_of, make_split, rows_of

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explainers.inputs import InputSpec
from explainkit.pipeline.decoding import FileDecoder
from explainkit.testing import fitted_example

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def explained(model, paths):
    return [item for chunk in range(0, len(paths), 8) for item in model.explain(paths[chunk : chunk + 8])]


def write_images(path, contents, **columns):
    parquet.write_table(pa.table({"image": contents} | columns), path, row_group_size=3)


@pytest.fixture
def contents(pictures):
    return [path.read_bytes() for path in sorted(pictures.rglob("*.*"))]


def test_a_folder_is_explained_in_order_of_name_with_paths_below_it(model, pictures, tmp_path):
    rows = rows_of(ek.explain_dataset(model, pictures, tmp_path / "out", batch_size=8))

    paths = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.*"))
    assert [row["path"] for row in rows] == paths
    for row, item in zip(rows, explained(model, [pictures / path for path in paths]), strict=True):
        assert (row["target"], row["logit"]) == (item.target_name, item.explained_output)


def test_a_picture_in_a_folder_called_like_a_class_has_that_label(model, pictures, tmp_path):
    for row in rows_of(ek.explain_dataset(model, pictures, tmp_path / "out")):
        is_known = row["path"].startswith("square 1/")
        assert row["label"] == ("square 1" if is_known else None)
        assert row["is_label"] == ((row["target"] == "square 1") if is_known else None)


def test_a_folder_that_was_moved_is_the_same_source(model, pictures, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in pictures.iterdir():
        (moved / path.name).symlink_to(path)
    listed = [path.relative_to(pictures) for path in sorted(pictures.rglob("*.*"))]
    copied = tmp_path / "copied"
    for path in listed:
        (copied / path).parent.mkdir(parents=True, exist_ok=True)
        (copied / path).write_bytes((pictures / path).read_bytes())

    for folder in (pictures, copied):
        dataset = ek.explain_dataset(model, folder, tmp_path / "out", batch_size=8, images_per_file=8)

    assert len(dataset) == 20
    with pytest.raises(InputError, match="found none"):  # links to folders are not followed
        ek.explain_dataset(model, moved, tmp_path / "moved-out")


@pytest.mark.parametrize("as_text", [False, True])
def test_a_list_of_files_is_explained_as_it_is_given(as_text, model, pictures, tmp_path):
    paths = sorted(pictures.rglob("*.*"), reverse=True)[:5]
    given = [str(path) for path in paths] if as_text else paths

    rows = rows_of(ek.explain_dataset(model, given, tmp_path / "out"))

    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert [row["logit"] for row in rows] == model.explain(paths).explained_output.tolist()


def test_one_file_is_a_source(model, pictures, tmp_path):
    path = min(pictures.rglob("*.png"))

    assert len(ek.explain_dataset(model, path, tmp_path / "out")) == 1


def test_the_files_of_a_data_set_are_decoded_one_by_one_and_not_kept(model, pictures, tmp_path):
    folder = tmp_path / "classes"
    for index, path in enumerate(sorted(pictures.rglob("*.*"))):
        target = folder / f"square {index % 3}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    dataset = ek.dataset("folder", path=folder, size=32)

    rows = rows_of(ek.explain_dataset(model, dataset.batches("train"), tmp_path / "out"))

    assert dataset.train._pictures._cache is None
    expected = model.explain(dataset.train.batch(torch.arange(len(dataset.train))))
    assert [row["logit"] for row in rows] == expected.explained_output.tolist()
    assert [row["label"] for row in rows] == [dataset.classes[label] for label in dataset.train.labels]
    assert [row["path"] for row in rows] == [str(path) for path in dataset.train.files]


@pytest.mark.parametrize("form", ["bytes", "structs", "other name"])
def test_bytes_in_parquet_are_explained_like_their_files(form, model, pictures, contents, tmp_path):
    names = [path.name for path in sorted(pictures.rglob("*.*"))]
    labels = [index % 4 for index in range(20)]
    if form == "structs":
        images = [{"bytes": content, "path": name} for content, name in zip(contents, names, strict=True)]
        write_images(tmp_path / "in.parquet", images, label=labels)
    elif form == "bytes":
        write_images(tmp_path / "in.parquet", contents, file_name=names, label=labels)
    else:
        table = pa.table({"blob": contents, "key": names, "label": labels})
        parquet.write_table(table, tmp_path / "in.parquet", row_group_size=7)

    rows = rows_of(ek.explain_dataset(model, tmp_path / "in.parquet", tmp_path / "out", batch_size=8))

    assert [row["path"] for row in rows] == names
    assert [row["label"] for row in rows] == [model.classes[label] if label < 3 else None for label in labels]
    items = explained(model, sorted(pictures.rglob("*.*")))
    assert [row["logit"] for row in rows] == [item.explained_output for item in items]


def test_several_parquet_files_are_one_source_wherever_a_batch_begins(model, contents, tmp_path):
    (tmp_path / "in").mkdir()
    for number, part in enumerate((contents[:7], contents[7:8], contents[8:])):
        write_images(tmp_path / "in" / f"{number}.parquet", part)
    write_images(tmp_path / "all.parquet", contents)

    one = ek.explain_dataset(
        model, tmp_path / "all.parquet", tmp_path / "one", batch_size=5, images_per_file=5
    )
    for index in (2, 0, 1):  # no shard begins where the other ended
        several = ek.explain_dataset(
            model, tmp_path / "in", tmp_path / "several", batch_size=5, images_per_file=5, shard=(index, 3)
        )

    assert rows_of(one) == rows_of(several)


def test_labels_in_parquet_may_be_names(model, contents, tmp_path):
    write_images(tmp_path / "in.parquet", contents[:3], label=["square 2", "no class", None])

    rows = rows_of(ek.explain_dataset(model, tmp_path / "in.parquet", tmp_path / "out"))

    assert [row["label"] for row in rows] == ["square 2", None, None]


@pytest.mark.parametrize("source", ["folder", "parquet", "split"])
def test_worker_processes_change_no_row(source, model, pictures, contents, tmp_path):
    write_images(tmp_path / "in.parquet", contents)
    given = {"folder": pictures, "parquet": tmp_path / "in.parquet", "split": make_split(20)}[source]

    for workers in (0, 2):
        ek.explain_dataset(
            model, given, tmp_path / str(workers), batch_size=4, images_per_file=8, workers=workers
        )

    assert content_of(tmp_path / "0") == content_of(tmp_path / "2")


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_cannot_be_read_are_rows_with_an_error(workers, model, pictures, tmp_path):
    good = sorted(pictures.rglob("*.png"))
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    bad = [tmp_path / name for name in ("cut.png", "text.jpg", "empty.png", "none.png")]
    files = [good[0], *bad[:2], good[1], *bad[2:]]

    rows = rows_of(ek.explain_dataset(model, files, tmp_path / "out", workers=workers))

    says = [None, "damaged", "unknown format", None, "empty", "there is none"]
    for row, words in zip(rows, says, strict=True):
        assert (row["error"] is None) if words is None else words in row["error"]
        assert (row["target"] is None) == (words is not None)
    assert [row["path"] for row in rows] == [str(path) for path in files]


def test_null_and_damaged_bytes_are_rows_with_an_error(model, contents, tmp_path):
    write_images(tmp_path / "in.parquet", [contents[0], None, b"no image", contents[1]])

    rows = rows_of(ek.explain_dataset(model, tmp_path / "in.parquet", tmp_path / "out"))

    assert [row["error"] is None for row in rows] == [True, False, False, True]
    assert "row 1" in rows[1]["error"] and "row 2" in rows[2]["error"]


def test_where_no_image_can_be_read_all_rows_have_errors(model, tmp_path):
    rows = rows_of(ek.explain_dataset(model, ["a.png", "b.png"], tmp_path / "out"))

    assert [row["id"] for row in rows] == [0, 1] and all(row["error"] for row in rows)


def test_gray_networks_get_gray_pictures(pictures, tmp_path):
    gray = ek.explainer(
        "captum/saliency", classes=("a", "b"), size=(16, 16),
        network=torch.nn.Sequential(torch.nn.Conv2d(1, 2, 16), torch.nn.Flatten()), value_range=(0, 1),
    )  # fmt: skip
    paths = sorted(pictures.rglob("*.*"))

    rows = rows_of(ek.explain_dataset(gray, paths, tmp_path / "out", batch_size=8))

    assert gray.input_spec.channels == 1
    assert [row["logit"] for row in rows] == [item.explained_output for item in explained(gray, paths)]


def test_decoded_files_are_those_that_read_images_reads(pictures):
    from explainkit.data.reading import read_images

    paths = tuple(map(str, sorted(pictures.rglob("*.*"))))
    for channels in (1, 3):
        decoder = FileDecoder(root=None, size=(24, 20), channels=channels, with_digests=True)
        window = decoder((0, paths, None))

        assert torch.equal(window.images.float() / 255, read_images(paths, (24, 20), channels))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "nowhere", "there is none"),
        (lambda folder: folder, "found none"),
        (lambda folder: [], "at least one image"),
        (lambda folder: make_split(0), "at least one image"),
        (lambda folder: torch.rand(2, 3, 32, 32), "read again; got Tensor"),
        (lambda folder: make_split(4).batch(torch.arange(4)), "read again; got Batch"),
        (lambda folder: iter([1]), "read again; got list_iterator"),
        (lambda folder: [Image.new("RGB", (3, 3))], "read again; got list"),
        (lambda folder: 7, "read again; got int"),
    ],
)
def test_what_is_no_source_is_refused_with_what_is_one(make, says, model, tmp_path):
    (tmp_path / "in").mkdir()

    with pytest.raises(InputError, match=says):
        ek.explain_dataset(model, make(tmp_path / "in"), tmp_path / "out")


def test_parquet_without_images_is_refused(model, tmp_path):
    parquet.write_table(pa.table({"x": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"one column of image bytes .*none among \['x'\]"):
        ek.explain_dataset(model, tmp_path / "in.parquet", tmp_path / "out")

    (tmp_path / "in.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="Expected a Parquet file at"):
        ek.explain_dataset(model, tmp_path / "in.parquet", tmp_path / "out")


def test_files_need_a_size_and_colors(pictures, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model = ek.explainer("captum/saliency", network=network, value_range=(0, 1))
    model.input_spec = InputSpec()
    with pytest.raises(InputError, match="a size that files are resized to"):
        ek.explain_dataset(model, pictures, tmp_path / "out")

    model.input_spec = InputSpec(channels=5, size=(8, 8))
    with pytest.raises(InputError, match="1 or 3 channels"):
        ek.explain_dataset(model, pictures, tmp_path / "out")


def test_tables_are_refused(tmp_path):
    model = fitted_example("senn")
    rows = type(model)()
    rows._network, rows.classes, rows.input_spec = model.network, model.classes, InputSpec.of_shape((4,))

    with pytest.raises(InputError, match="rows of a table"):
        ek.explain_dataset(rows, make_split(2), tmp_path / "out")


def test_bytes_are_read_with_a_picture_in_any_format(model, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGBA", (9, 9), (255, 0, 0, 128)).save(buffer, "WEBP")
    write_images(tmp_path / "in.parquet", [buffer.getvalue()])

    assert rows_of(ek.explain_dataset(model, tmp_path / "in.parquet", tmp_path / "out"))[0]["error"] is None
