"""Explainers are asked about cases of explanations, of questions and of their own."""

import sys
from pathlib import Path

for folder in ("explainers", "explanations", "questions"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
