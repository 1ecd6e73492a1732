"""The ideal observer: it knows every scene, and its logit is the number of parts that a species has too.

So its explanation is exactly additive, and the truth: a yardstick for every method, and an oracle for tests.
It recognizes images by their bytes; one that it has not seen drawn is an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from attrs import define, frozen
from numpy.typing import NDArray
from torch import Tensor, nn

from explainkit.data.datasets.aviary.dataset import Aviary, SceneBatch
from explainkit.data.datasets.aviary.grammar import PARTS, Codes, Grammar
from explainkit.data.datasets.aviary.language import species_names
from explainkit.data.datasets.aviary.rendering import part_masks, render
from explainkit.data.datasets.aviary.scenes import Booleans, Scenes
from explainkit.data.random_keys import random_keys
from explainkit.data.types import ImageDataset
from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.explainers.card import Card
from explainkit.explainers.inputs import spec_of_dataset
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.task import Task
from explainkit.explanations.decomposition import Decomposition, PerImageWeights
from explainkit.explanations.phrasing import Phrasing
from explainkit.explanations.units import Units
from explainkit.protocols import Images, Logger
from explainkit.training import Phase

_CHUNK = 256


@frozen(eq=False)
class _Drawn:
    """Drawn scenes: codes (N, P, 3) and presence (N, P) of the first bird, identities (N, S, S)."""

    codes: Codes
    present: Booleans
    identities: NDArray[np.uint8]


class Observer(nn.Module):
    """A classifier that looks scenes up."""

    codes: Tensor
    relevant: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(classes, len(PARTS), 3))
        self.register_buffer("relevant", torch.ones(3))
        self._size = 0
        self._unseen: list[Scenes] = []
        self._row_by_digest: dict[int, tuple[_Drawn, int]] = {}

    @classmethod
    def from_grammar(cls, grammar: Grammar, size: int) -> "Observer":
        """An observer of scenes in images of `size` pixels a side, none of which it has seen yet."""
        observer = cls(len(grammar))
        observer.codes.copy_(torch.from_numpy(grammar.codes))
        observer.relevant.copy_(torch.tensor(grammar.relevant))
        observer._size = size
        return observer

    @classmethod
    def from_dataset(cls, dataset: Aviary) -> "Observer":
        """An observer of the splits of `dataset`, which it goes through when it needs them."""
        observer = cls.from_grammar(dataset.grammar, dataset.size[0])
        for split in ("train", "mixed", "validation", "test"):  # the last one first
            scenes = dataset.scenes(split)
            observer._unseen += [scenes[start : start + _CHUNK] for start in range(0, len(scenes), _CHUNK)][
                ::-1
            ]
        return observer

    def remember(self, scenes: Scenes) -> None:
        """Add `scenes` to those that are recognized, such as those after an intervention."""
        rendering = render(scenes, self._size)
        drawn = _Drawn(scenes.codes[:, 0], scenes.present[:, 0], rendering.identities)
        digests = _digests(rendering.images)
        self._row_by_digest.update((digest, (drawn, row)) for row, digest in enumerate(digests))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.decompose(images).logits

    def decompose(self, images: Tensor) -> Decomposition:
        """A unit a part: its score is 1 where it is present, its weight 1 where a species has the same."""
        rows = [self._recognize(digest) for digest in _digests(_bytes(images))]
        present = np.stack([drawn.present[row] for drawn, row in rows])
        codes = np.stack([drawn.codes[row] for drawn, row in rows])
        identities = np.stack([drawn.identities[row] for drawn, row in rows])
        weights = torch.from_numpy(self._grammar().evidence(codes, present)).to(images)  # (N, P, C)
        masks = torch.from_numpy(part_masks(identities)).to(images)
        return Decomposition(
            logits=weights.sum(1),
            bias=torch.zeros(weights.shape[2]).to(images),
            scores=torch.from_numpy(present).to(images),
            weights=PerImageWeights(weights.mT),
            maps=masks / masks.sum((2, 3), keepdim=True).clamp(min=1),
        )

    def _recognize(self, digest: int) -> tuple[_Drawn, int]:
        while digest not in self._row_by_digest:
            if not self._unseen:
                raise InputError(
                    "Expected images of the data that the observer was fitted to, as drawn; got another. For "
                    "images after an intervention pass the batch that dataset.render(scenes) gives."
                )
            self.remember(self._unseen.pop())
        return self._row_by_digest[digest]

    def _grammar(self) -> Grammar:
        relevant = [bool(value) for value in self.relevant.tolist()]
        return Grammar(
            codes=self.codes.cpu().numpy().astype(np.int16), relevant=(relevant[0], relevant[1], relevant[2])
        )


@define(eq=False, kw_only=True)
class IdealObserver(InterpretableExplainer[Observer]):
    """The truth about a drawn bird, as an explainer."""

    card: ClassVar[Card] = Card(
        title="Ideal observer",
        citation="The nearest species of aviary, by the number of parts in common",
        additivity="exact",
        unit_kind="parts",
        learns_from="training images",
    )

    @classmethod
    def from_scenes(cls, grammar: Grammar, scenes: Scenes, size: int) -> Self:
        """An explainer that knows `scenes`, in images of `size` pixels a side."""
        network = Observer.from_grammar(grammar, size)
        network.remember(scenes)
        return cls.from_network(network, classes=species_names(grammar))

    def read_images(self, images: Images) -> Tensor:
        """`images` as a tensor; of a `SceneBatch`, the scenes are remembered."""
        if isinstance(images, SceneBatch):
            observer: Observer = self.network  # type: ignore[assignment]
            observer.remember(images.scenes)
        return super().read_images(images)

    def build(self, task: Task) -> Observer:
        """An observer that has seen nothing yet."""
        return Observer(len(task.classes))

    def phases(self) -> list[Phase[Any]]:
        """Nothing to learn."""
        return []

    def describe_units(self, network: Observer) -> Units:
        """A unit a part."""
        phrasing = Phrasing(absent_scores=None)  # a score is what a part says of the species
        return Units(kind="part", names=PARTS, pooling="sum", phrases=PARTS, phrasing=phrasing)

    def fit(
        self,
        dataset: ImageDataset,
        *,
        seed: int = 0,
        device: str = "auto",
        loggers: Sequence[Logger] = (),
        progress: bool | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Know the scenes of `dataset`; nothing is trained, so all other arguments are idle.

        Raises
        ------
        UnsupportedNetworkError
            For any other data than aviary.
        """
        if not isinstance(dataset, Aviary):
            raise UnsupportedNetworkError(
                f"Expected aviary, whose scenes are known; got {dataset.name}. "
                "Use explainkit.dataset('aviary')."
            )
        self._seed = seed
        return self._adopt(Observer.from_dataset(dataset), dataset.classes, spec_of_dataset(dataset))


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    return (images.detach().cpu() * 255).round().to(torch.uint8).numpy()


def _digests(images: NDArray[np.uint8]) -> list[int]:
    """A 64-bit sum for each image, weighted by place."""
    flat = images.reshape(len(images), -1)
    weights = random_keys(np.arange(flat.shape[1]))
    sums = [(flat[start : start + 32] * weights).sum(1, dtype=np.uint64) for start in range(0, len(flat), 32)]
    return [int(digest) for digest in np.concatenate(sums)]
