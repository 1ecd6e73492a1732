"""Descriptions of models by somebody who can work out a SHA-256."""

import shutil

import pytest
import torch
from hostile_files import WRONG, peak
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folder_cases import FIELDS, GIGANTIC, SETTINGS, described, met

import explainkit as ek
from explainkit.errors import ExplainKitError, FormatError


def the(name, value):
    """A change of one thing that is said."""
    return lambda facts: facts.update({name: value})


def the_setting(name, value):
    return lambda facts: facts["settings"].update({name: value})


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
        f"size {size}": the("input", {"size": size})
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
