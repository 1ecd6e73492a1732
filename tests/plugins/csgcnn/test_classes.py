"""What the gate says of classes, and whether features say the same."""

import math

import pytest
import torch
from attrs import evolve
from csgcnn_networks import explainer, oracle_dataset, oracle_explainer
from plugin_cases import uniform

import explainkit as ek
from explainkit.errors import NotFittedError
from explainkit.testing import fitted_example, tiny_dataset
from explainkit_csgcnn.ablation import ablate_classes, ablated_logits
from explainkit_csgcnn.classes import (
    class_filters,
    class_similarity,
    density,
    gate_feature_agreement,
    gate_report,
    shared_filters,
)
from explainkit_csgcnn.explainer import filter_names


def test_the_filters_of_a_class_are_those_whose_gate_is_over_a_half():
    model = explainer()
    gate, names = model.units.class_affinity, model.units.names

    filters, shared = class_filters(model), shared_filters(model)

    for c, name in enumerate(model.classes):
        expected = sorted((-gate[k, c].item(), k) for k in range(len(gate)) if gate[k, c] > 0.5)
        assert filters[name] == [names[k] for _, k in expected]
    for k, name in enumerate(names):
        classes = [model.classes[c] for c in range(4) if gate[k, c] > 0.5]
        assert shared.get(name, classes[:1]) == classes


def test_classes_that_share_filters_are_alike():
    gate = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.8, 0.0], [0.0, 0.0, 1.0]])

    similarity = class_similarity(gate)

    literal = [[sum(gate[k, c] * gate[k, d] for k in range(3)) for d in range(3)] for c in range(3)]
    torch.testing.assert_close(similarity, torch.tensor(literal))
    cosines = class_similarity(gate, normalized=True)
    torch.testing.assert_close(cosines.diagonal(), torch.ones(3))
    assert cosines[0, 1] > 0.9 and cosines[0, 2] == 0


def test_density_is_within_its_bounds_and_blind_to_the_order_of_classes():
    model = explainer()
    gate = model.units.class_affinity

    assert 1 / 4 <= density(gate) <= 1
    assert density(torch.eye(4)) == 1 / 4 and density(torch.ones(3, 4)) == 1
    assert density(gate[:, [2, 0, 3, 1]]) == pytest.approx(density(gate))


def test_agreement_is_a_correlation_over_filters_that_respond():
    gate, means = uniform(20, 4, seed=1), uniform(20, 4, seed=2)
    means[3] = 0

    agreement = gate_feature_agreement(gate, means)

    pairs = [(gate[k, c], means[k, c] / means[k].max()) for k in range(20) if k != 3 for c in range(4)]
    x, y = torch.tensor(pairs).double().T
    literal = ((x - x.mean()) * (y - y.mean())).sum() / (x.std() * y.std() * (len(x) - 1))
    assert agreement == pytest.approx(literal.item(), abs=1e-5)
    assert gate_feature_agreement(torch.eye(4), torch.eye(4)) == pytest.approx(1)


def test_a_report_on_an_oracle_says_that_all_is_class_specific():
    report = gate_report(oracle_explainer(), oracle_dataset())

    assert report.accuracy == 1 and report.density == 0.25 and report.filters_per_class.tolist() == [3] * 4
    assert report.agreement == pytest.approx(1) and report.information.normalized_score == pytest.approx(1)
    assert report.information.chance < 0.2 * report.information.score
    assert "gate-feature agreement   1.00" in report.text()


def test_an_arbitrary_gate_is_told_by_agreement_and_not_by_density():
    report = gate_report(oracle_explainer(gate_order=(1, 2, 3, 0)), oracle_dataset())

    assert report.density == 0.25 and report.agreement < 0
    assert (report.ablation.own_after == 1).all()


def test_filters_are_called_by_their_classes():
    gate = torch.tensor([[1.0, 0.5, 0.0], [0.6, 1.0, 0.0], [1.0, 1.0, 0.9]])

    names = filter_names(gate, ["crow", "wren", "kiwi"])

    assert names == ["filter 0 of crow", "filter 1 of crow and wren", "filter 2 of 3 classes"]


@pytest.mark.parametrize("ask", [class_filters, shared_filters])
def test_units_without_classes_are_refused_in_words(ask):
    with pytest.raises(ek.InputError, match=r"those of CAM do not\. Explainers such as 'csg-cnn'"):
        ask(fitted_example("cam"))


@pytest.mark.parametrize("ask", [gate_report, ablate_classes])
def test_explainers_without_units_of_classes_have_no_report(ask):
    with pytest.raises(ek.InputError, match="those of CAM do not"):
        ask(fitted_example("cam"), tiny_dataset())


@pytest.mark.parametrize("ask", [class_filters, shared_filters])
def test_an_explainer_before_fit_says_so(ask):
    with pytest.raises(NotFittedError, match="CSG-CNN has no units yet"):
        ask(ek.explainer("csg-cnn"))


@pytest.mark.parametrize("ask", [gate_report, ablate_classes])
def test_a_report_before_fit_says_so(ask):
    with pytest.raises(NotFittedError, match="CSG-CNN has no units yet"):
        ask(ek.explainer("csg-cnn"), oracle_dataset())


@pytest.mark.parametrize("ask", [gate_report, ablate_classes])
def test_a_data_set_whose_classes_are_in_another_order_is_refused(ask):
    dataset = evolve(oracle_dataset(), classes=["class 1", "class 0", "class 2", "class 3"])

    with pytest.raises(ek.InputError, match="of the 4 classes that the network knows"):
        ask(oracle_explainer(), dataset)


@pytest.mark.parametrize("ask", [gate_report, ablate_classes])
@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "x", True])
def test_batch_sizes_that_are_no_counts_are_refused_in_words(ask, batch_size):
    with pytest.raises(ek.InputError, match="batch_size as a whole number of at least 1"):
        ask(oracle_explainer(), oracle_dataset(), batch_size=batch_size)


@pytest.mark.parametrize("ask", [gate_report, ablate_classes])
def test_a_split_without_images_is_refused_in_words(ask):
    with pytest.raises(ek.InputError, match="Expected images in the split 'test'"):
        ask(oracle_explainer(), oracle_dataset(labels=[]))


@pytest.mark.parametrize("threshold", ["0.5", None, True, -0.1, 1, math.nan])
def test_thresholds_out_of_range_are_refused_in_words(threshold):
    model = oracle_explainer()
    explanations = model.explain(uniform(1, 3, 4, 4))

    for ask, subject in ((class_filters, model), (shared_filters, model), (ablated_logits, explanations)):
        with pytest.raises(ek.InputError, match=r"threshold as a number in \[0, 1\)"):
            ask(subject, threshold)


def test_agreement_is_over_the_classes_that_have_images():
    report = gate_report(oracle_explainer(gate_order=(0, 1, 3, 2)), oracle_dataset(labels=[0, 1] * 20))

    gate, means = torch.eye(4)[[0, 1, 3, 2]], torch.eye(4)
    assert report.agreement == pytest.approx(1) and gate_feature_agreement(gate, means) < 0.5
    means[:, 2:] = torch.nan
    assert gate_feature_agreement(gate, means) == pytest.approx(1)
    assert "agreement   1.00 (over the 2 of 4 classes that have images)" in report.text()
    assert math.isnan(gate_feature_agreement(gate, torch.full((4, 4), torch.nan)))


def test_a_report_calls_units_by_their_kind():
    text = gate_report(fitted_example("protopnet"), tiny_dataset()).text()

    assert "classes a prototype" in text and "prototypes of a class" in text and "filter" not in text
