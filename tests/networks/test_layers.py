import pytest
import torch
from torch import nn
from torch.nn import functional as F

from explainkit.errors import UnknownNameError, UnsupportedNetworkError
from explainkit.networks.layers import (
    check_spatial_layer,
    describe_output,
    is_spatial,
    last_spatial_layer,
    layer_name,
    output_shapes,
    relu_counts,
    run_counts,
)


class Branching(nn.Module):
    """Runs one ReLU twice and a functional one once; one of its layers returns a tuple."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.rectify = nn.ReLU()
        self.pair = Pair()
        self.unused = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        features = self.rectify(self.rectify(self.stem(images)))
        first, second = self.pair(features)
        return self.head(F.relu(first + second).mean((2, 3)))


class Pair(nn.Module):
    def forward(self, features):
        return features, 2 * features


def network():
    torch.manual_seed(0)
    return Branching().eval()


def image():
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def hooks_of(network):
    return [
        hook
        for module in network.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


def test_a_layer_has_its_dotted_name_as_a_module_and_as_a_name():
    nested = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten()))

    assert layer_name(nested, nested[1][0]) == layer_name(nested, "1.0") == "1.0"


def test_an_unknown_layer_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"no layer 'rectfy'. Did you mean 'rectify'\?"):
        layer_name(network(), "rectfy")
    with pytest.raises(UnknownNameError, match=r"There are: 'stem', 'rectify', 'pair', 'unused', 'head'\."):
        layer_name(network(), "zzz")
    with pytest.raises(UnsupportedNetworkError, match="got a ReLU that is not in it"):
        layer_name(network(), nn.ReLU())


def test_output_shapes_are_in_the_order_in_which_layers_finish():
    branching = network()

    shapes = output_shapes(branching, image())

    assert list(shapes) == ["stem", "rectify", "pair", "head"]
    assert shapes["rectify"] == (1, 4, 6, 6) and shapes["head"] == (1, 2)
    assert shapes["pair"].startswith("tuple of a tensor (1, 4, 6, 6)")
    assert not hooks_of(branching)


def test_a_layer_that_runs_twice_stands_where_it_ran_last():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.rectify, self.conv = nn.ReLU(), nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.rectify(self.conv(self.rectify(images)))

    assert list(output_shapes(Twice(), image())) == ["conv", "rectify"]


def test_runs_are_counted_for_layers_without_children():
    branching = network()

    assert run_counts(branching, image()) == {"stem": 1, "rectify": 2, "pair": 1, "unused": 0, "head": 1}
    assert not hooks_of(branching)


def test_functional_relus_are_counted_in_the_graph_alone():
    assert relu_counts(network(), image()) == (2, 3)
    assert relu_counts(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), image()) == (0, 0)


def test_relus_are_counted_where_the_caller_has_no_gradients():
    with torch.no_grad():
        assert relu_counts(network(), image()) == (2, 3)


@pytest.mark.parametrize(
    ("shape", "min_cells", "expected"),
    [((1, 4, 2, 3), 6, True), ((1, 4, 2, 3), 7, False), ((1, 4), 1, False), ("a tuple", 1, False)],
)
def test_an_output_is_spatial_with_four_axes_and_enough_cells(shape, min_cells, expected):
    assert is_spatial(shape, min_cells) is expected


def test_the_last_spatial_layer_has_more_than_one_cell():
    assert last_spatial_layer({"a": (1, 4, 3, 3), "b": (1, 4, 1, 1), "c": (1, 2)}) == "a"
    with pytest.raises(UnsupportedNetworkError, match="of 2 none does"):
        last_spatial_layer({"b": (1, 4, 1, 1), "c": (1, 2)})


def test_a_layer_without_a_grid_is_refused_with_those_that_have_one():
    shapes = {"a": (1, 4, 3, 3), "b": (1, 4, 2, 2), "c": (1, 2)}

    check_spatial_layer(shapes, "a")
    with pytest.raises(UnsupportedNetworkError, match=r"'c' returns \(1, 2\)\..* first: 'b', 'a'\."):
        check_spatial_layer(shapes, "c")
    with pytest.raises(UnsupportedNetworkError, match="'d' was not run on its own"):
        check_spatial_layer(shapes, "d")


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(2, 3), "a tensor (2, 3) of torch.float32"),
        ({"a": torch.zeros(2)}, "dict of 'a': a tensor (2,) of torch.float32"),
        ({}, "dict of nothing"),
        ([None, 1], "list of NoneType, int"),
        ((), "tuple of nothing"),
        (Output(torch.zeros(2, 3)), "Output with .logits, a tensor (2, 3) of torch.float32"),
        (Output(None), "Output"),
    ],
    ids=range(7),
)
def test_an_output_is_described_in_words(value, words):
    assert describe_output(value) == words
