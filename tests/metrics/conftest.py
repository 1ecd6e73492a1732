"""A small aviary, a network of four layers that has learned nothing, and the ideal observer."""

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.data.datasets.aviary.dataset import Aviary, aviary
from explainkit.data.datasets.aviary.observer import IdealObserver
from explainkit.data.types import ImageDataset
from explainkit.explainers.card import Card
from explainkit.explainers.posthoc import PostHocExplainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.units import Units
from explainkit.metrics import EvalContext
from explainkit_cam.explainer import CAM


class Slopes(PostHocExplainer):
    """Pixels times their gradients, as a post-hoc method enters: two units, no sum claimed."""

    card = Card(title="Slopes", citation="made for tests", additivity="none", unit_kind="pixels")

    def explain_batch(self, images: Tensor, targets: Tensor | None, foils: Tensor | None) -> Explanations:
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
            classes=self.classes, images=images.detach(), additivity="none", provenance=self.provenance(),
        )  # fmt: skip


@frozen(eq=False)
class Small:
    """What the tests share."""

    dataset: Aviary
    cam: CAM
    slopes: Slopes
    observer: IdealObserver

    def context(self, images: int = 6, explainer: object = None, **settings: object) -> EvalContext:
        """The first mixed scenes, explained by CAM unless another explainer is given."""
        chosen = self.cam if explainer is None else explainer
        return EvalContext(
            explainer=chosen, dataset=self.dataset, split="mixed", ids=torch.arange(images), **settings
        )  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def small() -> Small:
    dataset = aviary(classes=5, size=32, train=10, validation=20, test=20)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip
    with torch.no_grad():
        network[-1].weight *= 10
    cam = CAM.from_network(network, classes=dataset.classes, size=(32, 32))
    return Small(
        dataset, cam, Slopes.from_network(cam.network, classes=dataset.classes), IdealObserver().fit(dataset)
    )


@pytest.fixture(scope="session")
def plain() -> ImageDataset:
    """Images without masks and scenes."""
    from explainkit.testing import tiny_dataset

    return tiny_dataset()
