"""Exemplars of a class: the images with the largest scores, their boxes and their pictures."""

import pytest
import torch
from class_cases import each_additive, explained_classes
from toys import batch_of, noise, toy

from explainkit.data.types import Batch
from explainkit.testing import fitted_example, tiny_dataset


def best_by_score(explanations, labels, ids, label, unit):
    """Images of the class by score, the largest first."""
    index = (labels == label).nonzero()[:, 0]
    order = explanations.scores[index, unit].argsort(descending=True, stable=True)
    return ids[index[order]].tolist(), explanations.scores[index[order], unit].tolist()


@each_additive
def test_exemplars_are_the_images_of_the_class_with_the_largest_scores(name):
    _, images, labels, explanations, class_explanations = explained_classes(name)
    ids = torch.arange(len(images))

    for label in class_explanations.index.tolist():
        for unit in range(min(len(explanations.units), 12)):
            pictures = class_explanations[label].evidence_of(unit).pictures
            best, scores = best_by_score(explanations, labels, ids, label, unit)
            score_of = dict(zip(best, scores, strict=True))
            assert [score_of[item.id] for item in pictures] == pytest.approx(scores[:3], rel=1e-5, abs=1e-7)
            assert len({item.id for item in pictures}) == len(pictures) == 3
            for item in pictures:
                x0, y0, x1, y1 = item.box
                assert 0 <= x0 < x1 <= images.shape[3] and 0 <= y0 < y1 <= images.shape[2]
                assert item.label == label


@pytest.mark.parametrize("name", ["cam", "protopnet", "ra-cnn", "cells"])
def test_the_box_of_an_exemplar_is_around_its_best_cell(name):
    _, _, _, explanations, class_explanations = explained_classes(name)
    h, w = explanations.maps.shape[2:]
    height, width = explanations.images.shape[2:]

    for item in class_explanations[1].top(6):
        group = 0 if explanations.units.group is None else int(explanations.units.group[item.unit])
        for picture in item.pictures:
            map = explanations.maps[picture.id, item.unit]
            if map.max() <= 0:
                assert picture.box == (0, 0, width, height)
                continue
            assert picture.cell == divmod(int(map.argmax()), w)
            frame = (
                (0, 0, width, height)
                if explanations.boxes is None
                else explanations.boxes[picture.id, group].tolist()
            )
            x = frame[0] + (frame[2] - frame[0]) * (picture.cell[1] + 0.5) / w
            y = frame[1] + (frame[3] - frame[1]) * (picture.cell[0] + 0.5) / h
            assert picture.box[0] <= x <= picture.box[2] and picture.box[1] <= y <= picture.box[3]
            assert picture.box[2] - picture.box[0] <= 3 * (frame[2] - frame[0]) / w + 2


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 3, 5, 40])
def test_a_stream_that_comes_round_again_keeps_each_image_once(count, size):
    images, labels = noise(3 * count), torch.arange(3 * count) % 3
    ids = torch.arange(3 * count).repeat(4)
    stream = [Batch(images=images[chosen], labels=labels[chosen], ids=chosen) for chosen in ids.split(size)]
    class_explanations = toy().explain_class(stream)
    once = toy().explain_class([batch_of(images, labels)])

    assert (class_explanations.counts == 4 * once.counts).all()
    for item in class_explanations:
        for unit in range(len(class_explanations.units)):
            image_ids = [picture.id for picture in item.evidence_of(unit).pictures]
            assert len(set(image_ids)) == len(image_ids) == min(count, 3)
    exemplar_ids = class_explanations.examples.ids
    assert (exemplar_ids >= -1).all() and ((exemplar_ids >= 0).sum(1) == min(count, 3)).all()


def test_where_a_unit_has_no_place_the_whole_image_is_shown():
    *_, class_explanations = explained_classes("senn")

    for item in class_explanations[0].evidence:
        assert all(picture.box == (0, 0, 32, 32) for picture in item.pictures)


def test_pictures_are_those_of_the_images():
    dataset = tiny_dataset()
    class_explanations = fitted_example("protopnet").explain_class(dataset, ["square 1"])

    for item in class_explanations["square 1"].top(4):
        for picture in item.pictures:
            assert torch.equal(picture.image, dataset.train.images[picture.id]) and picture.split == "train"
            assert dataset.train.labels[picture.id] == 1
    streamed = fitted_example("protopnet").explain_class(dataset.batches("test"))
    picture = streamed[0].top(1)[0].pictures[0]
    assert picture.split == "test"
    assert torch.equal(picture.image, dataset.test.images[picture.id])
