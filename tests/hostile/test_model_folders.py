"""Folders of models by somebody who can work out a SHA-256."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hostile_files import CHANGED, FOREIGN, PLACES, SPOILED, WRONG, peak
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import explainkit as ek
from explainkit.errors import ExplainKitError, FormatError
from explainkit.explanations.serialization import pack, unpack
from explainkit_cam.explainer import CAM
from explainkit_protopnet.explainer import ProtoPNet

CLASSES = ("cardinal", "jay", "wren")


def made(explainer, size=(16, 16)):
    """An explainer as `fit` leaves it, without the cost."""
    torch.manual_seed(0)
    network = explainer._build_network(ek.Task(classes=3, size=32)).eval()
    if isinstance(explainer, ProtoPNet):
        network.start = None
        network.projected.fill_(True)
        network.sources.image.fill_(1)
        network.sources.box[:, 2:] = 8
        network.sources.picture = torch.zeros(len(network.owner), 3, 16, 16, dtype=torch.uint8)
    return explainer._adopt(network, CLASSES, size)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folders of a CAM and of a ProtoPNet."""
    place = tmp_path_factory.mktemp("saved")
    ek.save(made(CAM(backbone="tiny")), place / "cam")
    ek.save(
        made(ProtoPNet(backbone="tiny", prototypes_per_class=2, depth=8, start_epochs=0)), place / "protopnet"
    )
    return place


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved / "cam", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def prototypes(saved, tmp_path):
    shutil.copytree(saved / "protopnet", tmp_path / "model")
    return tmp_path / "model"


def described(folder, change):
    """Change what the description says, and keep its digest right."""
    path = folder / "explainer.json"
    facts = json.loads(path.read_text())
    facts["digest"] = hashlib.sha256((folder / "network.safetensors").read_bytes()).hexdigest()
    change(facts)
    path.write_text(json.dumps(facts))


def weighed(folder, content):
    """Change the weights, and put the digest right."""
    (folder / "network.safetensors").write_bytes(content)
    described(folder, lambda _: None)


def questions(model):
    """All that can be asked of a model."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    yield lambda: model.explain(images).check_additivity()
    yield lambda: model.explain(images)[0].sentence()
    yield lambda: model.explain(images, 0, foils=1).saliency()
    yield lambda: model.explain(images, "jay")
    yield lambda: model.explain(images).save("told.safetensors")
    yield lambda: ek.save(model, "again")


def met(folder, contained, answer):
    """Whether a folder is read; then every question is answered, or refused in words."""
    try:
        with contained():
            model = ek.load(folder)
    except ExplainKitError:
        return False
    for question in questions(model):
        answer(question)
    return True


def test_the_models_are_good_ones(saved, contained, answer):
    for name in ("cam", "protopnet"):
        assert all(answer(question) for question in questions(ek.load(saved / name)))


# the two files


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


# what it says


def the(name, value):
    """A change of one thing that is said."""
    return lambda facts: facts.update({name: value})


def the_setting(name, value):
    return lambda facts: facts["settings"].update({name: value})


FIELDS = (
    "schema", "explainer", "settings", "classes", "size", "seed", "bound", "units", "versions", "history",
    "digest",
)  # fmt: skip
SETTINGS = ("backbone", "epochs", "batch_size", "rate", "decay", "smoothing", "dropout", "precision")

SAID = {
    **{f"{name}: {what}": the(name, value) for name in FIELDS for what, value in WRONG.items()},
    **{f"its {name}: {what}": the_setting(name, value) for name in SETTINGS for what, value in WRONG.items()},
    "classes alike": the("classes", ["jay"] * 3),
    "a module": the("module", "os"),
    "an object of Python": the("py/object", "os.system"),
    "a thousand epochs of history": the("history", [{"epoch": 1}] * 1000),
    "another kind of pooling": lambda facts: facts["units"].update(pooling="none"),
}  # fmt: skip
"""What may be harmless."""

REFUSED = {
    **{
        f"explainer {name[:40]!r}": the("explainer", name)
        for name in (
            "captum/saliency", "captum/*", "torchvision/*", "digits", "os:system", "builtins.eval", "../cam",
            "/cam", "cam/../cam", "CAM", "cam\0", "cam ", "", "*", "a" * 10_000, "<script>", "\x1b[2J",
            "protopnet", "explainkit_cam.explainer:CAM", "__import__('os').system('touch sprung')",
        )
    },
    **{
        f"backbone {name[:40]!r}": the_setting("backbone", name)
        for name in (
            "torchvision/*", "torchvision/vit_h_14", "torchvision/regnet_y_128gf", "torchvision/",
            "torchvision/../../etc/passwd", "timm/resnet18", "https://example.org/x.pt", "/etc/passwd",
            "a" * 10_000, "small", "small\0",
        )
    },
    **{
        f"size {size}": the("size", size)
        for size in (
            [], [16], [16, 16, 16], [0, 0], [-16, 16], [10**9, 10**9], [10**5, 1], [True, True], [16.0, 16.0],
            ["16", "16"], [None, None], [[16], [16]], [10**300, 1], "16", 16, {"0": 16, "1": 16},
        )
    },
    **{f"seed {seed}": the("seed", seed) for seed in (-1, 2**63, 0.5, True, "0", [0], 10**100)},
    "no classes": the("classes", []),
    "a class too few": the("classes", ["a", "b"]),
    "a class too many": the("classes", list("abcd")),
    "a million classes": the("classes", ["a"] * 10**6),
    "a class for each letter": the("classes", "jay"),
    "classes of numbers": the("classes", [1, 2, 3]),
    "a network among the settings": the_setting("network", "resnet18"),
    "a preset among the settings": the_setting("preset", "small"),
    "classes among the settings": the_setting("classes", ["a"]),
    "an unknown setting": the_setting("speed", 3),
    "a setting of a path": the_setting("../x", 3),
    "a private setting": the_setting("__class__", "os.system"),
    "a size among the settings": the_setting("size", [10**6, 10**6]),
    "a dropout of two": the_setting("dropout", 2.0),
    "a thousand settings": lambda facts: facts["settings"].update({f"a{k}": k for k in range(1000)}),
    "bound to somebody's network": the("bound", True),
    "a unit too few": lambda facts: facts["units"]["names"].pop(),
    "a million units": lambda facts: facts["units"].update(names=["a"] * 10**6),
    "units of no pooling": lambda facts: facts["units"].update(pooling="median"),
    "names of numbers": lambda facts: facts["units"].update(names=[1] * 32),
    "phrases of numbers": lambda facts: facts["units"].update(phrases=[1] * 32),
    "another version of the schema": the("schema", "explainkit.explainer/1.0"),
    "a schema of explanations": the("schema", "explainkit.explanations/2.0"),
    "a schema of words": the("schema", "explainkit.explainer/one"),
}  # fmt: skip


@pytest.mark.parametrize("what", SAID)
def test_what_is_said_otherwise_is_refused_or_harmless(folder, contained, answer, what):
    described(folder, SAID[what])

    met(folder, contained, answer)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_said_against_the_rules_is_refused(folder, contained, what):
    described(folder, REFUSED[what])

    with pytest.raises(ExplainKitError), contained():
        ek.load(folder)


@pytest.mark.parametrize("missing", FIELDS)
def test_what_is_left_out_is_missed_if_it_matters(folder, contained, missing):
    described(folder, lambda facts: facts.pop(missing))

    if missing in ("versions", "history"):
        ek.load(folder)
    else:
        with pytest.raises(FormatError), contained():
            ek.load(folder)


def test_a_size_among_the_settings_is_no_size_for_a_network_of_the_callers(folder, contained):
    described(folder, lambda facts: facts["settings"].update(size=[10**6, 10**6]))
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )  # fmt: skip

    with pytest.raises(ExplainKitError, match="no setting 'size'"), contained():
        ek.load(folder, network=network.eval())


GIGANTIC = {
    f"{count:.0e} {what}": {what: count}
    for what in ("prototypes_per_class", "depth")
    for count in (10**7, 10**8, 10**9, 2**31 - 1, 10**12)
}
IMPOSSIBLE = {
    f"{count} {what}": {what: count}
    for what in ("prototypes_per_class", "depth")
    for count in (-1, 0, 3, 2**62, 2**63, 10**30, True, None, 2.0, 1e300, "2", [2])
}


@pytest.mark.parametrize("what", GIGANTIC)
def test_a_gigantic_network_is_refused_before_it_is_built(prototypes, contained, what):
    described(prototypes, lambda facts: facts["settings"].update(GIGANTIC[what]))
    before = peak()

    with pytest.raises(FormatError, match="far larger than the file"), contained():
        ek.load(prototypes)

    assert peak() - before < 700


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_network_is_refused(prototypes, contained, answer, what):
    described(prototypes, lambda facts: facts["settings"].update(IMPOSSIBLE[what]))

    assert (
        not met(prototypes, contained, answer) or what == "3 prototypes_per_class"
    )  # fewer are what pruning leaves


# what it holds


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


INPUTS = [
    *SPOILED,
    *CHANGED,
    *FOREIGN,
    *TEXTS,
    *PLACES,
    *PLACES,
    *SAID,
    *REFUSED,
    *FIELDS,
    *GIGANTIC,
    *IMPOSSIBLE,
]
INPUTS += [*HELD, *[0] * len(VALUES) * (len(OF_CAM) + len(OF_PROTOPNET))]


@settings(settings.get_profile("hostile"), max_examples=100)
@given(
    way=st.lists(st.sampled_from(FIELDS + SETTINGS), min_size=1, max_size=2),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    ),
)
def test_whatever_it_says_is_refused_or_answers(saved, tmp_path_factory, contained, answer, way, value):
    folder = tmp_path_factory.mktemp("model", numbered=True) / "model"
    shutil.copytree(saved / "cam", folder)
    described(folder, lambda facts: [place.update({way[-1]: value}) for place in (facts, facts["settings"])])

    met(folder, contained, answer)
