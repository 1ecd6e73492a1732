"""A third-party plugin: installed as users install it, and nothing in the core knows of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "explainkit-gridvote"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the plugin was installed to."""
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    run("-m", "pip", "install", *options, "--target", str(target), str(EXAMPLE))
    return target


def run(*arguments, target=None):
    """What a fresh Python prints, with `target` among the folders that it imports from."""
    path = {"PYTHONPATH": str(target)} if target else {}
    process = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | path,
        cwd=target,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_listing_has_it_and_imports_no_torch(installed):
    code = """
import sys
from explainkit.cli import main
main(["plugins", "--json"])
assert "torch" not in sys.modules
"""

    rows = json.loads(run("-c", code, target=installed))

    (row,) = [row for row in rows if row["name"] == "gridvote"]
    assert (row["status"], row["distribution"]) == ("ok", "explainkit-gridvote")
    assert row["offers"] == {"explainers": ["gridvote"]}


def test_its_own_tests_hold_it_to_every_promise(installed):
    output = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"), target=installed)

    assert "1 passed" in output


def test_it_is_fitted_saved_and_drawn_by_name(installed):
    code = """
import explainkit as ek
from explainkit.testing import tiny_dataset

dataset = tiny_dataset()
model = ek.explainer("gridvote", preset="digits", epochs=20).fit(dataset, seed=0)
assert model.evaluate(dataset, ["test"])["test"]["accuracy"] > 0.9
batch = next(dataset.batches("test", batch_size=3))
explanations = ek.load(ek.save(model, "saved")).explain(batch).check_additivity()
assert explanations.provenance.explainer == "gridvote"
assert explanations.provenance.versions["explainkit-gridvote"] == "0.1.0"
assert "row" in explanations[0].sentence()
assert explanations[0].figure().axes
assert "gridvote" in ek.report(explanations, "page.html").read_text(encoding="utf-8")
"""

    run("-c", code, target=installed)


@pytest.mark.slow
def test_votes_are_logits_contrasts_and_any_size_of_image(installed):
    code = """
import torch
from explainkit_gridvote.voting import GridVoteNetwork
import explainkit as ek

torch.manual_seed(0)
network = GridVoteNetwork(ek.backbone("tiny"), 5, grid=4).eval()
model = ek.explainer("gridvote", network=network, classes=list("abcde"))
for size in ((32, 32), (21, 50), (9, 9)):
    images = torch.rand(3, 3, *size)
    with torch.no_grad():
        votes = network.ballot(network.cells(network.backbone(images))) / 16  # (N, C, 4, 4)
    explanations = model.explain(images, "b").check_additivity()
    contrast = explanations.contrast(["a", "c", "e"]).check_additivity()
    margin = explanations.logits[:, 1] - explanations.logits[range(3), [0, 2, 4]]
    for values, expected in (
        (explanations.contributions.view(3, 4, 4), votes[:, 1]),
        (explanations.saliency((4, 4)), votes[:, 1]),
        (contrast.contributions[2].view(4, 4), votes[2, 1] - votes[2, 4]),
        (contrast.explained_output, margin),
    ):  # a thousand times float32's rounding, as a share of the votes
        assert torch.allclose(values, expected, rtol=0, atol=1e-4 * votes.abs().sum((2, 3)).max())
"""

    run("-c", code, target=installed)


def test_an_eighth_plugin_touches_nothing_outside_its_folder():
    ours = [ROOT / "pyproject.toml", ROOT / "Makefile"]
    for folder in ("explainkit", "plugins", "adapters"):
        ours += (ROOT / folder).rglob("*.py")

    assert not [path for path in ours if "gridvote" in path.read_text(encoding="utf-8").lower()]
