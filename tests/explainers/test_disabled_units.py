"""Units that are switched off: forward and decompose go without them, and so does a saved model."""

import copy
import pickle

import numpy as np
import pytest
import torch
from attrs import evolve
from toys import Cells, labeled, noise, toy

import explainkit as ek
from explainkit.errors import InputError, NotFittedError, UnknownNameError, UnsupportedNetworkError
from explainkit.explainers.state import state_digest
from explainkit.testing import architectures, fitted_example, tiny_dataset, tiny_images


class MaskedCells(Cells):
    """With a mask, honored in one place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("unit_mask", torch.ones(6, dtype=torch.bool))

    def decompose(self, images):
        maps = self.cells(images).relu()
        scores = torch.where(self.unit_mask, maps.mean((2, 3)), 0.0)
        return ek.Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight, maps=maps
        )


EXACT = architectures()


@pytest.fixture(params=EXACT)
def model(request):
    return copy.deepcopy(fitted_example(request.param))


def strongest(model, count=1):
    """Numbers of the units that add most, the strongest first."""
    contributions = model.explain(tiny_images()).contributions
    return contributions.abs().sum(0).argsort(descending=True)[:count].tolist()


def test_logits_are_those_of_the_scores_left_in_the_sum(model):
    images, units = tiny_images(), strongest(model, 2)
    decomposition = model.network.decompose(images)
    scores = decomposition.scores.detach().clone()
    reference = model.units.reference
    scores[:, units] = 0 if reference is None else reference[units]
    expected = torch.stack([
        decomposition.bias_for(torch.full((6,), label))
        + (decomposition.weights_for(torch.full((6,), label)) * scores).sum(1)
        for label in range(3)
    ], 1).detach()  # fmt: skip
    if decomposition.rescore is not None:  # scores are coupled: the others change too
        expected = decomposition.rescore(torch.arange(6), scores)

    model.disable_units(units)

    scale = (decomposition.scores.abs().amax() * 10).item()
    for logits in (model.predict(images), model.explain(images).logits, model.network(images)):
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5 * max(scale, 1))
    assert torch.equal(model.explain(images).scores == 0, scores == 0)
    model.explain(images).check_additivity()


def test_with_all_units_enabled_again_no_bit_differs(model):
    images = tiny_images()
    logits, scores = model.predict(images), model.explain(images).scores
    digest = state_digest(model.network)

    model.disable_units(strongest(model, 3))
    other = state_digest(model.network)
    model.enable_units()

    assert torch.equal(model.predict(images), logits) and torch.equal(model.explain(images).scores, scores)
    assert model.disabled_units == () and state_digest(model.network) == digest != other


def test_disabled_units_are_saved_pickled_and_copied(model, tmp_path):
    model.disable_units(strongest(model, 2))

    for again in (
        ek.load(ek.save(model, tmp_path / "m")),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        assert again.disabled_units == model.disabled_units
        assert torch.equal(again.predict(tiny_images()), model.predict(tiny_images()))


def test_units_are_added_to_those_that_are_off_and_taken_back_one_by_one():
    model = copy.deepcopy(fitted_example("cam"))

    model.disable_units("filter 3").disable_units([0, "filter 5"])
    disabled = model.disabled_units
    model.enable_units(["filter 0", 3])

    assert disabled == ("filter 0", "filter 3", "filter 5") and model.disabled_units == ("filter 5",)
    assert model.disable_units(()).disabled_units == ("filter 5",)


def test_a_unit_that_there_is_not_switches_none():
    model = copy.deepcopy(fitted_example("cam"))

    with pytest.raises(UnknownNameError, match="Did you mean 'filter 3'"):
        model.disable_units([1, "filter 3x"])
    with pytest.raises(InputError, match="number in 0"):
        model.disable_units([2, 99])

    assert model.disabled_units == ()


@pytest.mark.parametrize("units", [np.int64(1), [np.int64(1)], np.array([1]), torch.tensor([1])])
def test_units_may_be_numbers_of_numpy_and_torch(units):
    model = copy.deepcopy(fitted_example("cam"))

    assert model.disable_units(units).disabled_units == (model.units.names[1],)


@pytest.mark.parametrize("units", [1.5, None, True, [True], [1.0], torch.tensor(1.5), object()])
def test_what_is_no_unit_is_refused_in_words(units):
    model = copy.deepcopy(fitted_example("cam"))

    with pytest.raises(InputError, match=r"Expected (a unit|units) by"):
        model.disable_units(units)
    assert model.disabled_units == ()


def test_no_score_set_by_hand_switches_a_disabled_unit_on(model):
    images, names = tiny_images(), model.units.names
    model.disable_units(1)
    before = model.explain(images)

    for unit in (1, names[1]):
        with pytest.raises(InputError, match=r"is disabled in the network; enable_units\(.*\) first"):
            model.intervene(images, {0: 1.0, unit: 2.0})
        with pytest.raises(InputError, match="is disabled"):
            model.intervene(images, {unit: torch.ones(6)})
    assert torch.equal(model.intervene(images, {1: "off"}).logits, before.logits)
    assert not torch.equal(model.intervene(images, {0: 2.0}).logits, before.logits)
    model.enable_units(1)
    model.intervene(images, {1: 2.0})


def test_training_starts_with_all_units_enabled():
    model = ek.explainer("cam", backbone="tiny", epochs=1).fit(tiny_dataset(), progress=False)
    model.disable_units([0, 1])

    model.fit(tiny_dataset(), progress=False)

    assert model.disabled_units == ()


def test_networks_that_cannot_are_refused_in_words():
    model = toy(Cells())

    with pytest.raises(UnsupportedNetworkError, match=r"Cells has none\. Use intervene"):
        model.disable_units(0)
    assert model.disabled_units == ()
    with pytest.raises(InputError, match="no units that could be switched off"):
        fitted_example("captum/saliency").disable_units(0)
    with pytest.raises(NotFittedError):
        ek.explainer("cam").disable_units(0)


def test_a_mask_of_another_number_of_units_is_refused():
    network = Cells()
    network.register_buffer("unit_mask", torch.ones(4, dtype=torch.bool))

    with pytest.raises(UnsupportedNetworkError, match=r"\(6,\).*has \(4,\)"):
        toy(network).disable_units(0)


def test_a_network_that_is_normalized_inside_goes_without_units_too():
    network = copy.deepcopy(fitted_example("protopnet").network)
    del network.input_spec, network.output_decision
    classes = tiny_dataset().classes
    model = ek.explainer("protopnet", network=network, classes=classes, mean=[0.5] * 3, std=[0.25] * 3)
    unit = strongest(model)[0]
    expected = model.explain(tiny_images()).intervene({unit: "off"}).logits

    logits = model.disable_units(unit).predict(tiny_images())

    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_other_methods_explain_the_network_as_it_is_without_the_units():
    model = copy.deepcopy(fitted_example("cam"))
    before = model.predict(tiny_images())

    model.disable_units(strongest(model, 4))
    saliency = ek.explainer("captum/saliency", network=model.network)

    assert torch.equal(saliency.explain(tiny_images()).logits, model.predict(tiny_images()))
    assert not torch.equal(model.predict(tiny_images()), before)


def test_a_counterfactual_leaves_the_scores_of_disabled_units():
    model, images = toy(MaskedCells()), noise(60)
    distractors = labeled(model, images)
    changed = model.counterfactual(images, distractors=distractors).edits["score-edit"]
    unit = int((changed.after != changed.before).sum(0).argmax())
    assert (changed.after != changed.before)[:, unit].any()
    model.units = evolve(model.units, score_range=model.score_ranges(distractors))

    model.disable_units(unit)
    edit = model.counterfactual(images, distractors=distractors).edits["score-edit"]

    assert (edit.after != edit.before).any()
    assert not edit.before[:, unit].any() and not edit.after[:, unit].any()
