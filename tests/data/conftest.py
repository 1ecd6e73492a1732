"""Archives of CUB-200-2011, PASCAL-Part and FunnyBirds: fresh ones to change, and shared ones to read."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # of the modules of cases


@pytest.fixture
def archive(tmp_path):
    """An archive of CUB-200-2011 that a test may change."""
    from cub_cases import CubArchive

    return CubArchive(tmp_path)


@pytest.fixture(scope="session")
def shared_archive(tmp_path_factory):
    """An archive of CUB-200-2011 that no test changes."""
    from cub_cases import CubArchive

    return CubArchive(tmp_path_factory.mktemp("cub"))


@pytest.fixture
def devkit(tmp_path):
    """VOC 2010 with the annotations of PASCAL-Part, which a test may change."""
    from pascal_part_cases import Devkit

    return Devkit(tmp_path)


@pytest.fixture(scope="session")
def shared_devkit(tmp_path_factory):
    """VOC 2010 with the annotations of PASCAL-Part, which no test changes."""
    from pascal_part_cases import Devkit

    return Devkit(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def birds(shared_birds, tmp_path):
    """An archive of FunnyBirds that a test may change."""
    return shared_birds.copied(tmp_path)


@pytest.fixture
def bird_lists(tmp_path):
    """The lists of an archive of FunnyBirds, without pictures, that a test may change."""
    from funnybirds_cases import FunnyBirdsArchive

    return FunnyBirdsArchive(tmp_path, pictures=False)


@pytest.fixture(scope="session")
def shared_birds(tmp_path_factory):
    """An archive of FunnyBirds that no test changes."""
    from funnybirds_cases import FunnyBirdsArchive

    return FunnyBirdsArchive(tmp_path_factory.mktemp("funnybirds"))
