"""How many hostile inputs there are, beside those that Hypothesis makes up."""

from pathlib import Path
from runpy import run_path


def test_there_are_five_hundred_hostile_inputs_and_more():
    modules = sorted(Path(__file__).parent.glob("test_*.py"))

    counts = {path.stem: len(run_path(str(path)).get("INPUTS", ())) for path in modules}

    print(counts)
    assert counts.pop("test_count") == 0 and all(counts.values()) and len(counts) == 6
    assert sum(counts.values()) >= 500
