"""A plugin that learns from concept examples and answers for classes alone, and one with its own edits.

Installed by its test as a third party would.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import define
from torch import Tensor, nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.networks.precision import disable_autocast


@define(eq=False, kw_only=True)
class ConceptDirections(ek.PostHocExplainer):
    """How a logit changes along the direction of each concept, after TCAV (Kim et al., ICML 2018)."""

    card: ClassVar[ek.Card] = ek.Card(
        title="Concept directions",
        citation="a fixture, after Kim et al.; ICML 2018; arXiv:1711.11279",
        additivity="none",
        unit_kind="concepts",
        answers={"class"},
        learns_from="concept examples",
    )

    ridge: float = 1e-2

    def learn(self, examples: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ek.Units]:
        """A direction a concept: the normal of a ridge regression of it against all others."""
        features = {name: self._features(images)[0].detach() for name, images in examples.items()}
        every = torch.cat(list(features.values()))
        mean = every.mean(0)
        centered = every - mean
        count = centered.shape[1]
        gram = centered.T @ centered + self.ridge * len(every) * torch.eye(count)
        start, directions = 0, []
        for of_concept in features.values():
            truth = -torch.ones(len(every))
            truth[start : start + len(of_concept)] = 1
            start += len(of_concept)
            directions.append(F.normalize(torch.linalg.solve(gram, centered.T @ truth), dim=0))
        names = tuple(examples)
        units = ek.Units(
            kind="concept", names=names, phrases=names, pooling="none",
            phrasing=ek.Phrasing(absent_scores=None),
        )  # fmt: skip
        return {"directions": torch.stack(directions)}, units

    def explain_batch(self, images: Tensor, targets: Any, foils: Any) -> ek.Explanations:
        with torch.enable_grad():
            features, logits = self._features(images)
            if targets is None:
                targets = logits.argmax(1)
            (slope,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), features)
        scores = slope @ self.learned["directions"].to(slope).T
        return ek.Explanations(
            logits=logits.detach(), targets=targets, base=torch.zeros(len(images)).to(scores), scores=scores,
            weights=torch.ones_like(scores), units=self.units, classes=self.classes, images=images,
            additivity="none", provenance=self.provenance(),
        )  # fmt: skip

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the last linear layer, and the logits that come of it."""
        last = [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]
        inputs: list[Tensor] = []

        def keep(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            inputs.append(given[0].detach().requires_grad_())
            return (inputs[0],)

        handle = last.register_forward_pre_hook(keep)
        try:
            with torch.enable_grad():
                logits = self.network(images)
        finally:
            handle.remove()
        return inputs[0], logits


class MeanColorsNetwork(nn.Module):
    """A logit is a sum over the mean colors of the quarters of an image."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.head = nn.Linear(4 * channels, classes)

    def decompose(self, images: Tensor) -> ek.Decomposition:
        maps = F.adaptive_avg_pool2d(images, 2).flatten(1)  # (N, 4 D)
        placed = maps[:, :, None, None] * torch.eye(4).repeat(maps.shape[1] // 4, 1).view(-1, 2, 2).to(maps)
        with disable_autocast(images.device):
            logits = self.head(maps)
        return ek.Decomposition(
            logits=logits, bias=self.head.bias, scores=maps, weights=self.head.weight, maps=placed
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.decompose(images).logits


def cross_entropy(network: MeanColorsNetwork, batch: ek.Batch, step: ek.Step) -> dict[str, Tensor]:
    return {"cross_entropy": F.cross_entropy(network(batch.images), batch.labels)}


@define(eq=False, kw_only=True)
class MeanColors(ek.InterpretableExplainer[MeanColorsNetwork]):
    card: ClassVar[ek.Card] = ek.Card(
        title="Mean colors", citation="a fixture", additivity="exact", unit_kind="colors",
        learns_from="training images",
    )  # fmt: skip
    network_type: ClassVar[type[MeanColorsNetwork]] = MeanColorsNetwork

    def build(self, task: ek.Task) -> MeanColorsNetwork:
        return MeanColorsNetwork(len(task.classes), task.channels)

    def phases(self) -> list[ek.Phase[MeanColorsNetwork]]:
        return [ek.Phase("all", 60, cross_entropy, {"": 0.3})]

    def describe_units(self, network: MeanColorsNetwork) -> ek.Units:
        names = [f"color {index}" for index in range(network.head.in_features)]
        return ek.Units(kind="color", names=names, pooling="sum")


@define(eq=False, kw_only=True)
class Fade(ek.CounterfactualMethod):
    """Images faded into the mean image of the target, in steps, until the network says it."""

    needs_distractors: ClassVar[bool] = True

    steps: int = 10

    @classmethod
    def supports(cls, explainer: ek.Explainer) -> bool:
        return isinstance(explainer, MeanColors)

    def search(self, question: ek.CounterfactualQuestion) -> ek.ImageEdits:
        goals, images = question.goals, question.images
        source = question.distractors
        split = source.train.batch(torch.arange(len(source.train))) if hasattr(source, "train") else source
        target_images = torch.stack(
            [split.images[split.labels == target].mean(0) for target in goals.targets.tolist()]
        ).to(images)
        edited, share = images.clone(), torch.zeros(len(images))
        is_open = ~goals.are_reached(question.explanations.logits)
        for step in range(1, self.steps + 1):
            faded = images + step / self.steps * (target_images - images)
            has_won = is_open & goals.are_reached(question.explainer.predict(faded))
            edited[has_won], share[has_won] = faded[has_won], step / self.steps
            is_open = is_open & ~has_won
        return ek.ImageEdits(
            images=edited, descriptions=tuple(f"Faded by {value:.0%}" for value in share.tolist())
        )


@define(eq=False, kw_only=True)
class Borrow(ek.CounterfactualMethod):
    """All scores set to the mean ones of images of the target: an edit of the scores."""

    @classmethod
    def supports(cls, explainer: ek.Explainer) -> bool:
        return isinstance(explainer, MeanColors)

    def search(self, question: ek.CounterfactualQuestion) -> Any:
        low, high = question.explanations.units.score_range[:, question.goals.kind]
        return question.score_edits((low + high) / 2)
