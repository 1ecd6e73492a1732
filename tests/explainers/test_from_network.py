"""An architecture takes networks of its own class, and reads their size off them."""

from typing import ClassVar

import pytest
import torch
from attrs import define
from torch import nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError


class MeanColors(nn.Module):
    """Logits from the mean of each color."""

    def __init__(self, input_size=None):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.input_size = input_size

    def decompose(self, images):
        scores = images.mean((2, 3))
        return ek.Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight
        )

    def forward(self, images):
        return self.decompose(images).logits


class OtherColors(MeanColors):
    pass


class Headless(nn.Module):
    pass


@define(eq=False, kw_only=True)
class Colors(ek.InterpretableExplainer[nn.Module]):
    card: ClassVar[ek.Card] = ek.Card(
        title="Mean colors",
        citation="none",
        additivity="exact",
        unit_kind="colors",
        learns_from="training images",
    )

    def build(self, task):
        return MeanColors()

    def phases(self):
        return []

    def describe_units(self, network):
        return ek.Units(kind="color", names=("red", "green", "blue"), pooling="none")


@define(eq=False, kw_only=True)
class StrictColors(Colors):
    network_type: ClassVar[type[nn.Module]] = MeanColors


@pytest.mark.parametrize("kind", [MeanColors, OtherColors])
def test_networks_of_the_class_and_below_it_are_taken(kind):
    explainer = StrictColors.from_network(kind())

    assert explainer.bound and explainer.classes == ("class 0", "class 1")
    explainer.explain(torch.rand(2, 3, 8, 8)).check_additivity()


def test_other_networks_are_refused_in_words():
    with pytest.raises(
        UnsupportedNetworkError,
        match=r"Expected a MeanColors for Mean colors; got Headless. Train one with fit",
    ):
        StrictColors.from_network(Headless())


def test_without_a_class_any_network_with_decompose_is_taken():
    assert Colors.from_network(MeanColors()).bound
    with pytest.raises(UnsupportedNetworkError, match=r"a network with decompose\(images\) for Mean colors"):
        Colors.from_network(Headless())


@pytest.mark.parametrize("size", [None, (16, 24)])
def test_files_are_resized_to_the_input_size_of_the_network(size):
    assert StrictColors.from_network(MeanColors(size)).size == size
