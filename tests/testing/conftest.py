"""Checks are tried on networks that lie, which tests of questions have."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "questions"))  # of leak_cases.py
