"""All that one forward pass gives: weights by target, selection, concatenation, detaching."""

import pickle
from functools import reduce

import pytest
import torch
from attrs import evolve, fields, frozen
from explanation_cases import drawn

from explainkit.explanations.decomposition import Decomposition, PerImageWeights, concat


def make_decomposition(images=4, classes=3, units=5, seed=0, **fields):
    scores, weights, bias = (
        drawn(images, units, seed=seed),
        drawn(classes, units, seed=seed + 1),
        drawn(classes),
    )
    values = {
        "logits": scores @ weights.T + bias,
        "bias": bias,
        "scores": scores,
        "weights": weights,
        "maps": drawn(images, units, 2, 3, seed=seed + 2),
    }
    return Decomposition(**values | fields)


def make_weights_per_image(images=4, classes=3, units=5, seed=0):
    """Weights that depend on the image, as SENN's do."""
    table = drawn(images, classes, units, seed=seed, signed=True)
    return table, lambda rows, targets: table[rows, targets]


def test_constant_weights_are_looked_up_by_target():
    decomposition, targets = make_decomposition(), torch.tensor([2, 0, 1, 2])

    torch.testing.assert_close(
        decomposition.weights_for(targets), torch.stack([decomposition.weights[t] for t in targets])
    )
    torch.testing.assert_close(
        decomposition.bias_for(targets), torch.stack([decomposition.bias[t] for t in targets])
    )


def test_weights_of_each_image_are_computed_by_row_and_target():
    table, weight_fn = make_weights_per_image()
    bias = drawn(4, 3, seed=5)
    decomposition, targets = make_decomposition(weights=weight_fn, bias=bias), torch.tensor([2, 0, 1, 2])

    torch.testing.assert_close(
        decomposition.weights_for(targets), torch.stack([table[n, t] for n, t in enumerate(targets)])
    )
    torch.testing.assert_close(
        decomposition.bias_for(targets), torch.stack([bias[n, t] for n, t in enumerate(targets)])
    )


def test_selected_rows_keep_the_weights_of_their_images():
    table, weight_fn = make_weights_per_image()
    decomposition = make_decomposition(weights=weight_fn, bias=drawn(4, 3), boxes=drawn(4, 1, 4))
    index, targets = torch.tensor([3, 1]), torch.tensor([0, 2])

    selected = decomposition.select(index).select(torch.tensor([1, 0]))

    torch.testing.assert_close(selected.weights_for(targets), torch.stack([table[1, 0], table[3, 2]]))
    for name in ("logits", "scores", "maps", "boxes", "bias"):
        torch.testing.assert_close(getattr(selected, name), getattr(decomposition, name)[[1, 3]])


def test_concatenated_decompositions_equal_the_whole():
    table, weight_fn = make_weights_per_image(images=5)
    whole = make_decomposition(images=5, weights=weight_fn)
    slices = [whole.select(torch.tensor(rows)) for rows in ([0, 1], [2], [3, 4])]
    targets = torch.tensor([2, 0, 1, 2, 0])

    concatenated = concat(slices, whole.maps)

    torch.testing.assert_close(concatenated.logits, whole.logits)
    torch.testing.assert_close(concatenated.scores, whole.scores)
    torch.testing.assert_close(concatenated.weights_for(targets), whole.weights_for(targets))
    selected = concatenated.select(torch.tensor([4, 0]))
    torch.testing.assert_close(selected.weights_for(torch.tensor([1, 1])), table[[4, 0], 1])


def test_constant_weights_are_kept_when_concatenated():
    whole = make_decomposition(boxes=drawn(4, 1, 4))

    concatenated = concat([whole.select(torch.tensor([0])), whole.select(torch.tensor([1, 2, 3]))], None)

    assert concatenated.weights is whole.weights and concatenated.maps is None
    torch.testing.assert_close(concatenated.boxes, whole.boxes)


@pytest.mark.parametrize("bias_shape", [(3,), (4, 3)])
def test_detached_weights_and_biases_do_not_follow_parameters_that_learn_on(bias_shape):
    weights = torch.nn.Parameter(drawn(3, 5))
    bias = torch.nn.Parameter(drawn(*bias_shape))
    targets = torch.tensor([2, 0, 1, 2])
    detached = make_decomposition(weights=weights, bias=bias).detach()
    weights_before, bias_before = detached.weights_for(targets), detached.bias_for(targets)

    with torch.no_grad():  # as an optimizer steps
        weights.mul_(2)
        bias.mul_(2)

    assert torch.equal(detached.weights_for(targets), weights_before)
    assert torch.equal(detached.bias_for(targets), bias_before) and bias_before.abs().min() > 0


def test_a_detached_decomposition_is_cut_from_the_graph():
    bias = torch.nn.Parameter(drawn(3))
    scores, weights = drawn(4, 5).requires_grad_(), drawn(3, 5).requires_grad_()
    maps, boxes = drawn(4, 5, 2, 2).requires_grad_(), drawn(4, 1, 4).requires_grad_()
    decomposition = Decomposition(
        logits=scores @ weights.T + bias,
        bias=bias * 1,
        scores=scores,
        weights=weights,
        maps=maps,
        boxes=boxes,
    )

    detached = decomposition.detach()

    for name in ("logits", "bias", "scores", "weights", "maps", "boxes"):
        assert not getattr(detached, name).requires_grad and getattr(decomposition, name).requires_grad, name
        assert torch.equal(getattr(detached, name), getattr(decomposition, name)), name
    decomposition.bias.sum().backward()  # the original is still part of its graph
    assert torch.equal(bias.grad, torch.ones(3).double())


def test_a_weight_function_is_detached_too():
    table = torch.rand(2, 3, 4, requires_grad=True)
    decomposition = Decomposition(
        logits=table.sum(2),
        bias=torch.zeros(3),
        scores=torch.ones(2, 4),
        weights=lambda rows, targets: table[rows, targets],
    )

    detached = decomposition.detach()

    assert not detached.weights_for(torch.tensor([0, 2])).requires_grad
    assert decomposition.weights_for(torch.tensor([0, 2])).requires_grad


def coupled_decomposition(images=5, classes=3, units=4):
    """Everything that a decomposition can have, with functions that are classes."""
    table = drawn(images, classes, units, seed=4)
    return Decomposition(
        logits=drawn(images, classes),
        bias=drawn(images, classes, seed=1),
        scores=drawn(images, units, seed=2),
        weights=PerImageWeights(table),
        maps=drawn(images, units, 2, 2, seed=3),
        boxes=drawn(images, 1, 4, seed=5),
        extras={"sureness": drawn(images, seed=6), "heads": drawn(images, 2, classes, seed=7)},
        rescore=PerImageScores(table),
    )


@frozen(eq=False)
class PerImageScores:
    """A `RescoreFn` that is another one for every image."""

    table: torch.Tensor

    def __call__(self, rows, scores):
        return torch.einsum("mck,mk->mc", self.table[rows], scores.square())


@pytest.mark.parametrize("operation", ["select", "detach", "concat", "pickle", "all"])
def test_every_operation_carries_all_of_it(operation):
    whole = coupled_decomposition()
    operations = {
        "select": lambda d: d.select(torch.arange(5)),
        "detach": lambda d: d.detach(),
        "concat": lambda d: concat([d.select(torch.arange(2)), d.select(torch.arange(2, 5))], d.maps),
        "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    }
    operations["all"] = lambda d: reduce(lambda value, name: operations[name](value), list(operations)[:4], d)

    other = operations[operation](whole)

    assert {item.name for item in fields(Decomposition)} == set(FIELDS) | {"weights", "extras", "rescore"}
    for name in FIELDS:
        assert torch.equal(getattr(other, name), getattr(whole, name)), name
    assert other.extras.keys() == whole.extras.keys()
    assert all(torch.equal(other.extras[name], value) for name, value in whole.extras.items())
    rows, scores, targets = torch.tensor([4, 0, 2]), drawn(3, 4, seed=8), torch.tensor([1, 2, 0])
    assert torch.equal(other.weights_at(rows, targets), whole.weights_at(rows, targets))
    assert torch.equal(other.rescore(rows, scores), whole.rescore(rows, scores))


FIELDS = ("logits", "bias", "scores", "maps", "boxes")


def test_rows_of_a_selection_are_those_of_the_images_selected():
    whole, rows, scores = coupled_decomposition(), torch.tensor([1, 0]), drawn(2, 4, seed=8)

    selected = whole.select(torch.tensor([3, 1]))

    assert torch.equal(selected.rescore(rows, scores), whole.rescore(torch.tensor([1, 3]), scores))
    assert torch.equal(selected.extras["heads"], whole.extras["heads"][[3, 1]])


@pytest.mark.parametrize("kind", ["constant", "per image", "rescored"])
def test_logits_of_other_scores_are_those_of_a_loop(kind):
    whole = coupled_decomposition()
    if kind != "rescored":
        whole = evolve(whole, rescore=None)
    if kind == "constant":
        whole = evolve(whole, weights=drawn(3, 4), bias=drawn(3))
    rows, scores = torch.tensor([4, 4, 0]), drawn(3, 4, seed=9)

    logits = whole.logits_at(rows, scores)

    for m, row in enumerate(rows.tolist()):
        if kind == "rescored":
            expected = whole.rescore(rows[m : m + 1], scores[m : m + 1])[0]
        else:
            targets = torch.arange(3)
            weights = whole.weights_at(torch.full((3,), row), targets)
            bias = whole.bias if kind == "constant" else whole.bias[row]
            expected = torch.stack([sum(weights[c] * scores[m]) + bias[c] for c in range(3)])
        torch.testing.assert_close(logits[m], expected)
