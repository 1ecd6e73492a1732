"""Explanations go to other processes, and come back as they were."""

import copy
import multiprocessing
import pickle

import pytest
import torch
from cam_cases import make_cam, make_images

from explainkit.explainers.state import state_digest
from explainkit.registry import offers
from explainkit.testing import fitted_example, tiny_images


def the_same(one, other):
    assert torch.equal(one.contributions, other.contributions)
    assert torch.equal(one.saliency(), other.saliency())
    assert [item.sentence() for item in one] == [item.sentence() for item in other]
    assert one.provenance.model_digest == other.provenance.model_digest


@pytest.mark.parametrize("name", [name for name in offers("explainers") if name != "gridvote"])
def test_explanations_pickle(name):
    explanations = fitted_example(name).explain(tiny_images())

    the_same(pickle.loads(pickle.dumps(explanations)), explanations)


@pytest.mark.parametrize("name", ["cam", "ccnn", "protopnet", "ra-cnn", "senn"])
def test_contrasts_and_counterfactuals_are_made_of_what_was_pickled(name):
    explanations = fitted_example(name).explain(tiny_images())
    again = pickle.loads(pickle.dumps(explanations))

    the_same(again.contrast(0), explanations.contrast(0))


def _explain(model):
    torch.set_num_threads(1)
    return model.explain(make_images())


def test_models_go_to_other_processes_and_explanations_come_back():
    model = make_cam()

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        explanations = pool.apply(_explain, (model,))

    the_same(explanations, _explain(model))


def test_a_pickle_holds_the_digest_and_not_the_network():
    model = make_cam()
    explanations = model.explain(make_images())
    content = pickle.dumps(explanations.provenance)

    assert len(content) < 5000 and b"CAMNetwork" not in content
    assert copy.deepcopy(explanations.provenance).model_digest == explanations.provenance.model_digest


def test_the_digest_is_computed_once_until_something_changes(monkeypatch):
    network, calls = make_cam().network, []
    digest = state_digest(network)
    monkeypatch.setattr(
        "explainkit.explainers.state.tensors_digest", lambda state: calls.append(len(state)) or "another"
    )

    assert state_digest(network) == digest and not calls
    with torch.no_grad():
        network.head.weight[0, 0] += 1
    assert state_digest(network) == "another"
    network.head.bias.data[0] += 1  # which leaves the version as it was
    state_digest(network)
    network.load_state_dict(make_cam(seed=1).network.state_dict())
    state_digest(network)
    assert len(calls) == 3
