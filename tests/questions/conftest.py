"""Questions are asked of networks that stand beside their tests."""

import sys
from pathlib import Path

import torch

for folder in ("questions", "explainers"):  # of toys.py and decision_cases.py
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
torch.set_num_threads(1)
