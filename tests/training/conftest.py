"""Tests of training share a small network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # of trainer_cases.py
