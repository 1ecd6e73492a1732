"""Folders of models by somebody who can work out a SHA-256."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hostile_files import CHANGED, FOREIGN, PLACES, SPOILED
from model_folder_cases import CLASSES, GIGANTIC, described, met, questions, weighed
from PIL import Image

import explainkit as ek
from explainkit.errors import ExplainKitError, FormatError
from explainkit.explanations.serialization import pack, unpack


def test_the_models_are_good_ones(saved, contained, answer):
    for name in ("cam", "protopnet"):
        assert all(answer(question) for question in questions(ek.load(saved / name)))


@pytest.mark.parametrize("how", SPOILED)
def test_weights_that_are_none_are_refused(folder, contained, how):
    weighed(folder, SPOILED[how]((folder / "network.safetensors").read_bytes()))

    with pytest.raises(FormatError, match="model"), contained():
        ek.load(folder)


@pytest.mark.parametrize("how", CHANGED)
def test_changed_weights_are_refused_or_answer(folder, contained, answer, how):
    weighed(folder, CHANGED[how]((folder / "network.safetensors").read_bytes()))

    met(folder, contained, answer)


@pytest.mark.parametrize("what", FOREIGN)
def test_a_description_that_is_none_is_refused(folder, contained, what):
    (folder / "explainer.json").write_bytes(FOREIGN[what])

    with pytest.raises(FormatError, match=r"explainer\.json|schema"), contained():
        ek.load(folder)


TEXTS = {
    "cut": lambda text: text[:-20],
    "more": lambda text: text + "]",
    "a comment": lambda text: "// a comment\n" + text,
    "a comma too many": lambda text: text.rstrip()[:-1] + ",}",
    "NaN": lambda text: text.replace("0.05", "NaN"),
    "infinity": lambda text: text.replace("0.05", "-Infinity"),
    "beyond all numbers": lambda text: text.replace("0.05", "1e999"),
    "a name twice": lambda text: text.replace('"seed"', '"seed": 1, "seed"'),
    "half a character": lambda text: text.replace("jay", "\\ud800"),
    "an end": lambda text: text.replace("jay", "\0"),
    "deep": lambda text: '{"a":' * 100_000,
    "deep within": lambda text: text.replace('"history": [', '"history": [' + "[" * 400 + "]" * 400),
    "a huge number": lambda text: text.replace('"seed": null', '"seed": ' + "9" * 5000),
    "a list": lambda text: f"[{text}]",
    "in Latin": lambda text: text.replace("jay", "jäy").encode("latin-1"),
    "a hundred megabytes": lambda text: text + " " * 100_000_000,
}


@pytest.mark.parametrize("how", TEXTS)
def test_a_description_that_is_not_ours_is_refused(folder, contained, how):
    path = folder / "explainer.json"
    text = TEXTS[how](path.read_text())
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(FormatError, match="model"), contained():
        ek.load(folder)


@pytest.mark.parametrize("file", ["explainer.json", "network.safetensors"])
@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_ordinary_file_is_refused_without_waiting(folder, contained, file, what):
    (folder / file).unlink()
    PLACES[what](folder / file)

    with pytest.raises(ExplainKitError) as error, contained():
        ek.load(folder)

    assert "root:" not in str(error.value)


def test_a_link_to_the_folder_itself_is_followed_once(folder, contained):
    (folder / "again").symlink_to(folder)

    with contained():
        assert ek.load(folder / "again" / "again").classes == CLASSES


# what they hold


def squeezed(value):
    return value.flatten()[:1].squeeze()


VALUES = {
    "left out": lambda _: None,
    "a number": squeezed,
    "nothing": lambda value: value.flatten()[:0],
    "a row too many": lambda value: torch.cat([value, value[:1]]) if value.ndim else value[None],
    "an axis too many": lambda value: value[None],
    "flat": lambda value: value.flatten(),
    "NaN": lambda value: torch.full(value.shape, float("nan")),
    "infinity": lambda value: torch.full(value.shape, float("inf")),
    "huge": lambda value: torch.full(value.shape, 3e38),
    "below zero": lambda value: -value.float() - 1,
    "zero": torch.zeros_like,
    "whole numbers": lambda value: value.long(),
    "the largest number": lambda value: torch.full(value.shape, 2**63 - 1),
    "the smallest number": lambda value: torch.full(value.shape, -(2**63)),
    "truths": lambda value: value.bool(),
    "pairs": lambda value: value.to(torch.complex64),
    "eight bits": lambda value: value.float().to(torch.float8_e4m3fn),
    "double": lambda value: value.double(),
}
OF_CAM = ("head.weight", "head.bias", "backbone.stem.0.weight", "backbone.stem.1.running_var")
OF_CAM += ("backbone.stem.1.num_batches_tracked",)
OF_PROTOPNET = (
    "prototypes", "owner", "projected", "accuracies", "head.weight", "add_on.0.weight", "sources.image",
    "sources.cell", "sources.box", "sources.picture", "sources.moved",
)  # fmt: skip


def with_tensor(folder, name, change):
    path = folder / "network.safetensors"
    tensors, _ = unpack(path.read_bytes(), path)
    value = change(tensors.pop(f"network.{name}"))
    weighed(folder, pack(tensors if value is None else tensors | {f"network.{name}": value}, {}))


@pytest.mark.parametrize("name", OF_CAM)
def test_other_weights_are_refused_or_harmless(saved, tmp_path, contained, answer, name):
    for number, change in enumerate(VALUES.values()):
        folder = shutil.copytree(saved / "cam", tmp_path / f"model {number}")
        with_tensor(folder, name, change)

        met(folder, contained, answer)


@pytest.mark.parametrize("name", OF_PROTOPNET)
def test_other_prototypes_are_refused_or_harmless(saved, tmp_path, contained, answer, name):
    for number, change in enumerate(VALUES.values()):
        folder = shutil.copytree(saved / "protopnet", tmp_path / f"model {number}")
        with_tensor(folder, name, change)

        met(folder, contained, answer)


HELD = {
    "one more tensor": {"network.more": torch.zeros(3)},
    "a tensor of no network": {"more": torch.zeros(3)},
    "pictures of nothing and all": {"network.sources.picture": torch.zeros(0, 3, 10**5, 10**5).byte()},
    "owners of nobody": {"network.owner": torch.full((6,), 99)},
    "owners below zero": {"network.owner": torch.full((6,), -1)},
    "boxes outside": {"network.sources.box": torch.full((6, 4), 99)},
    "boxes inside out": {"network.sources.box": torch.tensor([[8, 8, 0, 0]] * 6)},
    "a million owners": {"network.owner": torch.zeros(10**6, dtype=torch.long)},
}


@pytest.mark.parametrize("what", HELD)
def test_what_it_holds_against_the_rules_is_refused_or_harmless(prototypes, contained, answer, what):
    path = prototypes / "network.safetensors"
    tensors, _ = unpack(path.read_bytes(), path)
    weighed(prototypes, pack(tensors | HELD[what], {}))

    assert not met(prototypes, contained, answer) or what in ("a tensor of no network", "owners below zero")


# the command


def test_the_command_ends_in_words_within_little_memory(saved, tmp_path):
    """Under a limit that one of these networks alone would break."""
    for number, change in enumerate([*GIGANTIC.values(), {}]):
        folder = shutil.copytree(saved / "protopnet", tmp_path / f"model {number}")
        described(folder, lambda facts, change=change: facts["settings"].update(change))
    code = """
import sys, resource
from pathlib import Path
import explainkit as ek
from explainkit.cli import main
import explainkit.training, explainkit_protopnet.explainer
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
print([main(["explain", folder, "picture.png"]) for folder in sys.argv[1:]])
"""
    folders = sorted(str(path) for path in tmp_path.glob("model *"))
    Image.new("RGB", (16, 16)).save(tmp_path / "picture.png")

    ran = subprocess.run(
        [sys.executable, "-c", code, *folders], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    statuses = json.loads(ran.stdout.splitlines()[-1])
    assert sorted(statuses) == [0] + [2] * len(GIGANTIC)
    lines = ran.stderr.splitlines()
    assert len(lines) == len(GIGANTIC) and all(line.startswith("explainkit: ") for line in lines)
