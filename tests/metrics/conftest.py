"""A small aviary, a network of four layers that has learned nothing, and the observer that knows all."""

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.data.aviary.dataset import Aviary, aviary
from explainkit.data.images import ImageData
from explainkit.explanation import Explanations, Units
from explainkit.interfaces import Card, PostHocExplainer
from explainkit.metrics import Exam
from explainkit.metrics.observer import IdealObserver
from explainkit_cam.explainer import CAM


class Slopes(PostHocExplainer):
    """Pixels times their gradients, as a post-hoc method enters: two units, no sum claimed."""

    card = Card(title="Slopes", citation="made for tests", claim="none", speaks="pixels")

    def explain_batch(self, images: Tensor, targets: Tensor | None, against: Tensor | None) -> Explanations:
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            logits = self.network(images)
            targets = logits.argmax(1) if targets is None else targets
            (slopes,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), images)
        slopes = (slopes * images).detach().sum(1)
        maps = torch.stack([slopes.clamp(min=0), (-slopes).clamp(min=0)], 1)
        return Explanations(
            logits=logits.detach(), targets=targets, base=logits.new_zeros(len(logits)),
            scores=maps.sum((2, 3)), weights=logits.new_tensor([1.0, -1.0]).expand(len(logits), -1),
            units=Units(kind="pixels", names=("pixels for", "pixels against"), pooling="sum"), maps=maps,
            classes=self.classes, images=images.detach(), claim="none", provenance=self.provenance(),
        )  # fmt: skip


@frozen(eq=False)
class Small:
    """What the tests share."""

    data: Aviary
    cam: CAM
    slopes: Slopes
    observer: IdealObserver

    def exam(self, images: int = 6, explainer: object = None, **settings: object) -> Exam:
        """The first mixed scenes, asked of CAM unless told otherwise."""
        chosen = self.cam if explainer is None else explainer
        return Exam(explainer=chosen, data=self.data, split="mixed", ids=torch.arange(images), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def small() -> Small:
    data = aviary(classes=5, size=32, train=10, validation=20, test=20)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip
    with torch.no_grad():
        network[-1].weight *= 10
    cam = CAM.bind(network, classes=data.classes, size=(32, 32))
    return Small(data, cam, Slopes.bind(cam.network, classes=data.classes), IdealObserver().fit(data))


@pytest.fixture(scope="session")
def plain() -> ImageData:
    """Images without masks and scenes."""
    from explainkit.testing import tiny_data

    return tiny_data()
