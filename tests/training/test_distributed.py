"""Training shared by processes is the training of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learner import main
from safetensors.torch import load_file

from explainkit.errors import ConformanceError
from explainkit.testing import architectures, check_distributed_training

ARCHITECTURES = architectures()
LEARNER = Path(__file__).with_name("learner.py")


def torchrun(*arguments):
    """What two processes print to stderr."""
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stderr


@pytest.mark.filterwarnings("ignore::explainkit_ccnn.explainer.ConfoundedWarning")
def test_every_architecture_learns_in_two_processes_what_it_learns_in_one():
    differences = check_distributed_training(*ARCHITECTURES)

    assert set(differences) == set(ARCHITECTURES) and max(differences.values()) <= 1e-9


@pytest.mark.slow
def test_another_loss_in_one_of_the_processes_is_found_out(monkeypatch):
    from explainkit_cam.losses import evidence_loss

    def louder(network, batch, step, label_smoothing):
        return {
            "cross_entropy": 1.0001 * evidence_loss(network, batch, step, label_smoothing)["cross_entropy"]
        }

    monkeypatch.setattr("explainkit_cam.explainer.evidence_loss", louder)  # here, not in the other two

    with pytest.raises(ConformanceError, match=r"'cam' differs by .* at .* in process 0 of two"):
        check_distributed_training("cam")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """How the learner ends in one process, and in two: its losses compare images, its batches are uneven."""
    place = tmp_path_factory.mktemp("ends")
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        main(place / "alone.0")
    torch.set_num_threads(threads)
    output = torchrun(LEARNER, place / "shared")
    return [load_file(place / name) for name in ("alone.0", "shared.0", "shared.1")], output


def test_losses_that_compare_images_and_uneven_batches_end_alike(ends):
    (alone, first, second), _ = ends

    for name, value in alone.items():
        tolerance = 1e-6 if name == "losses" else 1e-9  # losses are handed on in float32
        assert torch.equal(first[name], second[name]), name
        if not name.startswith("norm."):  # the mean over processes, of whatever number of images each had
            assert (first[name].double() - value.double()).abs().max() <= tolerance, name
    assert alone["head.weight"].dtype == torch.float64


def test_it_learned_something_on_the_way(ends):
    (_, shared, _), _ = ends

    assert shared["losses"][-1, 0] < 0.9 * shared["losses"][0, 0]


def test_statistics_of_batch_norms_agree_and_are_the_mean_of_both(ends):
    (_, first, second), _ = ends

    assert torch.equal(first["norm.running_mean"], second["norm.running_mean"])
    assert (first["norm.running_mean"] != 0).all()


def test_the_group_of_processes_ends_cleanly(ends):
    _, output = ends

    assert "terminate" not in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_command_trains_in_two_processes(name, tmp_path):
    digests = Path(__file__).with_name("train_and_digest.py")

    torchrun(digests, tmp_path, name)

    first, second = ((tmp_path / f"digest.{rank}").read_text() for rank in range(2))
    assert first == second and (tmp_path / "model" / "explainer.json").exists()
