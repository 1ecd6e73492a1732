"""Unreasonable prototypes and swaps against a literal count of parts in boxes and cells."""

import pytest
import torch
from attrs import evolve

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import aviary
from explainkit.errors import InputError
from explainkit.metrics import unreasonable_prototypes, unreasonable_swaps
from explainkit.metrics.funnybirds_rows import unit_boxes
from explainkit.metrics.part_agreement import _source_masks, _swap_targets, parts_in_boxes


@pytest.fixture(scope="module")
def dataset():
    return aviary(preset="funny", classes=5, size=32, train=60, validation=10, test=10, dropout=0.0)


@pytest.fixture(scope="module")
def protopnet(dataset):
    return ek.explainer("protopnet", preset="tiny").fit(dataset, seed=0, device="cpu", progress=False)


def test_parts_in_boxes_are_those_of_a_literal_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 4, 8, 10, generator=generator) < 0.05
    corners = torch.randint(0, 6, (3, 5, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(1, 4, (3, 5, 2), generator=generator)], 2)

    found = parts_in_boxes(masks, boxes)

    for n in range(3):
        for k, (x0, y0, x1, y1) in enumerate(boxes[n].tolist()):
            assert found[n, k].tolist() == [bool(masks[n, p, y0:y1, x0:x1].any()) for p in range(4)]


@pytest.mark.parametrize("keep", ["all", "peak"])
def test_unreasonable_prototypes_share_no_part_with_their_picture(dataset, protopnet, keep) -> None:
    score = unreasonable_prototypes(protopnet, dataset, images=10, keep=keep)

    batch = dataset.test.batch(torch.arange(10))
    explanations = protopnet.explain(batch, batch.labels)
    units = protopnet.units
    for n in range(10):
        own = (units.class_affinity.argmax(1) == batch.labels[n]).nonzero()[:, 0].tolist()
        assert len(own) <= 10
        count = 0
        for unit in own:
            x0, y0, x1, y1 = unit_boxes(explanations[n : n + 1], torch.tensor([[unit]]), keep)[0, 0].tolist()
            picture = units.pictures[unit][0]
            u0, v0, u1, v1 = picture.box
            there = dataset.train.batch(torch.tensor([picture.id])).masks[0, :, v0:v1, u0:u1].any(2).any(1)
            here = batch.masks[n, :, y0:y1, x0:x1].any(2).any(1)
            count += not (here & there).any()
        assert score.values[n].item() == pytest.approx(count / len(own))
    assert "parts in a box" in score.note


def test_prototypes_are_asked_for_where_there_are_none(dataset) -> None:
    model = ek.explainer("cam", preset="tiny", epochs=1).fit(dataset, device="cpu", progress=False)

    with pytest.raises(InputError, match="as prototypes do"):
        unreasonable_prototypes(model, dataset)


@pytest.fixture(scope="module")
def learned():
    """A CAM that knows its five species well enough to swap regions, and its data."""
    dataset = aviary(preset="funny", classes=5, size=32, train=300, validation=10, test=20, dropout=0.0)
    model = ek.explainer("cam", preset="tiny", epochs=8).fit(dataset, seed=0, device="cpu", progress=False)
    return model, dataset


def test_unreasonable_swaps_are_cells_that_show_no_part_in_common(learned) -> None:
    model, dataset = learned

    score = unreasonable_swaps(model, dataset, images=20, seed=1)

    batch = dataset.test.batch(torch.arange(20))
    is_right = model.predict(batch).argmax(1) == batch.labels
    assert len(score.values) == is_right.sum() and len(score.defined) > 3
    chance = torch.rand(20, 5, generator=torch.Generator().manual_seed(1))
    targets = chance.scatter(1, batch.labels[:, None], -1).argmax(1)
    swaps = model.counterfactual(
        batch.images[is_right], targets[is_right], "region-swap", distractors=dataset
    ).edits["region-swap"]
    laid_over, own = _source_masks(dataset, swaps), batch.masks[is_right]
    for n in range(int(is_right.sum())):
        if not swaps.success[n]:
            assert score.values[n].isnan()
            continue
        count = 0
        for i, j in swaps.regions[n].nonzero().tolist():
            cell = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
            common = own[n][:, *cell].any(2).any(1) & laid_over[n][:, *cell].any(2).any(1)
            count += not common.any()
        assert score.values[n] == count


def test_masks_of_sources_are_moved_as_the_sources_are(learned) -> None:
    model, dataset = learned
    batch = dataset.test.batch(torch.arange(8))
    swaps = model.counterfactual(
        batch.images, (batch.labels + 1) % 5, "region-swap", distractors=dataset
    ).edits["region-swap"]
    rows = swaps.exemplars >= 0
    assert rows.any()

    class Pictures:
        """The training images in place of their masks."""

        name = "pictures"

        def split(self, name: str) -> "Pictures":
            assert name == "train"
            return self

        def batch(self, ids: torch.Tensor) -> ek.Batch:
            images = dataset.train.batch(ids)
            return evolve(images, masks=images.images)

    assert torch.equal(_source_masks(Pictures(), swaps)[rows], swaps.sources[rows])


@pytest.mark.parametrize("differing", [None, 1, 3])
def test_targets_are_other_classes_that_differ_in_as_many_parts(differing) -> None:
    dataset = aviary(preset="funny", classes=60, train=1, validation=1, test=1)
    labels = torch.arange(60)

    targets, has_target = _swap_targets(dataset, labels, differing, 0)

    for label, target, has_one in zip(labels.tolist(), targets.tolist(), has_target.tolist(), strict=True):
        differ = [len(dataset.differing(label, other)) for other in range(60)]
        allowed = [c for c in range(60) if c != label and differing in (None, differ[c])]
        assert has_one == bool(allowed)
        assert not has_one or target in allowed
    assert has_target.any()
