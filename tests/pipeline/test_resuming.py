"""What a killed run has written is whole, and what the next one makes of it is what nobody had killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_cases import DamagedSplit, content_of, make_split, rows_of
from run_pipeline import SETTINGS, make_source

import explainkit as ek
from explainkit.errors import FormatError, InputError
from explainkit.pipeline.parts import ABANDONED, all_parts, shard_parts, windows
from explainkit.testing import fitted_example, tiny_dataset

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return ek.save(model, tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def whole(saved, tmp_path_factory):
    return ek.explain_dataset(ek.load(saved), make_source(), tmp_path_factory.mktemp("whole"), **SETTINGS)


def run(saved, folder, fate):
    parts = (HERE, ROOT, ROOT / "plugins", ROOT / "adapters", os.environ.get("PYTHONPATH", ""))
    return subprocess.run(
        [sys.executable, str(HERE / "run_pipeline.py"), str(saved), str(folder), fate],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, parts)), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("fate", ["part:3", "rename:5", "batch:6"])
def test_a_killed_run_goes_on_to_the_same_bytes(fate, saved, whole, tmp_path):
    folder, expected = tmp_path / "out", content_of(whole.folder)

    killed = run(saved, folder, fate)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = content_of(folder)
    assert 0 < len(left) < len(expected), "some files are there, and whole"
    assert left.items() <= expected.items()
    dataset = ek.ExplanationDataset(folder)
    assert not dataset.is_complete and len(dataset) > 0, "what is there can be read"
    resumed = ek.explain_dataset(ek.load(saved), make_source(), folder, **SETTINGS).check()
    assert content_of(folder) == expected and rows_of(resumed) == rows_of(whole)


def test_files_that_are_there_are_not_written_again(model, tmp_path):
    split, folder = make_split(20), tmp_path / "out"
    ek.explain_dataset(model, split, folder, batch_size=4, images_per_file=4)
    (folder / "part-00000002.parquet").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}

    ek.explain_dataset(model, split, folder, batch_size=4, images_per_file=4)

    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(after) == 5 and before.items() <= after.items()


def test_a_damaged_file_is_written_again(model, tmp_path):
    split, folder = make_split(12), tmp_path / "out"
    ek.explain_dataset(model, split, folder, batch_size=4, images_per_file=4)
    expected = content_of(folder)
    damaged = folder / "part-00000001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"part-00000001\.parquet' is damaged"):
        ek.ExplanationDataset(folder).check()

    ek.explain_dataset(model, split, folder, batch_size=4, images_per_file=4)

    assert content_of(folder) == expected


def test_what_a_killed_run_left_half_written_is_removed_once_it_is_old(model, tmp_path):
    folder, split = tmp_path / "out", make_split(4)
    ek.explain_dataset(model, split, folder)
    old, new = folder / ".part-00000000.parquet.1.part", folder / ".part-00000000.parquet.2.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - ABANDONED - 60,) * 2)

    ek.explain_dataset(model, split, folder)

    assert not old.exists() and new.exists(), "another process may be writing it"


def test_files_of_a_shard_are_refused_where_nothing_is_to_be_resumed(model, tmp_path):
    split, sizes = make_split(16), {"batch_size": 4, "images_per_file": 4}
    ek.explain_dataset(model, split, tmp_path / "out", shard=(0, 2), resume=False, **sizes)

    with pytest.raises(
        InputError, match=r"none of this shard's files .*; 2 are there. Go on with resume=True"
    ):
        ek.explain_dataset(model, split, tmp_path / "out", shard=(0, 2), resume=False, **sizes)
    assert ek.explain_dataset(model, split, tmp_path / "out", shard=(1, 2), resume=False, **sizes).is_complete


OTHERS = {
    "model.digest": lambda: {"model": _other_cam()},
    "model.explainer": lambda: {"model": fitted_example("protopnet")},
    "settings.top": lambda: {"top": 4},
    "settings.targets": lambda: {"targets": 1},
    "settings.saliency": lambda: {"saliency": (4, 4)},
    "settings.batch_size": lambda: {"batch_size": 8},
    "settings.sentences": lambda: {"sentences": True},
    "source.count": lambda: {"source": make_split(9)},
    "source.digest": lambda: {"source": make_split(8, seed=1)},
}  # fmt: skip


def _other_cam():
    return ek.explainer("cam", preset="tiny", epochs=1).fit(tiny_dataset(), seed=9, progress=False)


@pytest.fixture(scope="module")
def begun(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    ek.explain_dataset(model, make_split(8), folder)
    return folder


@pytest.mark.parametrize("what", OTHERS)
def test_the_folder_of_another_run_is_refused_and_left_alone(what, model, begun):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    arguments = {"model": model, "source": make_split(8)} | OTHERS[what]()

    with pytest.raises(InputError, match=rf"its {what} is .*, and now .* Take another folder"):
        ek.explain_dataset(folder=begun, **arguments)

    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_units_with_other_names_are_another_run(model, begun):
    import attrs

    named = attrs.evolve(model.units, phrases=("red", *(None,) * (len(model.units) - 1)))
    other = fitted_example.__wrapped__("cam")
    other.units = named

    with pytest.raises(InputError, match=r"its (units|model)\."):
        ek.explain_dataset(other, make_split(8), begun)


def test_another_version_is_another_run(model, begun, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(begun, folder)
    path = folder / "manifest.json"
    facts = json.loads(path.read_text())
    facts["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(facts))

    with pytest.raises(InputError, match=r"its versions.torch is '1.0'"):
        ek.explain_dataset(model, make_split(8), folder)


def test_a_foreign_file_among_the_parts_is_refused(model, begun, tmp_path):
    folder = tmp_path / "out"
    ek.explain_dataset(model, make_split(8), folder, top=2)
    shutil.copy(begun / "part-00000000.parquet", folder)

    with pytest.raises(InputError, match=r"part-00000000.parquet is of another"):
        ek.explain_dataset(model, make_split(8), folder, top=2)


@pytest.mark.parametrize("content", ["a file", "a folder of something else"])
def test_what_is_no_folder_of_explanations_is_left_alone(content, model, tmp_path):
    folder = tmp_path / "mine"
    if content == "a file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")

    with pytest.raises(InputError, match="is something else"):
        ek.explain_dataset(model, make_split(3), folder)
    assert (folder if content == "a file" else folder / "thesis.txt").read_text() == "mine"


@given(
    count=st.integers(0, 200),
    per_batch=st.integers(1, 7),
    batches=st.integers(1, 5),
    shards=st.integers(1, 9),
)
def test_shards_partition_the_images(count, per_batch, batches, shards):
    parts = all_parts(count, per_batch * batches)
    pieces = [shard_parts(parts, (index, shards)) for index in range(shards)]

    numbers = [
        number
        for piece in pieces
        for part in piece
        for start, stop in windows(part, per_batch)
        for number in range(start, stop)
    ]
    assert numbers == list(range(count))
    assert all(start % per_batch == 0 for part in parts for start, _ in windows(part, per_batch))
    lengths = [len(piece) for piece in pieces]
    assert max(lengths) - min(lengths) <= 1


@settings(max_examples=6, deadline=None)
@given(shards=st.integers(1, 5), cut=st.integers(0, 7), order=st.randoms(use_true_random=False))
def test_rows_depend_on_no_shard_and_on_no_cut(shards, cut, order):
    model, source = fitted_example("cam"), DamagedSplit(26, [2, 11])
    sizes = {"batch_size": 4, "images_per_file": 4, "top": 2}
    with tempfile.TemporaryDirectory() as root:
        ek.explain_dataset(model, source, f"{root}/whole", **sizes)
        ek.explain_dataset(model, source, f"{root}/cut", **sizes)
        for number in order.sample(range(7), min(cut, 7)):
            Path(root, "cut", f"part-{number:08d}.parquet").unlink()
        pieces = list(range(shards))
        order.shuffle(pieces)
        for index in pieces:
            ek.explain_dataset(model, source, f"{root}/cut", shard=(index, shards), **sizes)

        assert content_of(Path(root, "cut")) == content_of(Path(root, "whole"))
