"""The wheel is all that a user needs: every package, typed, with its templates and entry points."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INITS = [*ROOT.glob("plugins/*/__init__.py"), *ROOT.glob("adapters/*/__init__.py")]
PLUGINS = sorted(path.parent for path in INITS)
PACKAGES = ["explainkit", *(folder.name for folder in PLUGINS)]
SHIPPED = (".py", ".jinja", "py.typed")


def run(*arguments, **settings):
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run("-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def target(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run("-m", "pip", "install", *options, "--target", str(folder), str(wheel))
    return folder


def test_the_wheel_has_every_module_of_the_tree_and_no_other(names):
    tree = {
        path.relative_to(folder.parent).as_posix()
        for folder in (ROOT / "explainkit", *PLUGINS)
        for path in folder.rglob("*")
        if path.name.endswith(SHIPPED)
    }
    packed = {name for name in names if ".dist-info/" not in name}

    assert packed == tree


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package, names):
    assert f"{package}/py.typed" in names


def test_the_templates_are_inside(names):
    assert "explainkit/rendering/templates/page.html.jinja" in names


def test_the_metadata_name_the_command_the_plugins_and_the_license(wheel):
    with zipfile.ZipFile(wheel) as archive:
        facts = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        entries = archive.read(facts["entry_points.txt"]).decode()
        metadata = archive.read(facts["METADATA"]).decode()

    assert "[console_scripts]\nexplainkit = explainkit.cli:main" in entries
    ours = re.findall(r"^(\w[\w-]*) = (\w+)", entries.partition("[explainkit]")[2], re.MULTILINE)
    assert {("builtins", "explainkit"), ("cam", "explainkit_cam")} <= set(ours)
    assert "Name: explainkit-sdk" in metadata and "License-Expression: Apache-2.0" in metadata
    assert "LICENSE" in facts


def test_the_installed_wheel_works_without_the_tree(target):
    code = f"""
import sys
sys.path.insert(0, {str(target)!r})  # before the checkout, which may be installed too
import importlib, pathlib
import torch
torch.set_num_threads(1)
import explainkit as ek
for package in {PACKAGES!r}:
    file = pathlib.Path(importlib.import_module(package).__file__)
    assert file.is_relative_to({str(target)!r}), file
from explainkit.rendering.html import _templates
from explainkit.testing import tiny_dataset
dataset = tiny_dataset()
model = ek.explainer("cam", backbone="tiny", epochs=1).fit(dataset)
page = ek.report(model.explain(next(dataset.batches("test", batch_size=2))), "page.html")
assert "<img" in page.read_text(encoding="utf-8")
"""

    run("-I", "-c", code, cwd=target)


def test_the_installed_command_lists_the_plugins_of_the_wheel(target):
    environment = os.environ | {"PYTHONPATH": str(target)}

    listed = run(str(target / "bin" / "explainkit"), "plugins", env=environment, cwd=target)

    assert "cam" in listed and "ok" in listed and "failed" not in listed
