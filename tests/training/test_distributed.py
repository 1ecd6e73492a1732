"""Training shared by processes is the training of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

LEARNER = Path(__file__).with_name("learner.py")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """The end of one process alone, and those of two that share."""
    place = tmp_path_factory.mktemp("ends")
    plain = {name: value for name, value in os.environ.items() if name != "RANK"}
    alone = subprocess.run(
        [sys.executable, LEARNER, place / "alone"], capture_output=True, text=True, env=plain, check=False
    )
    shared = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", LEARNER,
         place / "shared"],
        capture_output=True, text=True, env={**plain, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    assert shared.returncode == 0, shared.stderr
    return [load_file(place / name) for name in ("alone.0", "shared.0", "shared.1")], shared.stderr


def test_two_processes_end_where_one_does(ends):
    (alone, first, second), _ = ends
    alone = dict(alone)

    losses = alone.pop("losses")  # Fabric hands losses float32 outputs
    assert (first["losses"] - losses).abs().max() <= 1e-6
    for name, value in alone.items():
        assert (first[name].double() - value.double()).abs().max() <= 1e-9, name
        assert torch.equal(first[name], second[name]), name
    assert alone["head.weight"].dtype == torch.float64


def test_it_learned_something_on_the_way(ends):
    (_, shared, _), _ = ends

    assert shared["losses"][-1, 0] < 0.7 * shared["losses"][0, 0]


def test_the_group_of_processes_ends_cleanly(ends):
    _, output = ends

    assert "terminate" not in output
    assert "Traceback" not in output
