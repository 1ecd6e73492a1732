"""What each phase of training changes."""

from itertools import pairwise

import pytest
import torch
from plugin_cases import assert_near, networks_by_phase
from senn_networks import fitted_explainer

import explainkit as ek
from explainkit.networks.normalization import batch_mixing_module
from explainkit.testing import tiny_dataset, tiny_images


def changed_children(before, after):
    """The children of which a value of the state is not what it was."""
    state = after.state_dict()
    return {
        name.partition(".")[0]
        for name, value in before.state_dict().items()
        if name not in state or not torch.equal(value, state[name])
    }


def test_each_phase_moves_what_it_says_and_nothing_else():
    networks = list(networks_by_phase(ek.explainer("senn", preset="tiny"), tiny_dataset()))

    moved = [(name, changed_children(before, after)) for (_, before), (name, after) in pairwise(networks)]

    assert moved == [
        ("learn", {"conceptizer", "parametrizer"}),
        ("steady", {"parametrizer"}),
        ("settle", {"conceptizer", "parametrizer", "grounds"}),
    ]
    before, after = (dict(network.named_parameters()) for _, network in networks[2:])
    assert before.keys() == after.keys()
    # all of them learn while it settles, biases of folded convolutions too
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_coming_to_rest_changes_no_logit():
    networks = dict(networks_by_phase(ek.explainer("senn", preset="tiny"), tiny_dataset()))

    assert batch_mixing_module(networks["learn"].parametrizer)
    assert batch_mixing_module(networks["steady"].parametrizer) is None
    images = tiny_images()
    assert_near(networks["steady"](images), networks["learn"](images), 1e-3)  # each folded layer rounds


def test_grounding_changes_the_grounds_alone():
    networks = dict(networks_by_phase(ek.explainer("senn", preset="tiny", settle_epochs=0), tiny_dataset()))

    assert changed_children(networks["steady"], networks["settle"]) == {"grounds"}


def test_the_robustness_term_begins_when_images_do_not_mix():
    model = fitted_explainer()

    terms = {epoch.phase: set(epoch.train_losses) for epoch in model.history}

    assert "robustness" not in terms["learn"] and "robustness" in terms["settle"]
    assert all(epoch.train_losses["robustness"] > 0 for epoch in model.history if epoch.phase == "settle")


def test_a_run_that_was_cut_off_ends_as_the_whole_one(tmp_path):
    class Cut:
        def log(self, epoch):
            if epoch.phase == "settle":
                raise KeyboardInterrupt

        def close(self):
            pass

    settings = {"device": "cpu", "progress": False, "checkpoints": tmp_path}
    interrupted = ek.explainer("senn", preset="tiny", settle_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(tiny_dataset(), loggers=[Cut()], **settings)
    resumed = ek.explainer("senn", preset="tiny", settle_epochs=2)
    resumed.fit(tiny_dataset(), resume=True, **settings)

    whole = ek.explainer("senn", preset="tiny", settle_epochs=2).fit(
        tiny_dataset(), device="cpu", progress=False
    )

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_the_same_seed_gives_the_same_network():
    second = ek.explainer("senn", preset="tiny").fit(tiny_dataset(), device="cpu", progress=False)

    assert torch.equal(second.predict(tiny_images()), fitted_explainer().predict(tiny_images()))
