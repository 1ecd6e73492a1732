"""Graphs that several tests look at, each exported once; and networks that cannot be."""

from functools import cache

import torch
from torch import nn

import explainkit as ek
from explainkit.explanations.decomposition import Decomposition
from explainkit.testing import fitted_example, tiny_dataset


@cache
def graph_of(name, **options):
    """The graph of a fitted example, and a session that runs it."""
    from explainkit.export.agreement import open_session
    from explainkit.export.onnx_graphs import onnx_graph

    graph = onnx_graph(fitted_example(name), **options)
    return graph, open_session(graph.content)


def given_by(session, images, targets=None):
    """The outputs of a session by name, as tensors."""
    from explainkit.export.agreement import run_graph

    outputs = run_graph(session, images, targets)
    return {name: torch.from_numpy(values.copy()) for name, values in outputs.items()}


def images_of(count):
    """Images of the test split, again and again."""
    return tiny_dataset().test.batch(torch.arange(count) % 24).images


class Linear(nn.Module):
    """Mean colors and a linear layer: what is below changes one line of it."""

    def __init__(self, classes=3):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def scores(self, images):
        return images.mean((2, 3))

    def decompose(self, images):
        scores = self.scores(images)
        return Decomposition(
            logits=self.head(scores), bias=self.head.bias, scores=scores, weights=self.head.weight
        )

    def forward(self, images):
        return self.decompose(images).logits


class WithLength(Linear):
    """Reads the number of images by len, as a constant."""

    def scores(self, images):
        return images.flatten(2).mean(2)[torch.arange(len(images))]


class WithLoop(Linear):
    """Loops over images."""

    def scores(self, images):
        return torch.stack([image.mean((1, 2)) for image in images])


class WithBranch(Linear):
    """Branches on a number that it computed."""

    def scores(self, images):
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


class WithNumpy(Linear):
    """Leaves torch."""

    def scores(self, images):
        return torch.from_numpy(images.mean((2, 3)).numpy())


class WithUnknownOperator(Linear):
    """Uses what ONNX has no counterpart for."""

    def scores(self, images):
        return torch.special.i1e(images.mean((2, 3)))


class WithMemory(Linear):
    """Keeps a number of the images that it saw when it was traced."""

    def scores(self, images):
        if torch.compiler.is_compiling():
            return images.mean((2, 3)) + 0.5
        return images.mean((2, 3))


class Plain(ek.InterpretableExplainer):
    """An explainer of any network above."""

    card = ek.Card(
        title="Plain", citation="a fixture", additivity="exact", unit_kind="colors",
        learns_from="training images",
    )  # fmt: skip

    def build(self, task):
        return Linear(len(task.classes))

    def phases(self):
        return []

    def describe_units(self, network):
        return ek.Units(kind="color", names=("red", "green", "blue"), pooling="none")


def plain(network, size=8, **settings):
    """An explainer bound to one of the networks above."""
    torch.manual_seed(0)
    return Plain.from_network(network().eval(), size=size, **settings)
