"""Trains the label-aware variant in float64 and saves how it ends: ``surrogate_learner.py OUT``."""

import sys

from explainkit.testing import process_checks
from explainkit_interpcnn.explainer import InterpCNN

if __name__ == "__main__":
    settings = {"variant": "target", "filter_weight": 1e-3, "freeze_after": 0.6}
    InterpCNN.presets = {**InterpCNN.presets, "tiny": InterpCNN.presets["tiny"] | settings}
    process_checks.main(sys.argv[1], "interp-cnn")
