"""`explainkit export`, and the example that runs what it wrote, where there is no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import explainkit as ek
from explainkit.cli import main
from explainkit.testing import fitted_example

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="needs the extra onnx")

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "run_graph.py"
WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "explainkit"):
    sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model, and what the command made of it."""
    folder = tmp_path_factory.mktemp("exported")
    ek.save(fitted_example("cam"), folder / "model")
    values = np.random.default_rng(0).integers(0, 255, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "photo.png")
    assert main(["export", str(folder / "model"), str(folder / "model.onnx")]) == 0
    return folder


def test_the_command_writes_the_graph_and_says_what_is_in_it(folder, capsys):
    options = ["--output", "contributions", "--top", "2", "--targets", "input"]

    status = main(["export", str(folder / "model"), str(folder / "top.onnx"), *options])

    said = capsys.readouterr().out
    assert status == 0 and (folder / "top.onnx").stat().st_size > 10_000
    names = [line.split()[0] for line in said.splitlines()]
    assert names == ["units", "contributions", "remainder", "graph:"]
    assert "differs by" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "model.onnx"], "Expected a file of explainkit at"),
        (["model", "model"], "Expected a path that can be written"),
        (["model", "other.onnx", "--output", "heat"], "Expected outputs of logits, base"),
        (["model", "other.onnx", "--top", "0"], "top as a whole number of at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(folder, arguments, words, capsys):
    model, path, *options = arguments

    status = main(["export", str(folder / model), str(folder / path), *options])

    error = capsys.readouterr().err
    assert status == 2 and words in error and error.count("\n") == 1
    assert not (folder / "other.onnx").exists()


def test_the_example_says_without_torch_what_the_model_says(folder):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(EXAMPLE), "model.onnx", "photo.png"]

    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=dict(os.environ))

    assert ran.returncode == 0, ran.stderr
    expected = fitted_example("cam").explain([folder / "photo.png"])
    first, *reasons = ran.stdout.splitlines()
    logit = float(expected.explained_output)
    assert first.startswith(f"{expected.classes[int(expected.targets)]}: {logit:.4f} = ")
    assert f"by cam, model {expected.provenance.model_digest[:12]}" in first
    top = expected.top(3)
    assert reasons == [
        f"{value:+.4f} {expected.units.names[unit]}"
        for unit, value in zip(top.unit[0].tolist(), top.contribution[0].tolist(), strict=True)
    ]


def test_the_example_is_short_and_the_metadata_are_json(folder):
    import onnxruntime

    code = [line for line in EXAMPLE.read_text().split('"""')[2].splitlines() if line.strip()]
    metadata = onnxruntime.InferenceSession(folder / "model.onnx").get_modelmeta().custom_metadata_map

    assert len(code) <= 25
    assert json.loads(metadata["explainkit"])["explainer"] == "cam"
