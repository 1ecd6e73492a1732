"""Explainers are compared by what they explain, with the cases of tests/explanations."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "explanations"))
