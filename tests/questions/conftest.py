"""Questions are asked of networks that stand beside their tests."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # of toys.py
torch.set_num_threads(1)
