"""How many hostile inputs there are, beside those that Hypothesis makes up.

And how many of them always run.
"""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
FILES = (
    "checkpoints", "explanation_files", "images", "layouts", "model_descriptions", "model_folders",
    "page_markup",
)  # fmt: skip


def collected(selection):
    """How many tests of each file pytest selects, as pytest itself lists them."""
    command = [
        sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider",
        "-p", "no:xdist", "-m", selection, str(FOLDER),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent.parent)
    assert run.returncode == 0, run.stdout + run.stderr
    files = [line.partition("::")[0] for line in run.stdout.splitlines() if "::" in line]
    return {name: sum(file.endswith(f"test_{name}.py") for file in files) for name in FILES}


@pytest.mark.fuzz
def test_all_hostile_inputs_are_collected():
    counts = collected("fuzz or not fuzz")

    assert all(counts.values()) and sum(counts.values()) >= 1500


@pytest.mark.fuzz
def test_about_sixty_representative_inputs_run_always():
    counts = collected("not fuzz and not slow")

    assert all(count >= 5 for count in counts.values())
    assert 55 <= sum(counts.values()) <= 90
