"""Scores set by hand: the logits that the network's own head gives, and explanations that say why."""

import pytest
import torch
from cam_cases import make_cam, make_images

import explainkit as ek
from explainkit.errors import InputError, UnknownNameError
from explainkit.testing import architectures, fitted_example, tiny_images

EXACT = tuple(name for name in architectures() if name != "region-cnn")  # whose scores are coupled


@pytest.mark.parametrize("name", EXACT)
def test_a_unit_that_is_off_moves_every_logit_by_what_it_added(name):
    model = fitted_example(name)
    explanations = model.explain(tiny_images())
    unit = int(explanations.contributions.abs().sum(0).argmax())

    after = model.intervene(tiny_images(), {unit: "off"})

    for label in range(3):
        added = model.explain(tiny_images(), label).contributions[:, unit]
        moved = explanations.logits[:, label] - after.logits[:, label]
        torch.testing.assert_close(moved, added, rtol=1e-4, atol=1e-5)
    assert torch.equal(after.targets, explanations.targets)
    after.check_additivity()


@pytest.mark.parametrize("name", EXACT)
def test_scores_set_to_themselves_change_nothing(name):
    explanations = fitted_example(name).explain(tiny_images())
    scores = dict(enumerate(explanations.scores.T))

    after = explanations.intervene(scores)

    assert torch.equal(after.logits, explanations.logits)
    assert torch.equal(after.contributions, explanations.contributions)


def test_the_logits_are_those_of_the_head_with_the_scores():
    model = make_cam()
    network, images = model.network, make_images()
    scores = network.decompose(images).scores.detach().clone()
    scores[:, 3], scores[:, 7] = 1.5, torch.arange(4.0)

    after = model.intervene(images, {"filter 3": 1.5, 7: torch.arange(4.0)})

    expected = torch.stack([
        sum(float(weight) * score for weight, score in zip(row, scores.T, strict=True)) + float(bias)
        for row, bias in zip(network.head.weight, network.head.bias, strict=True)
    ], 1)  # fmt: skip
    torch.testing.assert_close(after.logits, expected, rtol=1e-4, atol=1e-5)
    assert after.contrast(0).check_additivity() is not None
    prediction = after[0].prediction
    assert after[0].prediction_name == model.classes[prediction] and after[0].sentence()


def test_units_are_called_by_number_name_or_phrase():
    model = fitted_example("ccnn")
    explanations = model.explain(tiny_images())
    phrase = explanations.units.phrases[1]

    one, two, three = (explanations.intervene({unit: "off"}) for unit in (1, "filter 1", phrase))

    assert torch.equal(one.logits, two.logits) and torch.equal(one.logits, three.logits)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ({"filter 3x": 1.0}, UnknownNameError, "Did you mean 'filter 3'"),
        ({99: 1.0}, InputError, "0 … 31"),
        ({True: 1.0}, InputError, "by name, or a number"),
        ({0: "on"}, InputError, "'off'; got 'on'"),
        ({0: float("nan")}, InputError, "finite"),
        ({0: torch.zeros(3)}, InputError, r"\(4,\)"),
        ({0: [1, "a"]}, InputError, "'off'"),
        ([0], InputError, "mapping"),
    ],
)
def test_what_is_no_intervention_is_refused(scores, error, message):
    with pytest.raises(error, match=message):
        make_cam().intervene(make_images(), scores)


def test_methods_without_scores_refuse():
    with pytest.raises(InputError, match="decides by its units"):
        fitted_example("captum/saliency").explain(tiny_images()).intervene({0: "off"})


def test_a_shared_phrase_is_no_name():
    units = ek.Units(
        kind="filter", names=[f"filter {k}" for k in range(32)], phrases=["wing"] * 32, pooling="mean"
    )
    model = make_cam()
    model.units = units

    with pytest.raises(InputError, match="phrase of 32"):
        model.intervene(make_images(), {"wing": 0.0})
