"""What is a class's own adds up, in numbers, places and words."""

import pytest
import torch
from csgcnn_networks import explainer
from plugin_cases import FLOAT32, assert_near, uniform

import explainkit as ek
from explainkit.explanations.sentences import signed
from explainkit.testing import fitted_example, tiny_images
from explainkit_csgcnn.ablation import ablated_logits
from explainkit_csgcnn.evidence import (
    gated_saliency,
    own_gate_probabilities,
    purity_sentence,
    split_evidence,
)


def test_base_own_evidence_and_leakage_are_the_logit():
    explanations = explainer().explain(uniform(5, 3, 32, 32))

    split = split_evidence(explanations)

    scale = explanations.contributions.abs().sum(1)
    assert_near(split.base + split.specific + split.leakage, explanations.explained_output, scale=scale)
    for n, target in enumerate(explanations.targets.tolist()):
        gate = explanations.units.class_affinity[:, target].tolist()
        own = sum(g * value for g, value in zip(gate, explanations.contributions[n].tolist(), strict=True))
        rest = explanations.contributions[n].sum().item() - own
        assert split.specific[n].item() == pytest.approx(own, abs=1e-5)
        assert split.purity[n].item() == pytest.approx(abs(own) / (abs(own) + abs(rest)), abs=1e-4)


def test_the_diagnostics_of_an_explanation_are_the_split():
    explanations = explainer().explain(uniform(4, 3, 32, 32))

    split = split_evidence(explanations)

    assert set(explanations.diagnostics) == {"from its own filters", "leakage", "purity"}
    assert_near(explanations.diagnostics["from its own filters"], split.specific)
    assert_near(explanations.diagnostics["leakage"], split.leakage, scale=split.specific)
    assert_near(explanations.diagnostics["purity"], split.purity)


def test_own_evidence_in_place_sums_to_itself_and_is_the_class_activation_map_of_gated_weights():
    model, images = explainer(torch.float64), uniform(3, 3, 32, 32)
    explanations = model.explain(images)

    saliency = gated_saliency(explanations, (8, 8))

    maps, gate, weight = explanations.maps, model.network.gate, model.network.head.weight
    for n, target in enumerate(explanations.targets.tolist()):
        literal = sum(gate[k, target] * weight[target, k] * maps[n, k] / 64 for k in range(len(gate)))
        assert_near(saliency[n], literal, 1e-10)
    assert_near(saliency.sum((1, 2)), split_evidence(explanations).specific, 1e-10)


def test_a_contrast_is_the_difference_of_both_classes_own_evidence():
    model, images = explainer(torch.float64), uniform(3, 3, 32, 32)

    contrast = split_evidence(model.explain(images, 1, foils=2))

    one, other = (split_evidence(model.explain(images, target)) for target in (1, 2))
    assert_near(contrast.specific, one.specific - other.specific, 1e-10, scale=one.specific)
    assert_near(contrast.leakage, one.leakage - other.leakage, 1e-10, scale=one.leakage)


def test_each_class_is_asked_under_its_own_gate():
    model = explainer()
    explanations = model.explain(uniform(3, 3, 32, 32))

    probabilities = own_gate_probabilities(explanations)

    network = model.network
    for c in range(4):
        logits = network.head(network.gated(explanations.scores, torch.full((3,), c)))
        assert_near(probabilities[:, c], logits.softmax(1)[:, c].detach())


def test_prototypes_that_belong_to_classes_are_split_too():
    explanations = fitted_example("protopnet").explain(tiny_images())

    split = split_evidence(explanations)

    owner = explanations.units.class_affinity.argmax(1)
    is_own = owner[None] == explanations.targets[:, None]
    assert_near(split.specific, (explanations.contributions * is_own).sum(1), FLOAT32)
    total = split.base + split.specific + split.leakage
    assert_near(total, explanations.explained_output, scale=explanations.contributions.abs().sum(1))


def test_units_without_classes_are_refused_in_words():
    explanations = fitted_example("cam").explain(tiny_images())

    with pytest.raises(ek.InputError, match=r"those of cam do not\. Explainers such as 'csg-cnn'"):
        split_evidence(explanations)


@pytest.mark.parametrize("ask", [split_evidence, gated_saliency, own_gate_probabilities, ablated_logits])
def test_a_single_explanation_is_refused_where_a_batch_is_asked_for(ask):
    with pytest.raises(ek.InputError, match=r"Expected Explanations, .*; got Explanation"):
        ask(explainer().explain(uniform(1, 3, 32, 32))[0])


def test_a_batch_is_refused_where_a_single_explanation_is_asked_for():
    with pytest.raises(ek.InputError, match=r"Expected one Explanation, .*; got Explanations"):
        purity_sentence(explainer().explain(uniform(1, 3, 32, 32)))


def test_explanations_without_all_maps_have_no_gated_map():
    explanations = explainer().explain(uniform(2, 3, 32, 32), maps=2)

    with pytest.raises(ek.InputError, match="maps='all'"):
        gated_saliency(explanations)


def test_the_sentence_has_the_numbers_of_the_split():
    explanations = explainer().explain(uniform(2, 3, 32, 32))
    split, own = split_evidence(explanations), explanations.units.class_affinity > 0.5

    sentence = purity_sentence(explanations[1])

    count = int(own[:, explanations.targets[1]].sum())
    assert explanations[1].target_name in sentence and f"with {count} of 32 filters" in sentence
    assert f"{100 * split.purity[1].item():.0f} % of the evidence" in sentence


def test_the_sentence_of_a_contrast_names_both_classes_and_no_filters_of_one():
    model, images = explainer(), uniform(2, 3, 32, 32)
    contrast = model.explain(images, 1, foils=2)

    sentence = purity_sentence(contrast[0])

    one, other = (split_evidence(model.explain(images, target)) for target in (1, 2))
    margin = signed((one.specific - other.specific)[0].item())
    assert f"own evidence of class 1 less that of class 2 is {margin}, " in sentence
    assert "of 32 filters" not in sentence
    with torch.no_grad():
        model.network.head.weight.zero_()
    empty = purity_sentence(model.explain(images, 1, foils=2)[0])
    assert empty == "No evidence for or against class 1 over class 2."
