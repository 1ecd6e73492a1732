"""Builders of networks stand beside the tests of each plugin, and in plugin_cases.py for several of them."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), *(str(folder) for folder in FOLDER.iterdir() if folder.is_dir())]
