"""Class explanations are made in one pass, in constant memory, and disturb nothing."""

import pickle

import pytest
import torch
from class_cases import close, each_additive, explained_classes, labels_for
from toys import Cells, Varying, batch_of, noise, toy

from explainkit.data.types import Batch
from explainkit.questions.class_statistics import _Tally, explain_class
from explainkit.questions.quantiles import Quantiles


@each_additive
def test_batches_and_their_order_change_nothing(name):
    explainer, images, labels, _, whole = explained_classes(name)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    batches = [Batch(images=images[ids], labels=labels[ids], ids=ids) for ids in order.split(7)]
    again = explainer.explain_class(iter(batches), batch_size=3)

    assert torch.equal(again.counts, whole.counts) and torch.equal(again.index, whole.index)
    assert torch.equal(again.confusion, whole.confusion)
    for field in ("logits", "base", "contributions", "scores"):
        scale = float(whole.contributions.abs().sum(1).max())
        assert close(getattr(again, field), getattr(whole, field), scale)
    scale = float(whole.contributions.abs().max())
    assert torch.allclose(again.std, whole.std, rtol=1e-2, atol=1e-3 * scale)
    ids = [{picture.id for picture in item.pictures} for item in again[0].evidence if item.pictures]
    assert all(len(distinct) == 3 for distinct in ids)


def pickled_sizes(tally):
    """Bytes of each attribute, with whatever is reached from it."""
    return {name: len(pickle.dumps(value)) for name, value in vars(tally).items() if name != "first"}


@pytest.mark.parametrize("network", [Cells(), Varying()])
def test_memory_does_not_grow_with_the_number_of_images(network):
    explainer = toy(network)
    is_explained = torch.ones(3, dtype=torch.bool)
    images, labels = noise(12), torch.arange(12) % 3
    explanations = explainer.explain(images, labels)
    tally = _Tally(explanations, is_explained)
    sizes = []
    for step in range(50):
        tally.add(explanations, labels, torch.arange(12) + 12 * step)
        if step in (0, 49):
            sizes.append(pickled_sizes(tally))

    assert sizes[0].keys() == sizes[1].keys() and len(tally.first) == 0
    for name, size in sizes[0].items():
        assert sizes[1][name] == pytest.approx(size, abs=64), name


def test_a_stream_is_read_once():
    images, labels = noise(30), labels_for(30)
    batch_sizes = []

    def stream():
        for ids in torch.arange(30).split(8):
            batch_sizes.append(len(ids))
            yield Batch(images=images[ids], labels=labels[ids], ids=ids)

    class_explanations = toy().explain_class(stream())

    assert batch_sizes == [8, 8, 8, 6] and int(class_explanations.counts.sum()) == 30


def test_explaining_leaves_network_modes_gradients_and_random_state_alone():
    explainer, images = toy(), noise(9)
    explainer.network.train()
    explainer.network.head.weight.grad = torch.ones_like(explainer.network.head.weight)
    state = [value.clone() for value in explainer.network.state_dict().values()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():
        class_explanations = explainer.explain_class([batch_of(images, torch.arange(9) % 3)])

    assert torch.equal(torch.rand(1), expected) and explainer.network.training
    assert (explainer.network.head.weight.grad == 1).all()
    assert all(map(torch.equal, state, explainer.network.state_dict().values()))
    assert (
        not class_explanations.contributions.requires_grad
        and not class_explanations.contributions.is_inference()
    )


def test_the_function_and_the_method_say_the_same():
    explainer, images, labels, _, class_explanations = explained_classes("cells")

    again = explain_class(explainer, [batch_of(images, labels)], batch_size=128)
    assert torch.equal(again.base, class_explanations.base)


def test_quantiles_of_the_tally_are_a_stream():
    assert isinstance(_Tally(toy().explain(noise(1)), torch.ones(3).bool()).quantiles, Quantiles)
