"""A third-party plugin with a loss over pairs, a projected gate, a training head and coupled scores."""

import pickle
from pathlib import Path

import pytest
import torch
from plugin_cases import assert_near

import explainkit as ek
from explainkit.testing import check_explainer, tiny_dataset, tiny_images

HOOKS = """
@hookimpl
def explainkit_explainers():
    return [Offer("coupled", "A fixture", "thirdparty_explainkit_coupled.parts:Coupled")]

@hookimpl
def explainkit_backbones():
    return []
"""


@pytest.fixture
def coupled(install):
    package = install("coupled", HOOKS)
    source = Path(__file__).with_name("coupled_plugin.py").read_text()
    (package / "parts.py").write_text(source)
    return ek.explainer("coupled").fit(tiny_dataset(), seed=0, device="cpu", progress=False)


def test_it_trains_and_keeps_every_promise_with_no_change_of_the_core(coupled):
    accuracy = coupled.evaluate(tiny_dataset(), ["test"])["test"]["accuracy"]

    assert accuracy >= 0.9
    assert coupled.network.gate.min() >= 0 and coupled.network.gate.max() <= 1
    assert set(coupled.history[0].train_losses) == {"cross_entropy", "auxiliary", "pairs"}
    check_explainer(coupled, tiny_images())


def test_its_decomposition_is_carried_and_pickled_whole(coupled):
    images = tiny_images()
    with torch.no_grad():
        decomposition = coupled.network.decompose(images)

    explained = coupled.explain(images, batch_size=4).decomposition
    again = pickle.loads(pickle.dumps(explained.select(torch.tensor([5, 0]))))

    assert_near(again.extras["gated"], decomposition.extras["gated"][[5, 0]])
    rows, scores = torch.tensor([1, 0]), torch.rand(2, decomposition.scores.shape[1])
    assert_near(again.rescore(rows, scores), decomposition.rescore(rows, scores))
    assert_near(again.logits_at(rows, decomposition.scores[[0, 5]]), decomposition.logits[[0, 5]])


def test_its_counterfactuals_claim_what_the_network_says_and_no_more(coupled):
    counterfactuals = coupled.counterfactual(tiny_images())
    edits = counterfactuals.edits["score-edit"]
    feasible = edits.feasible

    said = counterfactuals.explanations.decomposition.rescore(torch.arange(6), edits.after)

    assert feasible.any() and torch.equal(said.argmax(1)[feasible], counterfactuals.targets[feasible])
    assert not edits.exact.any() and (edits.lower_bound == 1).all()
    for item in counterfactuals:
        assert "no fewer would do" not in item.sentence() and "would make it square" not in item.sentence()


def test_a_disabled_unit_is_gone_before_the_others_are_brought_to_length_1(coupled):
    images = tiny_images()
    network, before = coupled.network, coupled.explain(images)
    unit = int(before.contributions.abs().sum(0).argmax())
    pooled = before.scores.clone()
    pooled[:, unit] = 0
    expected = network.head(pooled / pooled.norm(dim=1, keepdim=True))

    logits = coupled.disable_units(unit).predict(images)

    assert_near(logits, expected.detach())
    assert_near(before.intervene({unit: "off"}).logits, logits)
