"""All that one forward pass gives: weights by target, selection, concatenation, detaching."""

import pytest
import torch
from explanation_cases import drawn

from explainkit.explanations.decomposition import Decomposition, concat


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
