"""Which classes are explained, and what is refused."""

import numpy as np
import pytest
import torch
from attrs import evolve
from class_cases import close, explained_classes
from toys import batch_of, dataset_of, noise, toy

from explainkit.data.types import Batch
from explainkit.errors import AdditivityError, InputError, UnknownNameError
from explainkit.testing import fitted_example, tiny_dataset

# which classes


@pytest.mark.parametrize("classes", ["bee", 1, ["bee"], [1], ["bee", 1]])
def test_classes_are_asked_for_by_name_and_index(classes):
    explainer, images, labels, _, whole = explained_classes("cells")
    class_explanations = explainer.explain_class([batch_of(images, labels)], classes)

    assert class_explanations.index.tolist() == [1] and len(class_explanations) == 1
    assert torch.equal(class_explanations.contributions[0], whole.contributions[1])
    assert (
        class_explanations["bee"].target == class_explanations[1].target == 1
        and class_explanations["bee"].name == "bee"
    )
    assert "bee" in class_explanations and "ant" not in class_explanations
    with pytest.raises(InputError, match="ant"):
        class_explanations["ant"]
    with pytest.raises(UnknownNameError, match="bee"):
        class_explanations["bees"]


@pytest.mark.parametrize("classes", [np.int64(1), np.array([1]), torch.tensor(1), torch.tensor([1])])
def test_classes_may_be_numbers_of_numpy_and_torch(classes):
    explainer, images, labels, *_ = explained_classes("cells")

    assert explainer.explain_class([batch_of(images, labels)], classes).index.tolist() == [1]


@pytest.mark.parametrize("classes", [1.5, True, [True], [1.0], [None], torch.tensor(1.5), object()])
def test_what_is_no_class_is_refused_in_words(classes):
    explainer, images, labels, *_ = explained_classes("cells")

    with pytest.raises(InputError, match="Expected classes by name or number"):
        explainer.explain_class([batch_of(images, labels)], classes)


def test_some_classes_come_in_the_order_of_all():
    explainer, images, labels, _, whole = explained_classes("weights of each image")
    class_explanations = explainer.explain_class([batch_of(images, labels)], ["cat", "ant"])

    assert [item.name for item in class_explanations] == ["ant", "cat"]
    assert close(class_explanations.all_class_contributions, whole.all_class_contributions[[0, 2]]) and close(
        class_explanations.linear_r2, whole.linear_r2[[0, 2]]
    )
    assert class_explanations[2].contrast("bee").explained_output == pytest.approx(
        whole[2].contrast("bee").explained_output, rel=1e-5
    )


def test_classes_without_images_are_left_out_unless_asked_for():
    images = noise(6)
    batch = batch_of(images, torch.tensor([0, 2] * 3))

    class_explanations = toy().explain_class([batch])

    assert class_explanations.index.tolist() == [0, 2] and class_explanations["cat"].count == 3
    with pytest.raises(InputError, match="bee"):
        toy().explain_class([batch], ["ant", "bee"])
    with pytest.raises(InputError, match="data have none"):
        toy().explain_class([batch], "bee")


# refusals


def test_contributions_that_add_up_to_nothing_are_refused_in_words():
    explainer = fitted_example("captum/saliency")

    with pytest.raises(InputError, match="add up to nothing"):
        explainer.explain_class(tiny_dataset())


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_out_of_range_are_refused_in_words(labels):
    with pytest.raises(InputError, match="labels in 0 … 2"):
        toy().explain_class([batch_of(noise(2), torch.tensor(labels))])


@pytest.mark.parametrize(
    "dataset", [torch.rand(2, 3, 32, 32), [torch.rand(2, 3, 32, 32)], 3, "a", None]
)  # fmt: skip
def test_what_is_no_stream_of_batches_is_refused_in_words(dataset):
    with pytest.raises(InputError, match="batches"):
        toy().explain_class(dataset)


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, 1).long(), torch.zeros(3).long()])
def test_labels_that_are_none_are_refused_in_words(labels):
    with pytest.raises(InputError, match="label"):
        toy().explain_class([Batch(images=noise(2), labels=labels, ids=torch.arange(2))])


def test_a_contrast_with_itself_is_refused_in_words():
    *_, class_explanations = explained_classes("cells")

    with pytest.raises(InputError, match="another class"):
        class_explanations["ant"].contrast("ant")


def test_one_batch_will_do():
    _, images, labels, _, whole = explained_classes("cells")

    assert torch.equal(toy().explain_class(batch_of(images, labels)).contributions, whole.contributions)


def test_data_without_images_are_refused_in_words():
    with pytest.raises(InputError, match="data have none"):
        toy().explain_class([])
    with pytest.raises(InputError, match="data have none"):
        toy().explain_class([batch_of(noise(2)[:0], torch.zeros(0).long())])


def test_data_of_other_classes_are_refused_in_words():
    dataset = dataset_of(noise(6), torch.arange(6) % 3, classes=("dog", "emu", "fox"))

    with pytest.raises(InputError, match="dog"):
        toy().explain_class(dataset)


def test_an_unknown_class_is_refused_by_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'bee'"):
        toy().explain_class([batch_of(noise(2), torch.arange(2))], "bea")


def test_a_sum_that_does_not_hold_is_found():
    *_, class_explanations = explained_classes("cells")

    with pytest.raises(AdditivityError, match="ant"):
        evolve(class_explanations, base=class_explanations.base + 1).check_additivity()


@pytest.mark.parametrize("dataset", [tiny_dataset(), [batch_of(noise(2), torch.arange(2))]])
def test_no_images_at_once_are_refused_in_words(dataset):
    with pytest.raises(InputError, match="batch_size"):
        toy().explain_class(dataset, batch_size=0)
