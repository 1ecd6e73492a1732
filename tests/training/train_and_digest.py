"""``explainkit train NAME`` under torchrun, and a digest of its network: ``train_and_digest.py OUT NAME``."""

import os
import sys
from pathlib import Path

from explainkit.cli import main
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.state import state_digest


def run(out, name):
    fit = InterpretableExplainer.fit

    def fit_and_digest(explainer, *args, **kwargs):
        fitted = fit(explainer, *args, **kwargs)
        (out / f"digest.{os.environ['RANK']}").write_text(state_digest(fitted.network))
        return fitted

    InterpretableExplainer.fit = fit_and_digest
    options = ["--dataset-option", "classes=5", "--dataset-option", "size=32", "--dataset-option", "train=64"]
    sys.exit(
        main(["train", name, "--preset", "tiny", *options, "--device", "cpu", "--out", str(out / "model")])
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
