"""The losses of phrases, against loops."""

import math

import pytest
import torch
from ccnn_networks import OF_CLASSES, random_mentions, small_network
from plugin_cases import FLOAT32, alone, assert_near, uniform
from torch.nn import functional as F

from explainkit.testing import tiny_dataset
from explainkit_ccnn.losses import counter, guided_loss, head_loss, semantic, stray_l1, uniqueness


def cosine(one, other):
    """By loops, of lists."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = [math.sqrt(sum(a * a for a in values)) for values in (one, other)]
    return product / (lengths[0] * lengths[1])


def cosines(network, maps):
    """cos(map k of image i, phrase k'), as nested lists, by loops."""
    cells, table = network.visual.tolist(), network.vectors.tolist()
    textual = network.textual.tolist()
    words = [
        [sum(w * row[j] for w, row in zip(vector, textual, strict=True)) for j in range(len(textual[0]))]
        for vector in table
    ]
    similarities = []
    for image in maps.flatten(2).tolist():
        embedded = [
            [sum(v * row[j] for v, row in zip(flat, cells, strict=True)) for j in range(len(cells[0]))]
            for flat in image
        ]
        similarities.append([[cosine(embedding, word) for word in words] for embedding in embedded])
    return similarities


class Aligned:
    """In place of a network: maps and phrases are their own embeddings, as unit vectors."""

    def __init__(self, phrases):
        self.phrases = phrases

    def embed_maps(self, maps):
        return F.normalize(maps, dim=-1, eps=1e-8)

    def embed_phrases(self):
        return F.normalize(self.phrases, dim=1)


@pytest.mark.parametrize("gain", [1.0, 5.0])
def test_uniqueness_is_that_of_a_loop(gain):
    scores, mentioned = uniform(4, 6), random_mentions(4, 6)

    total = 0.0
    for i in range(4):
        mean = sum(scores[i].tolist()) / 6
        for k in range(6):
            y = 1 / (1 + math.exp(-gain * (scores[i, k].item() - mean)))
            total -= math.log(y) if mentioned[i, k] else math.log(1 - y)

    assert uniqueness(scores, mentioned, gain).item() == pytest.approx(total / 24, rel=FLOAT32)


def test_balanced_uniqueness_weighs_mentioned_phrases_like_the_others():
    scores, mentioned = uniform(4, 6), random_mentions(4, 6, 0.2)
    terms = F.binary_cross_entropy_with_logits(
        5 * (scores - scores.mean(1, keepdim=True)), mentioned.float(), reduction="none"
    )

    loss = uniqueness(scores, mentioned, 5.0, balanced=True)

    expected = (terms[mentioned].mean() + terms[~mentioned].mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=FLOAT32)


@pytest.mark.parametrize("balanced", [False, True])
def test_equal_scores_cost_log_2_whatever_is_mentioned(balanced):
    for share in (0.1, 0.5, 0.9):
        loss = uniqueness(torch.full((5, 7), 3.2), random_mentions(5, 7, share), 5.0, balanced)
        assert loss.item() == pytest.approx(math.log(2), rel=FLOAT32)


def test_uniqueness_does_not_see_what_all_scores_have_in_common():
    scores, mentioned = uniform(5, 7), random_mentions(5, 7)

    assert_near(uniqueness(scores + 10 * uniform(5, 1), mentioned), uniqueness(scores, mentioned))


@pytest.mark.parametrize("value", [False, True])
def test_uniqueness_of_nothing_or_everything_mentioned_is_finite(value):
    scores = uniform(3, 4).requires_grad_()

    uniqueness(scores, torch.full((3, 4), value), 5.0, balanced=True).backward()

    assert scores.grad.isfinite().all()


def test_semantic_loss_is_that_of_a_loop():
    network, maps, mentioned = small_network(), uniform(4, 5, 8, 8), random_mentions(4, 5)
    similarities = cosines(network, maps)

    total = 0.0
    for i, k in mentioned.nonzero().tolist():
        for other in range(5):
            if other != k:
                total += max(0.0, 0.3 + similarities[i][k][other] - similarities[i][k][k])

    assert semantic(network, maps, mentioned, 0.3).item() == pytest.approx(total / 20, rel=FLOAT32)


def test_counter_loss_is_that_of_a_loop():
    network, maps, mentioned = small_network(), uniform(4, 5, 8, 8), random_mentions(4, 5)
    similarities, order = cosines(network, maps), torch.tensor([2, 0, 3, 1])

    total = 0.0
    for i in range(4):
        j = int(order[i])
        for k in range(5):
            if mentioned[i, k] and not mentioned[j, k]:
                total += max(0.0, 0.5 + similarities[j][k][k] - similarities[i][k][k])

    assert total
    assert counter(network, maps, mentioned, order, 0.5).item() == pytest.approx(total / 20, rel=FLOAT32)


def test_semantic_loss_is_zero_where_maps_are_their_own_phrases_and_no_others():
    maps = torch.eye(4).expand(3, 4, 4)

    assert semantic(Aligned(torch.eye(4)), maps, random_mentions(3, 4), 1.0) == 0
    opposed = torch.tensor([[1.0, 0], [-1.0, 0]])
    assert semantic(Aligned(opposed), opposed.expand(3, 2, 2), random_mentions(3, 2), 2.0) == 0


def test_semantic_loss_of_phrases_that_are_all_alike_is_the_margin_for_each_pair():
    mentioned = random_mentions(3, 4)

    loss = semantic(Aligned(torch.ones(4, 6)), uniform(3, 4, 6), mentioned, 0.7)

    assert loss.item() == pytest.approx(0.7 * 3 * int(mentioned.sum()) / 12, rel=FLOAT32)


def test_maps_of_phrases_that_are_not_mentioned_change_nothing():
    network, mentioned = small_network(), random_mentions(4, 5)
    maps = uniform(4, 5, 8, 8).requires_grad_()

    semantic(network, maps, mentioned, 1.0).backward()

    assert not maps.grad[~mentioned].any() and maps.grad[mentioned].flatten(1).any(1).all()


def test_counter_loss_is_zero_without_a_counter_image_or_a_difference():
    network, maps, mentioned = small_network(), uniform(4, 5, 8, 8), random_mentions(4, 5)

    assert counter(network, maps, mentioned, torch.arange(4)) == 0
    same = mentioned[:1].expand(4, 5) | mentioned[1:2]
    assert counter(network, maps, same, torch.tensor([1, 2, 3, 0])) == 0
    assert counter(network, maps[:1], mentioned[1:2], torch.tensor([0])) == 0


def test_counter_loss_of_equal_maps_is_the_margin_for_each_difference():
    network, mentioned, order = small_network(), random_mentions(4, 5), torch.tensor([1, 2, 3, 0])
    maps = uniform(1, 5, 8, 8).expand(4, 5, 8, 8)

    loss = counter(network, maps, mentioned, order, 0.5)

    expected = 0.5 * int((mentioned & ~mentioned[order]).sum()) / 20
    assert loss.item() == pytest.approx(expected, rel=FLOAT32)


def test_neither_sees_how_large_maps_and_vectors_are():
    network, maps, mentioned = small_network(), uniform(4, 5, 8, 8), random_mentions(4, 5)
    order = torch.tensor([1, 2, 3, 0])
    losses = semantic(network, maps, mentioned), counter(network, maps, mentioned, order)

    larger = maps * (0.1 + 9 * uniform(4, 5, 1, 1, seed=1))
    network.vectors *= 0.1 + 9 * uniform(5, 1, seed=2)

    assert_near(semantic(network, larger, mentioned), losses[0])
    assert_near(counter(network, larger, mentioned, order), losses[1])


def test_cosines_are_cosines():
    network = small_network()

    similarities = network.embed_maps(uniform(9, 5, 64)) @ network.embed_phrases().T

    assert similarities.abs().max() <= 1 + FLOAT32
    assert_near(network.embed_phrases().norm(dim=1), torch.ones(5))


def test_one_image_a_dead_map_and_an_image_without_phrases_have_finite_gradients():
    network = small_network()
    for mentioned in (torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 5, dtype=torch.bool)):
        maps = torch.zeros(1, 5, 8, 8, requires_grad=True)

        loss = semantic(network, maps, mentioned) + counter(network, maps, mentioned, torch.tensor([0]))
        loss.backward()

        assert loss.isfinite() and maps.grad.isfinite().all()
        assert mentioned.any() or loss == 0
    assert not network.embed_maps(torch.zeros(2, 64)).any()


def batch_of(dataset, count=8):
    return dataset.train.batch(torch.arange(count))


def test_the_loss_is_classification_and_the_weight_times_the_three():
    network, batch, mentioned = small_network(), batch_of(tiny_dataset()), random_mentions(96, 5)

    torch.manual_seed(3)
    terms = guided_loss(network, batch, alone(batch), mentioned, 0.4, 5.0, True, 0.3, 0.2, 0.1)

    torch.manual_seed(3)
    order, decomposition = torch.randperm(8), network.decompose(batch.images)
    maps, of_batch = decomposition.maps, mentioned[batch.ids]
    expected = {
        "cross_entropy": F.cross_entropy(decomposition.logits, batch.labels, label_smoothing=0.1).item(),
        "uniqueness": 0.4 * uniqueness(decomposition.scores, of_batch, 5.0, True).item(),
        "semantic": 0.4 * semantic(network, maps, of_batch, 0.3).item(),
        "counter": 0.4 * counter(network, maps, of_batch, order, 0.2).item(),
    }
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=FLOAT32)
    assert list(guided_loss(network, batch, alone(batch), mentioned, 0.0)) == ["cross_entropy"]


def test_the_penalty_is_on_weights_of_phrases_of_other_classes():
    network = small_network()
    with torch.no_grad():
        network.head.weight.copy_(uniform(3, 5) - 0.5)

    penalty = stray_l1(network)
    penalty.backward()

    weight = network.head.weight
    total = sum(abs(weight[c, k].item()) for c in range(3) for k in range(5) if not OF_CLASSES[k, c])
    assert penalty.item() == pytest.approx(total / 15, rel=FLOAT32)
    assert not weight.grad[OF_CLASSES.T].any() and weight.grad[~OF_CLASSES.T].all()


def test_the_last_stage_has_classification_and_that_penalty():
    network, batch = small_network(), batch_of(tiny_dataset())
    with torch.no_grad():
        network.head.weight.add_(0.1)

    terms = head_loss(network, batch, alone(batch))

    assert_near(terms["cross_entropy"], F.cross_entropy(network(batch.images), batch.labels))
    assert_near(terms["stray"], stray_l1(network))


def test_the_order_of_phrases_is_no_matter():
    network, batch, mentioned = small_network(), batch_of(tiny_dataset()), random_mentions(96, 5)
    order, other = torch.tensor([3, 0, 4, 1, 2]), small_network()
    with torch.no_grad():
        other.concepts.weight.copy_(network.concepts.weight[order])
        other.concepts.bias.copy_(network.concepts.bias[order])
        other.head.weight.copy_(network.head.weight[:, order])
        other.vectors.copy_(network.vectors[order])
        other.of_classes.copy_(network.of_classes[order])

    torch.manual_seed(0)
    expected = guided_loss(network, batch, alone(batch), mentioned)
    torch.manual_seed(0)
    terms = guided_loss(other, batch, alone(batch), mentioned[:, order])

    for name, value in expected.items():
        assert_near(terms[name], value)
    assert_near(other(batch.images), network(batch.images))
