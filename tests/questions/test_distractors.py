"""Distractors of counterfactuals, and that asking for these is deterministic and has no side effects."""

import pytest
import torch
from attrs import evolve
from counterfactual_cases import counterfactual_case, each_explainer
from toys import batch_of, dataset_of, labeled, noise, toy, wine

from explainkit.data.types import ArraySplit
from explainkit.errors import InputError
from explainkit.questions.region_swap import EXEMPLARS

SPLITS = ("train", "validation", "test")


# distractors


@each_explainer
def test_distractors_without_a_known_image_of_the_target_are_a_failure_that_is_reported(name):
    explainer, distractors, images, _ = counterfactual_case(name)
    predicted = explainer.predict(images).argmax(1)
    index = (distractors.labels == 0).nonzero()[:, 0]
    without_target = batch_of(distractors.images[index], distractors.labels[index])
    mislabeled = batch_of(without_target.images, torch.ones_like(without_target.labels))

    for useless in (without_target, mislabeled):
        counterfactuals = explainer.counterfactual(images, 1, distractors=useless)
        swaps = counterfactuals.edits["region-swap"]
        assert torch.equal(counterfactuals.success, predicted == 1)
        assert torch.equal(swaps.images, images) and (swaps.exemplars == -1).all()
        assert all(item.sentence() and item.facts() and item.figure() for item in counterfactuals)


def test_distractors_of_another_size_are_refused_in_words():
    explainer, _, images, _ = counterfactual_case("cells")

    with pytest.raises(InputError, match=r"\(3, 32, 32\).*\(3, 64, 64\)"):
        explainer.counterfactual(images, distractors=labeled(explainer, noise(6, size=64)))
    with pytest.raises(InputError, match="wine"):
        explainer.counterfactual(images, distractors=wine()[1])


def test_missing_distractors_are_refused_in_words():
    explainer, _, images, _ = counterfactual_case("cells")

    with pytest.raises(InputError, match="distractors=dataset"):
        explainer.counterfactual(images)


def test_distractors_of_other_classes_are_refused_in_words():
    explainer, distractors, images, _ = counterfactual_case("cells")
    dataset = dataset_of(distractors.images, distractors.labels, classes=("dog", "emu", "fox"))

    with pytest.raises(InputError, match="dog"):
        explainer.counterfactual(images, distractors=dataset)


def test_distractors_as_a_dataset_and_as_a_batch_give_the_same():
    explainer, distractors, images, _ = counterfactual_case("cells")
    dataset = dataset_of(distractors.images, distractors.labels)
    from_dataset = explainer.counterfactual(images, distractors=dataset).edits
    from_batch = explainer.counterfactual(images, distractors=dataset.train.batch(torch.arange(60))).edits

    assert torch.equal(from_dataset["region-swap"].images, from_batch["region-swap"].images)
    assert torch.equal(from_dataset["region-swap"].exemplars, from_batch["region-swap"].exemplars)
    assert torch.equal(from_dataset["score-edit"].after, from_batch["score-edit"].after)


def test_only_some_images_of_each_class_are_fetched():
    batch_sizes = []

    class CountingSplit(ArraySplit):
        def batch(self, ids):
            batch_sizes.append(len(ids))
            return super().batch(ids)

    explainer = toy()
    explainer.units = evolve(
        explainer.describe_units(explainer.network), score_range=torch.rand(2, 3, 6).sort(0).values
    )
    split = CountingSplit(images=(noise(300) * 255).byte(), labels=torch.arange(300) % 3)
    distractors = evolve(dataset_of(noise(3), torch.arange(3)), splits=dict.fromkeys(SPLITS, split))
    explainer.counterfactual(noise(20, seed=2), torch.arange(20) % 3, distractors=distractors)

    assert batch_sizes == [3 * 2 * EXEMPLARS]


# determinism and side effects


@each_explainer
def test_asking_again_says_the_same_and_leaves_all_as_it_was(name):
    explainer, distractors, images, first = counterfactual_case(name)
    network = explainer.network
    network.train()
    marked = next(network.parameters())
    marked.grad = torch.ones_like(marked)
    state = [value.clone() for value in network.state_dict().values()]
    modes, original = [module.training for module in network.modules()], images.clone()
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    again = explainer.counterfactual(images, distractors=distractors)

    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in network.modules()] == modes and (marked.grad == 1).all()
    assert sum(parameter.grad is not None for parameter in network.parameters()) == 1
    assert all(map(torch.equal, state, network.state_dict().values())) and torch.equal(images, original)
    marked.grad = None
    network.eval()
    swaps, before = again.edits["region-swap"], first.edits["region-swap"]
    for name in (
        "images", "regions", "success", "logits", "exemplars", "shifts", "mirrored", "predicted_size",
    ):  # fmt: skip
        assert torch.equal(getattr(swaps, name), getattr(before, name)), name
    assert torch.equal(again.edits["score-edit"].after, first.edits["score-edit"].after)


@pytest.mark.parametrize("name", ["cells", "senn", "ra-cnn"])
def test_asking_in_inference_mode_leaks_no_inference_tensor(name):
    explainer, distractors, images, first = counterfactual_case(name)
    with torch.inference_mode():
        counterfactuals = explainer.counterfactual(images + 0, distractors=distractors)
    swaps = counterfactuals.edits["region-swap"]

    score_edits = counterfactuals.edits["score-edit"]
    for value in (swaps.images, swaps.logits, score_edits.after, score_edits.logits):
        assert not value.is_inference() and not value.requires_grad
    assert torch.equal(counterfactuals.success, first.success)


@pytest.mark.parametrize("name", ["cells", "cam", "ra-cnn"])
def test_many_images_are_answered_as_each_alone(name):
    explainer, distractors, _, _ = counterfactual_case(name)
    images = noise(19, seed=6)
    together = explainer.counterfactual(images, distractors=distractors)
    last = explainer.counterfactual(images[15:], together.targets[15:], distractors=distractors, batch_size=2)

    assert torch.equal(together.success[15:], last.success)
    assert torch.equal(together.edits["region-swap"].size[15:], last.edits["region-swap"].size)
    assert torch.equal(together.edits["region-swap"].exemplars[15:], last.edits["region-swap"].exemplars)
