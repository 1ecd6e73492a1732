"""A CAM that has learned nothing, and the comparison of what it explains: for tests of files and folders."""

from pathlib import Path

import torch

import explainkit as ek
from explainkit.explainers.inputs import InputSpec
from explainkit_cam.explainer import CAM

CLASSES = ("cardinal", "jay", "wren")


def drawn(*shape, seed=0):
    """Random numbers in [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_cam(seed=0, **settings):
    """An explainer as `fit` leaves it, without the cost."""
    torch.manual_seed(seed)
    explainer = CAM(backbone="tiny", **settings)
    explainer._seed = seed
    return explainer._adopt(
        explainer._build_network(ek.Task(classes=3)).eval(), CLASSES, InputSpec(size=(16, 16))
    )


def make_images(count=4):
    """Images whose values are whole bytes."""
    return drawn(count, 3, 16, 16).mul(255).round() / 255


def assert_same_explanations(explanations, others):
    """Equal columns; what is summed in another order is equal up to rounding."""
    for name in ("logits", "targets", "base", "scores", "weights", "contributions", "residual", "images"):
        assert torch.equal(getattr(explanations, name), getattr(others, name)), name
    torch.testing.assert_close(explanations.nonspatial, others.nonspatial, atol=sum_tolerance(others), rtol=0)


def sum_tolerance(explanations):
    """A bound on the rounding error of a sum over units and pixels: terms * epsilon * sum of sizes."""
    height, width = explanations.images.shape[-2:]
    terms = explanations.contributions.shape[1] + height * width
    epsilon = torch.finfo(explanations.contributions.dtype).eps
    return terms * epsilon * float(explanations.contributions.abs().sum(1).max())


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))
