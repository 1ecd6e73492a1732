"""Projection shared by processes is the projection of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROJECTOR = Path(__file__).with_name("projector.py")


@pytest.mark.slow
def test_two_processes_pick_the_very_same_patches_ties_included(tmp_path):
    plain = {name: value for name, value in os.environ.items() if name != "RANK"} | {"OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    for start, out in ([], "alone"), (torchrun, "shared"):
        command = [sys.executable, *start, str(PROJECTOR), str(tmp_path / out)]
        ended = subprocess.run(command, capture_output=True, text=True, env=plain, check=False)
        assert ended.returncode == 0, ended.stderr

    alone, first, second = (load_file(tmp_path / name) for name in ("alone.0", "shared.0", "shared.1"))
    image = next(name for name in alone if name.endswith("sources.image") or name.endswith("sources.id"))
    assert (alone[image] < 48).all()  # of two equal patches the one with the lower id
    for name, value in alone.items():
        assert torch.equal(value, first[name]), name
        assert torch.equal(value, second[name]), name
