"""``explainkit evaluate --funnybirds``, and the benchmark that prints the figures of the documentation."""

import json
import runpy
from pathlib import Path

import pytest

import explainkit as ek
from explainkit.cli import main
from explainkit.data.datasets.aviary.dataset import aviary

SETTINGS = {"preset": "funny", "classes": 5, "size": 32, "train": 10, "validation": 3, "test": 3}


def test_a_saved_model_is_measured_by_funnybirds_scores(tmp_path, capsys) -> None:
    model = ek.explainer("cam", preset="tiny", epochs=1)
    ek.save(model.fit(aviary(**SETTINGS), device="cpu", progress=False), tmp_path / "model")
    options = [word for name, value in SETTINGS.items() for word in ("--dataset-option", f"{name}={value}")]
    numbers = tmp_path / "scores.json"

    status = main(
        [
            "evaluate",
            str(tmp_path / "model"),
            *options,
            "--funnybirds",
            "--images",
            "3",
            "--json",
            str(numbers),
        ]
    )

    assert status == 0
    assert capsys.readouterr().out.count("fb-threshold") == 2
    assert set(json.loads(numbers.read_text())) == {"schema", "by_validation", "by_test"}


@pytest.mark.slow
def test_the_benchmark_runs_and_loads_what_it_trained(tmp_path, monkeypatch, capsys) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "funnybirds.py"
    argv = [
        "funnybirds.py", "--preset", "tiny", "--images", "2", "--custom-images", "4", "--threads", "1",
        "--explainers", "cam", "protopnet", "--post-hoc", "captum/saliency",
        "--models", str(tmp_path / "models"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", argv)

    for is_trained in (False, True):
        assert (tmp_path / "models" / "cam-0").exists() == is_trained
        runpy.run_path(str(script), run_name="__main__")

    out = capsys.readouterr().out
    assert out.count("accuracy") >= 2 and "protopnet, boxes" in out and "captum/saliency" in out
    assert "unreasonable swaps, any class" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "cam-0.json", "protopnet-0.json", "custom-0.json",
    }  # fmt: skip
