"""The ideal observer: it knows every scene, and its logit is the number of parts that a species has too.

So its explanation is exactly additive, and the truth: a yardstick for every method, and an oracle for tests.
It recognises images by their bytes; one that it has not seen drawn is an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from attrs import define, frozen
from numpy.typing import NDArray
from torch import Tensor, nn

from explainkit.data.aviary.dataset import Aviary
from explainkit.data.aviary.grammar import PARTS, Codes, Grammar
from explainkit.data.aviary.rendering import part_masks, render
from explainkit.data.aviary.scenes import Booleans, Scenes
from explainkit.data.images import ImageData
from explainkit.data.keyed import keyed
from explainkit.decomposition import Decomposition
from explainkit.errors import BindError, InputError
from explainkit.explanation import Units
from explainkit.interfaces import Card, InterpretableExplainer, Task
from explainkit.training import Phase
from explainkit.training.logs import Logger

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
        self._places: dict[int, tuple[_Drawn, int]] = {}

    @classmethod
    def of(cls, data: Aviary) -> "Observer":
        """An observer of the splits of `data`, which it goes through when it needs them."""
        observer = cls(len(data.classes))
        observer.codes.copy_(torch.from_numpy(data.codes))
        observer.relevant.copy_(torch.tensor(data.grammar.relevant))
        observer._size = data.size[0]
        for split in ("train", "mixed", "validation", "test"):  # the last one first
            scenes = data.scenes(split)
            observer._unseen += [scenes[start : start + _CHUNK] for start in range(0, len(scenes), _CHUNK)][
                ::-1
            ]
        return observer

    def remember(self, scenes: Scenes) -> None:
        """Know `scenes` too, such as those after an intervention."""
        drawn = render(scenes, self._size)
        known = _Drawn(scenes.codes[:, 0], scenes.present[:, 0], drawn.identities)
        self._places.update((digest, (known, row)) for row, digest in enumerate(_digests(drawn.images)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.decompose(images).logits

    def decompose(self, images: Tensor) -> Decomposition:
        """A unit a part: its score is 1 where it is present, its weight 1 where a species has the same."""
        found = [self._recognised(digest) for digest in _digests(_bytes(images))]
        present = np.stack([drawn.present[row] for drawn, row in found])
        evidence = self._grammar().evidence(np.stack([drawn.codes[row] for drawn, row in found]), present)
        worth = torch.from_numpy(evidence).to(images)  # (N, P, C)
        masks = torch.from_numpy(part_masks(np.stack([drawn.identities[row] for drawn, row in found]))).to(
            images
        )
        return Decomposition(
            logits=worth.sum(1),
            bias=torch.zeros(worth.shape[2]).to(images),
            scores=torch.from_numpy(present).to(images),
            weights=lambda rows, targets: worth[rows, :, targets],
            maps=masks / masks.sum((2, 3), keepdim=True).clamp(min=1),
        )

    def _recognised(self, digest: int) -> tuple[_Drawn, int]:
        while digest not in self._places:
            if not self._unseen:
                raise InputError(
                    "Expected images of the data that the observer was fitted to, as drawn; got another. For "
                    " images after an intervention call network.remember(scenes) first."
                )
            self.remember(self._unseen.pop())
        return self._places[digest]

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
        claim="exact",
        speaks="parts",
    )

    def build(self, task: Task) -> Observer:
        """An observer that has seen nothing yet."""
        return Observer(len(task.classes))

    def phases(self) -> list[Phase[Any]]:
        """Nothing to learn."""
        return []

    def describe(self, network: Observer) -> Units:
        """A unit a part."""
        return Units(kind="part", names=PARTS, pooling="sum", phrases=PARTS)

    def fit(
        self,
        data: ImageData,
        *,
        seed: int = 0,
        device: str = "auto",
        loggers: Sequence[Logger] = (),
        progress: bool | None = None,
        checkpoints: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Know the scenes of `data`; nothing is trained, so all other arguments are idle.

        Raises
        ------
        BindError
            For any other data than aviary.
        """
        if not isinstance(data, Aviary):
            raise BindError(
                f"Expected aviary, whose scenes are known; got {data.name}. Use explainkit.dataset('aviary')."
            )
        self._seed = seed
        return self._adopt(Observer.of(data), data.classes, data.size)


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    return (images.detach().cpu() * 255).round().to(torch.uint8).numpy()


def _digests(images: NDArray[np.uint8]) -> list[int]:
    """A 64-bit sum for each image, weighted by place."""
    flat = images.reshape(len(images), -1)
    weights = keyed(np.arange(flat.shape[1]))
    sums = [(flat[start : start + 32] * weights).sum(1, dtype=np.uint64) for start in range(0, len(flat), 32)]
    return [int(digest) for digest in np.concatenate(sums)]
