"""Checkpoints by somebody else: a run that goes on from one learns, or ends in words."""

import shutil

import pytest
import torch
from hostile_files import CHANGED, PLACES, SPOILED, WRONG
from hypothesis import given, settings
from hypothesis import strategies as st

from explainkit.errors import ExplainKitError, FormatError
from explainkit.explanations.serialization import pack, unpack
from explainkit.testing import tiny_dataset
from explainkit.training.checkpoints import FILE
from explainkit_cam.explainer import CAM


class Copier:
    """Keeps the checkpoint that is on disk while the second epoch ends."""

    def __init__(self, folder):
        self.folder = folder

    def log(self, epoch):
        if epoch.epoch == 2:
            shutil.copy(self.folder / FILE, self.folder / "kept")

    def close(self):
        pass


def fitted(folder, resume=True, loggers=()):
    return CAM(backbone="tiny", epochs=2, batch_size=96).fit(
        tiny_dataset(), device="cpu", progress=False, checkpoints=folder, resume=resume, loggers=loggers
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A checkpoint after one of two epochs, its optimizer and its schedule inside."""
    folder = tmp_path_factory.mktemp("run")
    fitted(folder, resume=False, loggers=[Copier(folder)])
    return (folder / "kept").read_bytes()


@pytest.fixture
def file(tmp_path):
    return tmp_path / FILE


def met(file, contained):
    """Whether a run goes on from the checkpoint."""
    try:
        with contained():
            fitted(file.parent)
    except ExplainKitError:
        return False
    return True


def test_the_checkpoint_is_a_good_one(content, file, contained):
    file.write_bytes(content)

    assert met(file, contained)


@pytest.mark.parametrize("how", SPOILED)
def test_a_file_that_is_none_is_refused(content, file, contained, how):
    file.write_bytes(SPOILED[how](content))

    with pytest.raises(FormatError, match=FILE), contained():
        fitted(file.parent)


@pytest.mark.parametrize("how", CHANGED)
def test_a_changed_bit_is_refused_or_learned_away(content, file, contained, how):
    file.write_bytes(CHANGED[how](content))

    met(file, contained)


BEGINS = {"a link to nothing", "a link to itself"}
"""Where there is nothing yet, so that a run begins there."""


@pytest.mark.parametrize("what", [what for what in PLACES if what not in BEGINS])
def test_what_is_no_ordinary_file_is_refused_without_waiting(file, contained, what):
    PLACES[what](file)

    with pytest.raises(ExplainKitError, match=FILE), contained():
        fitted(file.parent)


def at(*path):
    """A change of the value at the end of a path into the facts."""
    *way, last = path

    def put(facts, value):
        for step in way:
            facts = facts[step]
        facts[last] = value

    return put


FIELDS = {
    "/".join(map(str, path)): path
    for path in (
        ("schema",), ("run",), *(("run", name) for name in ("dataset", "plan", "threads")),
        ("has_best_state",), ("state",),
        *(("state", name) for name in ("position", "epochs", "history", "initial_losses", "loss_sums")),
        *(("state", name) for name in ("best", "epochs_since_best")),
        *(("state", "position", name) for name in ("item", "round", "phase", "stage", "epoch", "step")),
        ("state", "history", 0), ("state", "history", 0, "train_losses"),
        ("state", "initial_losses", "cross_entropy"), ("state", "best", 0),
        ("optimizer",), ("optimizer", "groups"), ("optimizer", "groups", 0),
        *(("optimizer", "groups", 0, name) for name in ("lr", "betas", "eps", "weight_decay", "amsgrad")),
        *(("optimizer", "groups", 0, name) for name in ("foreach", "capturable", "maximize", "max_lr")),
        *(("optimizer", "groups", 0, name) for name in ("initial_lr", "params")),
        ("optimizer", "state"), ("schedule",),
        *(("schedule", name) for name in ("last_epoch", "total_steps", "_step_count", "_last_lr")),
        ("schedule", "base_lrs"),
        ("schedule", "_schedule_phases"), ("schedule", "_schedule_phases", 0, "end_step"),
    )
}  # fmt: skip


OTHER = list(WRONG.values())[::2]  # every one takes a run


@pytest.mark.parametrize("path", FIELDS)
def test_a_fact_of_another_kind_is_refused_or_harmless(content, file, contained, path):
    for value in OTHER:
        tensors, facts = unpack(content, file)
        at(*FIELDS[path])(facts, value)
        file.write_bytes(pack(tensors, facts))

        met(file, contained)


SAID = {
    "no run": lambda facts: facts.pop("run"),
    "no state": lambda facts: facts.pop("state"),
    "no schedule": lambda facts: facts.pop("schedule"),
    "no groups": lambda facts: facts["optimizer"].update(groups=[]),
    "a group too many": lambda facts: facts["optimizer"]["groups"].append({}),
    "a setting too many": lambda facts: facts["schedule"].update(step=3),
    "another optimizer": lambda facts: facts["schedule"].update(optimizer="x"),
    "a step below zero": lambda facts: facts["state"]["position"].update(step=-1),
    "a step beyond the epoch": lambda facts: facts["state"]["position"].update(step=1000),
    "an epoch below zero": lambda facts: facts["state"]["position"].update(epoch=-1),
    "a schedule ahead": lambda facts: facts["schedule"].update(last_epoch=10**6),
    "a schedule behind": lambda facts: facts["schedule"].update(last_epoch=-10),
    "a schedule without length": lambda facts: facts["schedule"].update(total_steps=0),
    "a parameter that is not there": lambda facts: facts["optimizer"]["state"].update({"999": {"step": 1}}),
    "a parameter that is no number": lambda facts: facts["optimizer"]["state"].update({"a": {"step": 1}}),
    "a best that is not there": lambda facts: facts.update(has_best_state=True),
    "betas of two": lambda facts: facts["optimizer"]["groups"][0].update(betas=[2, 2]),
    "a rate below zero": lambda facts: facts["optimizer"]["groups"][0].update(lr=-1),
    "a rate of words": lambda facts: facts["optimizer"]["groups"][0].update(lr="1"),
    "a rate of the graph": lambda facts: facts["optimizer"]["groups"][0].update(capturable=True),
}


@pytest.mark.parametrize("what", SAID)
def test_what_no_run_remembers_is_refused(content, file, contained, what):
    tensors, facts = unpack(content, file)
    SAID[what](facts)
    file.write_bytes(pack(tensors, facts))

    with pytest.raises(FormatError, match=FILE), contained():
        fitted(file.parent)


TENSORS = (
    "network.head.weight", "network.backbone.stem.1.running_var", "random.cpu", "optimizer.0.exp_avg",
    "optimizer.0.exp_avg_sq", "optimizer.0.step", "best.head.weight", "optimizer.0.more", "optimizer.99.step",
    "optimizer.-1.exp_avg", "optimizer.x.step", "optimizer.0.", "network.more",
)  # fmt: skip
VALUES = {
    "left out": lambda _: None,
    "a number": lambda value: value.flatten()[:1].squeeze(),
    "a row": lambda value: value[None],
    "nothing": lambda value: value.flatten()[:0],
    "flat": lambda value: value.flatten(),
    "NaN": lambda value: torch.full(value.shape, float("nan")),
    "infinity": lambda value: torch.full(value.shape, float("inf")),
    "huge": lambda value: torch.full(value.shape, 3e38),
    "below zero": lambda value: -value.float() - 1,
    "zero": torch.zeros_like,
    "whole numbers": lambda value: value.long(),
    "pairs": lambda value: value.to(torch.complex64),
    "eight bits": lambda value: value.float().to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("name", TENSORS)
def test_other_values_are_refused_or_learned_away(content, file, contained, name):
    for change in VALUES.values():
        tensors, facts = unpack(content, file)
        value = change(tensors.pop(name, torch.ones(3, 32)))
        file.write_bytes(pack(tensors if value is None else tensors | {name: value}, facts))

        met(file, contained)


@settings(settings.get_profile("hostile"), max_examples=60)
@given(
    path=st.sampled_from(list(FIELDS.values())),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: (
            st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("abc"), inner, max_size=5)
        ),
    ),
)
def test_whatever_it_says_is_refused_or_goes_on(content, tmp_path_factory, contained, path, value):
    file = tmp_path_factory.getbasetemp() / FILE
    tensors, facts = unpack(content, file)
    at(*path)(facts, value)
    file.write_bytes(pack(tensors, facts))

    met(file, contained)
