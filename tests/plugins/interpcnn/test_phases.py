"""Training: alike to a plain network where it should be, cut off and resumed, and shared by processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve
from interpcnn_networks import fitted_explainer
from safetensors.torch import load_file

import explainkit as ek
from explainkit.testing import tiny_dataset

LEARNER = Path(__file__).with_name("surrogate_learner.py")
SETTINGS = {"preset": "tiny", "epochs": 4, "batch_size": 32}


def fit(dataset=None, name="interp-cnn", **settings):
    explainer = ek.explainer(name, **{**SETTINGS, **settings})
    return explainer.fit(dataset or tiny_dataset(), seed=1, device="cpu", progress=False)


def test_without_mask_and_loss_it_learns_what_a_plain_network_learns_bit_for_bit():
    plain = fit(name="cam").network.state_dict()
    ours = fit(mask=False, filter_weight=0.0).network.state_dict()

    assert plain.keys() < ours.keys()
    assert all(torch.equal(ours[name], value) for name, value in plain.items())


@pytest.mark.parametrize("variant", ["mi", "target"])
def test_a_run_that_is_cut_off_and_resumed_ends_bit_for_bit_as_one_that_is_not(variant, tmp_path):
    class StoppedError(Exception):
        pass

    class Stopper:
        def log(self, epoch):
            if epoch.epoch == 2:
                raise StoppedError

        def close(self):
            pass

    whole = fit(variant=variant, freeze_after=0.7)
    explainer = ek.explainer("interp-cnn", **SETTINGS, variant=variant, freeze_after=0.7)
    common = {"seed": 1, "device": "cpu", "progress": False, "checkpoints": tmp_path / variant}
    with pytest.raises(StoppedError):
        explainer.fit(tiny_dataset(), loggers=[Stopper()], **common)
    resumed = ek.explainer("interp-cnn", **SETTINGS, variant=variant, freeze_after=0.7)
    resumed.fit(tiny_dataset(), resume=True, **common)

    state = resumed.network.state_dict()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(state[name], value), name
    assert {"category", "class_activation", "is_class_seen"} <= state.keys()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_by_the_surrogate(tmp_path):
    plain = {name: value for name, value in os.environ.items() if name != "RANK"} | {"OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start, out in ([], "alone"), (torchrun, "shared"):
        (tmp_path / out).mkdir()
        command = [sys.executable, *start, str(LEARNER), str(tmp_path / out)]
        ended = subprocess.run(command, capture_output=True, text=True, env=plain, check=False)
        assert ended.returncode == 0, ended.stderr

    alone = load_file(tmp_path / "alone" / "interp-cnn.0")
    for rank in range(2):
        shared = load_file(tmp_path / "shared" / f"interp-cnn.{rank}")
        for name, value in alone.items():
            assert (shared[name].double() - value.double()).abs().max() <= 1e-9, name


def test_classes_of_filters_stay_from_the_stated_share_on():
    recorded = []

    class Recording(type(ek.explainer("interp-cnn", preset="tiny"))):
        def phases(self):
            (phase,) = super().phases()

            def watch(network, step):
                phase.on_step_end(network, step)
                recorded.append((step.progress, network.category.clone(), network.class_activation.clone()))

            return [evolve(phase, on_step_end=watch)]

    settings = {key: value for key, value in SETTINGS.items() if key != "preset"}
    explainer = Recording(**Recording.presets["tiny"] | settings, freeze_after=0.5)
    explainer.fit(tiny_dataset(), device="cpu", progress=False)

    frozen = [each for each in recorded if each[0] >= 0.5]
    last_free = [each for each in recorded if each[0] < 0.5][-1]
    assert frozen and len(recorded) == 12
    for _, category, activation in frozen:
        assert torch.equal(category, last_free[1]) and torch.equal(activation, last_free[2])
    assert not torch.equal(recorded[0][2], last_free[2])


def test_the_information_rises_while_it_learns():
    history = fit(epochs=6, filter_weight=0.5).history

    assert "information" not in history[0].train_losses
    assert history[-1].train_losses["information"] < history[1].train_losses["information"]


def test_the_shares_of_classes_are_those_of_the_training_images():
    labels = tiny_dataset().train.labels
    share = torch.bincount(labels, minlength=3) / len(labels)

    torch.testing.assert_close(fitted_explainer().network.class_share, share)
