"""What class statistics keep: bytes for each class and unit, contrasts as factors, small integers."""

import copy
import pickle

import pytest
import torch
from class_cases import close, explained_classes
from toys import Cells, Varying, batch_of, noise, toy

from explainkit.data.types import Batch
from explainkit.errors import InputError
from explainkit.explainers.interpretable import LARGEST_RANGES
from explainkit.explanations.class_contributions import ClassContributions
from explainkit.questions import class_statistics
from explainkit.questions.class_statistics import _Tally

MANY = (1000, 2048)


def bytes_of(value, known):
    """Bytes of all tensors that are reached from `value`, each once."""
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        is_new = storage.data_ptr() not in known
        known.add(storage.data_ptr())
        return storage.nbytes() if is_new else 0
    if hasattr(value, "__dict__"):
        return sum(bytes_of(item, known) for item in vars(value).values())
    if isinstance(value, list | tuple):
        return sum(bytes_of(item, known) for item in value)
    return 0


def test_a_thousand_classes_of_two_thousand_units_are_counted_in_less_than_240_megabytes():
    classes, units = MANY
    names = [f"class {index}" for index in range(classes)]
    explainer = toy(Cells(classes, units, side=8), classes=names)
    explanations = explainer.explain(noise(4, size=8), torch.arange(4))
    tally = _Tally(explanations, torch.ones(classes, dtype=torch.bool))

    tally.add(explanations, torch.arange(4), torch.arange(4))

    fields = {name: value for name, value in vars(tally).items() if name != "first"}
    assert sum(bytes_of(value, set()) for value in fields.values()) < 240e6


def test_score_ranges_are_kept_far_above_a_thousand_classes_of_two_thousand_units():
    assert 4 * MANY[0] * MANY[1] <= LARGEST_RANGES


# contrasts


@pytest.mark.parametrize("name", ["cells", "cells with a reference", "biases of each image", "cam"])
def test_contributions_to_all_classes_are_means_over_images_kept_as_factors(name):
    _, _, labels, explanations, class_explanations = explained_classes(name)
    weights = explanations.decomposition.weights
    reference = 0 if explanations.units.reference is None else explanations.units.reference
    kept = class_explanations.contributions_by_class

    assert kept.weights.shape == weights.shape and kept.scores.shape == class_explanations.scores.shape
    for row, label in enumerate(class_explanations.index.tolist()):
        images = (labels == label).nonzero()[:, 0].tolist()
        for target in range(3):
            mean = torch.stack([weights[target] * (explanations.scores[n] - reference) for n in images]).mean(
                0
            )
            assert close(kept.to_class(row, target), mean)
            assert torch.equal(kept.dense()[row, target], kept.to_class(row, target))


def test_contributions_to_all_classes_travel():
    kept = explained_classes("cells")[-1].contributions_by_class

    for again in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept)):
        assert torch.equal(again.dense(), kept.dense())


def test_contributions_of_shapes_that_disagree_are_refused():
    with pytest.raises(InputError, match=r"Expected weights \(C, K\)"):
        ClassContributions(weights=torch.ones(2, 3), scores=torch.ones(4, 2))
    with pytest.raises(InputError, match="alone"):
        ClassContributions(weights=torch.ones(2, 3))


@pytest.mark.parametrize(
    ("largest", "has_contrasts", "has_linearity"), [(44, False, False), (59, True, False), (75, True, True)]
)
def test_of_weights_of_each_image_is_kept_what_fits(monkeypatch, largest, has_contrasts, has_linearity):
    monkeypatch.setattr(class_statistics, "LARGEST", largest)  # 3 x 3 x 5 numbers, and 3 x 5 x 5
    monkeypatch.setattr(class_statistics, "CHUNK", 10)

    some = toy(Varying()).explain_class([batch_of(noise(12), torch.arange(12) % 3)])

    assert (some.contributions_by_class is not None) == has_contrasts
    assert (some.linear_r2 is not None) == has_linearity
    if has_contrasts:
        monkeypatch.undo()
        whole = toy(Varying()).explain_class([batch_of(noise(12), torch.arange(12) % 3)])
        assert close(some.all_class_contributions, whole.all_class_contributions)


# exemplars


def test_exemplars_are_kept_in_small_integers_and_come_as_long_ones():
    examples = explained_classes("cells")[-1].examples

    kept = sum(value.nbytes for value in (examples._ids, examples._cells, examples._boxes))
    assert kept <= 14 * examples.ids.numel()
    assert {value.dtype for value in (examples.ids, examples.cells, examples.boxes)} == {torch.int64}


def test_ids_of_any_size_are_kept():
    ids = torch.tensor([5, 2**40, 7, 300, 2**20, 2**33])

    explained = toy().explain_class([Batch(images=noise(6), labels=torch.zeros(6).long(), ids=ids)])
    examples = explained.examples

    assert set(examples.ids[examples.ids >= 0].tolist()) == set(ids.tolist())


def test_boxes_are_right_where_images_are_of_several_sizes():
    explainer = toy()
    batches = [
        batch_of(noise(4, size=size), torch.zeros(4, dtype=torch.long), start=size) for size in (32, 48, 32)
    ]
    batches[2] = batch_of(noise(4, seed=3), torch.zeros(4, dtype=torch.long), start=100)
    explained = {int(id): (item, size) for batch, size in zip(batches, (32, 48, 32), strict=True)
                 for id, item in zip(batch.ids, explainer.explain(batch, 0), strict=True)}  # fmt: skip

    found = explainer.explain_class(batches)[0]

    sizes = set()
    for evidence in found.evidence:
        for exemplar in evidence.pictures:
            item, size = explained[exemplar.id]
            map = item.batch.maps[item.index, evidence.unit]
            if map.max() > 0:
                y, x = divmod(int(map.argmax()), map.shape[1])
                ends = [max(0, 4 * x - 4), max(0, 4 * y - 4), min(size, 4 * x + 8), min(size, 4 * y + 8)]
                assert list(exemplar.box) == ends
                sizes.add(size)
    assert sizes == {32, 48}


def test_a_batch_in_pieces_keeps_the_same_exemplars(monkeypatch):
    whole = explained_classes("cells")[-1].examples
    explainer, images, labels = explained_classes("cells")[:3]
    monkeypatch.setattr("explainkit.questions.exemplars.CHUNK", 60)

    pieces = explainer.explain_class([batch_of(images, labels)]).examples

    assert torch.equal(pieces.ids, whole.ids) and torch.equal(pieces.boxes, whole.boxes)
