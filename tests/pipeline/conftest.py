"""What tests of pipelines share: a fitted CAM, pictures on disk, and how rows are compared."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explainkit.testing import fitted_example

sys.path.insert(0, str(Path(__file__).parent))  # of pipeline_cases.py
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model():
    return fitted_example("cam")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Twenty pictures of several sizes, modes and formats in two folders; one of a class's name."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for index in range(20):
        below = folder / ("square 1" if index % 2 else "others")
        below.mkdir(exist_ok=True)
        size = (30 + index, 40 - index, 3)
        picture = Image.fromarray(chance.integers(0, 256, size, dtype=np.uint8))
        suffix = (".png", ".jpg", ".bmp")[index % 3]
        (picture if index % 5 else picture.convert("L")).save(below / f"{index:02d}{suffix}")
    return folder
