"""Damaged checkpoints: no run goes on from one."""

import shutil

import pytest
import torch
from hostile_files import CHANGED, PLACES, SPOILED

from explainkit.errors import ExplainKitError, FormatError
from explainkit.explanations.serialization import pack, unpack
from explainkit.testing import tiny_dataset
from explainkit.training.checkpoints import FILE, Checkpoints
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
def test_a_changed_bit_is_found_by_the_digest(content, file, contained, how):
    file.write_bytes(CHANGED[how](content))

    with pytest.raises(FormatError, match=FILE), contained():
        fitted(file.parent)


def test_every_single_bit_counts(content, file):
    """Fifty bits anywhere: none of them leaves a file that a run would go on from."""
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(0, len(content), (50,), generator=generator).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)

        with pytest.raises(FormatError, match=FILE):
            Checkpoints(folder=file.parent).load()


BEGINS = {"a link to nothing", "a link to itself"}
"""Where there is nothing yet, so that a run begins there."""


@pytest.mark.parametrize("what", [what for what in PLACES if what not in BEGINS])
def test_what_is_no_ordinary_file_is_refused_without_waiting(file, contained, what):
    PLACES[what](file)

    with pytest.raises(ExplainKitError, match=FILE), contained():
        fitted(file.parent)


CHANGES = {
    "another step": lambda facts: facts["state"]["position"].update(epoch=0),
    "another rate": lambda facts: facts["optimizer"]["groups"][0].update(lr=1.0),
    "another plan": lambda facts: facts["run"].update(plan=[]),
    "no state": lambda facts: facts.pop("state"),
    "no digest": lambda facts: facts.pop("digest"),
    "a digest of nothing": lambda facts: facts.update(digest=""),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_facts_are_found_by_the_digest(content, file, contained, what):
    tensors, facts = unpack(content, file)
    CHANGES[what](facts)
    file.write_bytes(pack(tensors, facts))

    with pytest.raises(FormatError, match=FILE), contained():
        fitted(file.parent)


@pytest.mark.parametrize("change", [lambda value: value + 1, lambda value: value[None]])
@pytest.mark.parametrize(
    "name", ["network.head.weight", "optimizer.0.exp_avg", "random.cpu", "best.head.weight"]
)
def test_other_tensors_are_found_by_the_digest(content, file, contained, name, change):
    tensors, facts = unpack(content, file)
    file.write_bytes(pack(tensors | {name: change(tensors.get(name, torch.zeros(3)))}, facts))

    with pytest.raises(FormatError, match=FILE), contained():
        fitted(file.parent)
