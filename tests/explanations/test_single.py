"""The explanation of one image, and its evidence."""

import pytest
import torch
from explanation_cases import CLASSES, REFERENCE, make_explanations, make_units

from explainkit.explanations.units import UnitPicture


def test_one_image_is_a_view_of_its_batch():
    explanations = make_explanations(reference=REFERENCE)

    for n, explanation in enumerate(explanations):
        assert explanation.target_name == CLASSES[explanations.targets[n]]
        assert explanation.prediction == int(explanations.logits[n].argmax())
        assert explanation.explained_output == pytest.approx(
            explanation.base + explanation.contributions.sum().item() + explanation.residual
        )
        torch.testing.assert_close(explanation.saliency((5, 5)), explanations.saliency((5, 5))[n])


def test_evidence_comes_strongest_first_and_adds_up():
    explanation = make_explanations(reference=REFERENCE)[1]

    sizes = [abs(item.contribution) for item in explanation.evidence]

    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 5
    for item in explanation.evidence:
        assert item.contribution == pytest.approx(item.weight * (item.score - REFERENCE[item.unit].item()))
        torch.testing.assert_close(item.map, explanation.batch.maps[1, item.unit])
    assert [item.unit for item in explanation.top(2)] == [item.unit for item in explanation.evidence[:2]]


def test_a_phrase_stands_instead_of_the_name():
    explanations = make_explanations(units=make_units(phrases=("red crest", None, None, None, None)))

    texts = {item.unit: item.text for item in explanations[0].evidence}

    assert texts[0] == "red crest" and texts[1] == "filter 1"


def test_the_evidence_of_a_unit_has_its_exemplars():
    picture = UnitPicture(id=3, split="train", label=1, cell=(0, 1), box=(0, 0, 8, 8))
    explanations = make_explanations(units=make_units(pictures=((picture,), (), (), (), ())))

    assert explanations[0].evidence_of(0).pictures == (picture,)
    assert explanations[0].evidence_of(1).pictures == ()


def test_the_map_of_a_unit_in_a_box_lies_in_the_box():
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 16.0], [4.0, 8.0, 12.0, 16.0]]]).expand(4, 2, 4).double()
    explanations = make_explanations(
        boxes=boxes, units=make_units(group=torch.tensor([0, 0, 1, 1, 1])), decomposition=None
    )

    whole, inside = explanations[0].evidence_of(0).map, explanations[0].evidence_of(3).map

    assert whole.shape == inside.shape == (16, 16)
    assert whole.bool().all()
    assert inside[8:, 4:12].sum() == pytest.approx(inside.sum().item()) and inside[8:, 4:12].min() > 0
    torch.testing.assert_close(inside.sum(), explanations.maps[0, 3].sum())
