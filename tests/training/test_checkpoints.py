"""A run that was cut off is worth as much as one that was not."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file as read_checkpoint

import explainkit as ek
from explainkit.errors import FormatError, InputError, TrainingError
from explainkit.testing import tiny_dataset
from explainkit.training.checkpoints import FILE
from explainkit.training.evaluation import Evaluation

KILLER = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"


def fitted(folder, *, epochs=2, seed=0, resume=False, **settings):
    return ek.explainer("cam", preset="tiny", epochs=epochs, **settings).fit(
        tiny_dataset(), seed=seed, device="cpu", progress=False, checkpoints=folder, resume=resume
    )


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4])
def test_killed_and_resumed_runs_end_bit_identical(kills):
    """Killed while writing a checkpoint, inside a finish, and at a random moment."""
    ended = subprocess.run(
        [sys.executable, KILLER, "--kills", str(kills)], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{kills} of {kills} ends are bit-identical" in ended.stdout


def test_a_finished_run_is_not_run_again(tmp_path):
    first = fitted(tmp_path)

    again = fitted(tmp_path, resume=True)

    assert again.history == first.history
    assert torch.equal(again.network.head.weight, first.network.head.weight)


def test_a_checkpoint_is_never_overwritten_unasked(tmp_path):
    fitted(tmp_path)

    with pytest.raises(InputError, match="resume=True"):
        fitted(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"seed": 1}, "seed"), ({"epochs": 3}, "plan"), ({"dropout": 0.5}, "settings.dropout")],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, word):
    fitted(tmp_path)

    with pytest.raises(InputError, match=rf"its {word}\S* differs"):
        fitted(tmp_path, resume=True, **change)


def test_another_number_of_threads_is_refused(tmp_path):
    fitted(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)

    try:
        with pytest.raises(InputError, match="its threads differ"):
            fitted(tmp_path, resume=True)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    fitted(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:5000] if damage == "cut" else b"something else")

    with pytest.raises(FormatError, match=FILE):
        fitted(tmp_path, resume=True)


def test_a_validation_loss_that_is_no_number_ends_in_words(tmp_path, monkeypatch):
    measured = Evaluation(accuracy=0.5, loss=float("nan"))
    monkeypatch.setattr("explainkit.training.trainer.evaluate", lambda *_: measured)

    with pytest.raises(TrainingError, match="validation split"):
        fitted(tmp_path)


def test_a_full_disk_ends_in_words_with_the_last_checkpoint_whole(tmp_path, monkeypatch):
    fitted(tmp_path / "good")
    whole = read_checkpoint(tmp_path / "good" / FILE)
    place = tmp_path / "full"
    place.mkdir()
    saves = []

    def full(path, content):
        saves.append(path)
        if len(saves) == 2:
            raise OSError(28, "No space left on device")
        with path.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        fitted(place)
    monkeypatch.undo()

    assert [item.name for item in place.iterdir()] == [FILE]
    fitted(place, resume=True)
    ended = read_checkpoint(place / FILE)
    assert ended.keys() == whole.keys()
    assert all(torch.equal(ended[name], value) for name, value in whole.items())


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(InputError, match="checkpoints"):
        fitted(tmp_path / "file" / "within")


def test_a_run_that_failed_in_its_first_step_does_not_block_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "explainkit_cam.explainer.evidence_loss", lambda *_, **__: {"nothing": torch.tensor(torch.nan)}
    )
    with pytest.raises(TrainingError, match="NaN"):
        fitted(tmp_path)
    monkeypatch.undo()

    assert len(fitted(tmp_path).history) == 2


def test_other_images_under_the_same_name_are_refused(tmp_path):
    dataset = tiny_dataset()
    inverted = evolve(dataset.train, images=255 - dataset.train.images)
    other = evolve(dataset, splits={**dataset.splits, "train": inverted})
    fitted(tmp_path)

    with pytest.raises(InputError, match="its training images differ"):
        ek.explainer("cam", preset="tiny", epochs=2).fit(
            other, device="cpu", progress=False, checkpoints=tmp_path, resume=True
        )


@pytest.mark.parametrize(
    "setting", [{"label_smoothing": 0.2}, {"lr_scheduler": "steps"}, {"weight_decay": 0.3}]
)
def test_another_plan_is_refused_down_to_the_weights_of_its_losses(tmp_path, setting):
    fitted(tmp_path)

    with pytest.raises(InputError, match=r"its plan\[0\]\.\S+ differs"):
        ek.explainer("cam", preset="tiny", epochs=2, **setting).fit(
            tiny_dataset(), device="cpu", progress=False, checkpoints=tmp_path, resume=True
        )
