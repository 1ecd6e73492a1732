"""The values: sums, saliency, selection, concatenation, and the check of additivity."""

import numpy as np
import pytest
import torch
from explanation_cases import REFERENCE, changed, drawn, make_explanations, make_units

from explainkit.errors import AdditivityError, InputError
from explainkit.explanations.batch import Explanations, concatenate


@pytest.mark.parametrize("callable_weights", [False, True])
@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_base_contributions_and_residual_are_the_logit(reference, callable_weights):
    explanations = make_explanations(reference=reference, callable_weights=callable_weights)

    for n in range(4):
        total = explanations.base[n]
        for k in range(5):
            score = explanations.scores[n, k] - (0 if reference is None else reference[k])
            contribution = explanations.weights[n, k] * score
            torch.testing.assert_close(explanations.contributions[n, k], contribution)
            total = total + contribution
        torch.testing.assert_close(
            total + explanations.residual[n], explanations.logits[n, explanations.targets[n]]
        )
    assert explanations.check_additivity() is explanations
    assert explanations.residual.abs().max() < 1e-12


@pytest.mark.parametrize("pooling", ["mean", "sum", "max", "coupled"])
@pytest.mark.parametrize("size", [None, (16, 16), (4, 4), (7, 9), (2, 3), (1, 1)])
def test_saliency_sums_to_logit_less_base_residual_and_nonspatial(pooling, size):
    maps = drawn(4, 5, 4, 4, seed=3)
    maps[:, 2] = 0
    maps[1] = 0
    explanations = make_explanations(
        maps=maps, base=torch.zeros(4).double(), units=make_units(pooling=pooling)
    )

    saliency = explanations.saliency(size)

    assert saliency.shape == (4, *(size or (16, 16)))
    expected = (
        explanations.explained_output - explanations.base - explanations.residual - explanations.nonspatial
    )
    torch.testing.assert_close(saliency.sum((1, 2)), expected)
    torch.testing.assert_close(explanations.nonspatial[0], explanations.contributions[0, 2])
    torch.testing.assert_close(explanations.nonspatial[1], explanations.contributions[1].sum())


def test_saliency_in_boxes_sums_too_and_stays_inside():
    group = torch.tensor([0, 1, 0, 1, 1])
    boxes = torch.tensor([[0.0, 0, 16, 16], [4, 8, 12, 16]], dtype=torch.float64).expand(4, 2, 4)
    explanations = make_explanations(boxes=boxes, units=make_units(group=group))

    saliency = explanations.saliency()

    torch.testing.assert_close(saliency.sum((1, 2)), explanations.contributions.sum(1))
    inner = make_explanations(
        boxes=boxes, units=make_units(group=group), weights=explanations.weights * (group == 1)
    ).saliency()
    assert (
        inner[:, :8].abs().max() == 0
        and inner[:, :, :4].abs().max() == 0
        and inner[:, :, 12:].abs().max() == 0
    )


def test_without_maps_all_contributions_are_nonspatial():
    explanations = make_explanations(maps=None)

    assert explanations.saliency((8, 8)).abs().max() == 0
    torch.testing.assert_close(explanations.nonspatial, explanations.contributions.sum(1))


@pytest.mark.parametrize("k", [0, 1, 3, 5, 99])
def test_the_top_units_and_the_remainder_are_the_total(k):
    explanations = make_explanations()

    top = explanations.top(k)

    assert top.unit.shape == (4, min(k, 5))
    torch.testing.assert_close(top.contribution.sum(1) + top.remainder, explanations.contributions.sum(1))
    for n in range(4):
        by_size = sorted(range(5), key=lambda unit: -abs(explanations.contributions[n, unit]))
        assert top.unit[n].tolist() == by_size[:k]


def test_an_integer_selects_an_explanation_and_a_slice_explanations():
    explanations = make_explanations()

    assert (
        explanations[-1].index == 3
        and explanations[np.int64(2)].index == 2
        and explanations[torch.tensor(1)].index == 1
    )
    for index in (slice(1, 3), [1, 2], torch.tensor([1, 2]), np.array([1, 2]), [False, True, True, False]):
        selected = explanations[index]
        assert len(selected) == 2
        for name in (
            "logits",
            "targets",
            "base",
            "scores",
            "weights",
            "images",
            "maps",
            "contributions",
            "residual",
        ):
            torch.testing.assert_close(getattr(selected, name), getattr(explanations, name)[1:3])
    assert [item.index for item in explanations] == [0, 1, 2, 3]
    assert len(explanations[:0]) == 0


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError, match="4 explanations"):
        make_explanations()[index]


def test_explanations_of_no_images_are_valid():
    explanations = make_explanations()[:0]

    assert explanations.check_additivity().saliency().shape == (0, 16, 16)
    assert explanations.nonspatial.shape == (0,) and list(explanations) == []


@pytest.mark.parametrize("broken", [0, 2])
def test_a_sum_that_fails_names_the_image_and_both_sides(broken):
    explanations = make_explanations(base=changed(broken, 9.0, "base"))

    with pytest.raises(AdditivityError, match=rf"Image {broken}: .*logit is .*residual") as error:
        explanations.check_additivity()
    assert f"{explanations.explained_output[broken].item():.6g}" in str(error.value)


def test_the_tolerance_is_a_ten_thousandth_of_the_largest():
    explanations = make_explanations()
    scale = torch.maximum(explanations.logits.abs().amax(1), explanations.contributions.abs().sum(1))

    make_explanations(base=explanations.base + 0.9e-4 * scale).check_additivity()
    with pytest.raises(AdditivityError):
        make_explanations(base=explanations.base + 1.1e-4 * scale).check_additivity()


def test_a_sum_that_overflows_does_not_pass():
    scores = torch.full((2, 5), 1e308, dtype=torch.float64)
    huge = make_explanations(number=2, scores=scores, weights=scores * torch.tensor([1, -1, 1, -1, 1]))

    with pytest.raises(AdditivityError, match="Image 0"):
        huge.check_additivity()


def test_explanations_without_additivity_have_no_residual_and_cannot_be_checked():
    explanations = make_explanations(additivity="none")

    assert (
        explanations.residual is None and explanations[0].residual is None and explanations.unit == "gradient"
    )
    with pytest.raises(InputError, match="claims no sum"):
        explanations.check_additivity()


def test_values_cannot_be_set():
    explanations = make_explanations()

    with pytest.raises(AttributeError):
        explanations.base = torch.zeros(4)
    with pytest.raises(AttributeError):
        explanations.units.kind = "concept"


def test_moving_to_a_device_keeps_all_but_the_decomposition():
    explanations = make_explanations(reference=REFERENCE).to("cpu")

    assert explanations.decomposition is None
    explanations.check_additivity()


def test_concatenated_slices_equal_the_whole():
    explanations = make_explanations(callable_weights=True)

    concatenated = concatenate([explanations[:1], explanations[1:3], explanations[3:]])

    torch.testing.assert_close(concatenated.saliency(), explanations.saliency())
    torch.testing.assert_close(
        concatenated.contrast("jay").contributions, explanations.contrast("jay").contributions
    )


def test_a_batch_prints_in_one_line():
    assert repr(make_explanations()) == "<4 explanations by made: 5 filter units, exact>"


def test_diagnostics_follow_their_images():
    """Through indexing, concatenation and moving."""
    explanations = make_explanations(diagnostics={"confidence": torch.arange(4.0).double()})

    assert explanations[2].diagnostics == {"confidence": 2.0}
    assert explanations[[3, 1]].diagnostics["confidence"].tolist() == [3.0, 1.0]
    assert concatenate([explanations, explanations[:1]]).diagnostics["confidence"].tolist() == [
        0.0,
        1.0,
        2.0,
        3.0,
        0.0,
    ]
    assert explanations.to("cpu").diagnostics["confidence"].tolist() == [0.0, 1.0, 2.0, 3.0]


def make_tabular_explanations(**fields):
    """Explanations of rows of a table, whose units are its columns."""
    return make_explanations(
        images=drawn(4, 5, seed=7), maps=None, units=make_units(pooling="none"),
        decomposition=None, **fields,
    )  # fmt: skip


def test_explanations_of_tabular_data_have_no_saliency(tmp_path):
    explanations = make_tabular_explanations().check_additivity()

    assert explanations.is_tabular and explanations[0].image.shape == (5,)
    torch.testing.assert_close(explanations.nonspatial, explanations.contributions.sum(1))
    with pytest.raises(InputError, match="no saliency"):
        explanations.saliency()
    again = Explanations.load(explanations.save(tmp_path / "rows.safetensors"))
    assert again.is_tabular and torch.equal(again.images, explanations.images)
