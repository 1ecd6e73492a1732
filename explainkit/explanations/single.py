"""The explanation of one image, as a view of its batch, and the evidence that it consists of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from attrs import field, frozen
from torch import Tensor

from explainkit.explanations.decomposition import Additivity
from explainkit.explanations.display import figure, markup
from explainkit.explanations.sentences import image_sentence
from explainkit.explanations.spatial import paste
from explainkit.explanations.units import UnitPicture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from explainkit.explanations.batch import Explanations


class UnitFacts(TypedDict):
    """One unit in one image, as `Evidence` has it."""

    unit: int
    name: str
    phrase: str | None
    score: float
    weight: float
    contribution: float
    is_absent: bool


class ExplanationFacts(TypedDict):
    """One explanation with its strongest units; the contributions of all others sum to `others`."""

    id: int | str | None
    image_index: int
    target: str
    foil: str | None
    prediction: str
    probability: float | None
    additivity: Additivity
    explained_output: float
    base: float
    residual: float | None
    nonspatial: float
    diagnostics: dict[str, float | None]
    sentence: str
    evidence: list[UnitFacts]
    others: float


@frozen(kw_only=True)
class Evidence:
    """One unit in one image: how much of it is there, what that is worth, what it adds.

    ``contribution = weight * (score - reference)``; `map` is (h, w) over the image, or ``None`` where the
    unit has no place. `phrase_score` says how well a phrase that was looked for fits, `is_absent` whether the
    score says that what the unit stands for is not there, and `class_affinity` how much the unit belongs to
    the class that is explained, where its architecture gives units to classes.
    """

    unit: int
    kind: str
    name: str
    phrase: str | None
    score: float
    weight: float
    contribution: float
    map: Tensor | None = field(repr=False, eq=False)
    pictures: tuple[UnitPicture, ...] = field(default=(), repr=False, eq=False)
    phrase_score: float | None = None
    is_absent: bool = False
    class_affinity: float | None = None

    @property
    def text(self) -> str:
        """The unit's phrase, or its name where it has none."""
        return self.phrase or self.name

    def facts(self) -> UnitFacts:
        """As JSON values."""
        return {
            "unit": self.unit, "name": self.name, "phrase": self.phrase, "score": self.score,
            "weight": self.weight, "contribution": self.contribution, "is_absent": self.is_absent,
        }  # fmt: skip


@frozen(eq=False, kw_only=True)
class Explanation:
    """One image's explanation: a view of its batch."""

    batch: Explanations = field(repr=False)
    index: int

    @property
    def image(self) -> Tensor:
        """(3, H, W), in [0, 1]; or a row of a table, (F,)."""
        return self.batch.images[self.index]

    @property
    def diagnostics(self) -> dict[str, float]:
        """Further numbers that the explainer gives of the image."""
        return {name: value[self.index].item() for name, value in self.batch.diagnostics.items()}

    @property
    def logits(self) -> Tensor:
        """(C,)."""
        return self.batch.logits[self.index]

    @property
    def target(self) -> int:
        """The class that is explained."""
        return int(self.batch.targets[self.index])

    @property
    def target_name(self) -> str:
        """Its name."""
        return self.batch.classes[self.target]

    @property
    def foil_name(self) -> str | None:
        """The class that it is contrasted with, if any."""
        foils = self.batch.foils
        return None if foils is None else self.batch.classes[int(foils[self.index])]

    @property
    def prediction(self) -> int:
        """The class with the largest logit."""
        return int(self.logits.argmax())

    @property
    def says_target(self) -> bool:
        """Whether the network says the class that is explained."""
        return bool(self.batch.holds[self.index, self.target])

    @property
    def prediction_name(self) -> str:
        """What the network says the image is: a class, the labels that hold, or that none does."""
        return self.batch.decision.describe(self.batch.holds[self.index], self.batch.classes)

    @property
    def probability(self) -> float | None:
        """Of the class that is explained; ``None`` where outputs are no logits and no probabilities."""
        decision = self.batch.decision
        if decision.rule == "identity" and decision.outputs == "logits":
            return None
        return decision.probabilities(self.logits[None].double())[0, self.target].item()

    @property
    def explained_output(self) -> float:
        """The logit explained, or the margin."""
        return self.batch.explained_output[self.index].item()

    @property
    def base(self) -> float:
        """What the logit is before any evidence."""
        return self.batch.base[self.index].item()

    @property
    def contributions(self) -> Tensor:
        """(K,)."""
        return self.batch.contributions[self.index]

    @property
    def residual(self) -> float | None:
        """What the sum leaves unexplained; ``None`` where no sum is claimed."""
        residual = self.batch.residual
        return None if residual is None else residual[self.index].item()

    @property
    def parent_contributions(self) -> dict[str, float]:
        """What the units of each parent add together; empty where units have none."""
        sums = self.batch.parent_contributions
        if sums is None:
            return {}
        return dict(zip(self.batch.units.parents or (), sums[self.index].tolist(), strict=True))

    @property
    def evidence(self) -> list[Evidence]:
        """Every unit, the strongest first."""
        order = self.contributions.abs().argsort(descending=True, stable=True)
        return [self.evidence_of(unit) for unit in order.tolist()]

    def top(self, count: int) -> list[Evidence]:
        """The first `count` of `evidence`, without building the others."""
        count = min(count, len(self.contributions))
        return [self.evidence_of(unit) for unit in self.contributions.abs().topk(count).indices.tolist()]

    def evidence_of(self, unit: int) -> Evidence:
        """What unit number `unit` adds."""
        batch, units = self.batch, self.batch.units
        score = batch.scores[self.index, unit].item()
        affinity = units.class_affinity
        return Evidence(
            unit=unit,
            kind=units.kind,
            name=units.names[unit],
            phrase=units.phrases[unit] if units.phrases else None,
            phrase_score=units.phrase_scores[0, unit].item() if units.phrase_scores is not None else None,
            score=score,
            weight=batch.weights[self.index, unit].item(),
            contribution=self.contributions[unit].item(),
            map=self._map(unit),
            pictures=units.pictures[unit] if units.pictures else (),
            is_absent=units.is_absent(unit, score),
            class_affinity=None if affinity is None else affinity[unit, self.target].item(),
        )

    def saliency(self, size: Sequence[int] | None = None) -> Tensor:
        """`Explanations.saliency` of this image: (H, W)."""
        return self.batch[[self.index]].saliency(size)[0]

    def sentence(self, *, supporting: int | None = None, opposing: int | None = None) -> str:
        """The decision in words, with the strongest reasons for and against and what they count.

        Parameters
        ----------
        supporting, opposing : int or None
            How many reasons; as the units' `Phrasing` says unless given.
        """
        return image_sentence(self, supporting, opposing)

    def facts(self, top: int = 10) -> ExplanationFacts:
        """What the explanation says, by its `top` strongest units, as JSON values."""
        strongest, image_index, ids = self.top(top), self.batch.image_index, self.batch.ids
        return {
            "id": None if ids is None else ids[self.index],
            "image_index": self.index if image_index is None else int(image_index[self.index]),
            "target": self.target_name,
            "foil": self.foil_name,
            "prediction": self.prediction_name,
            "probability": self.probability,
            "additivity": self.batch.additivity,
            "explained_output": self.explained_output,
            "base": self.base,
            "residual": self.residual,
            "nonspatial": self.batch.nonspatial[self.index].item(),
            "diagnostics": {
                name: value if math.isfinite(value) else None for name, value in self.diagnostics.items()
            },
            "sentence": self.sentence(),
            "evidence": [item.facts() for item in strongest],
            "others": self.contributions.sum().item() - sum(item.contribution for item in strongest),
        }

    def to_json(self, *, top: int | None = None, images: bool = False, maps: bool = False) -> str:
        """`Explanations.to_json` of this one: `Explanations.from_json` reads it."""
        return self.batch[[self.index]].to_json(top=top, images=images, maps=maps)

    def figure(self, size: float = 3.0) -> Figure:
        """A matplotlib figure of it, drawn by its plugin's renderer; `size` in inches a panel."""
        return figure(self, size)

    def _repr_html_(self) -> str:
        return markup(self)

    def _map(self, unit: int) -> Tensor | None:
        """The unit's map over the whole image: on the network's grid, or by pixels where it has a box."""
        maps, map_units, boxes = self.batch.maps, self.batch.map_units, self.batch.boxes
        if maps is None or self.batch.units.pooling_of(unit) == "none":
            return None
        slot = unit
        if map_units is not None:
            slots = (map_units[self.index] == unit).nonzero()
            if not len(slots):
                return None
            slot = int(slots[0, 0])
        unit_map: Tensor = maps[self.index, slot]
        if boxes is None:
            return unit_map
        group = 0 if self.batch.units.group is None else int(self.batch.units.group[unit])
        size = self.image.shape[-2:]
        return paste(unit_map[None, None], boxes[self.index, group][None, None].to(unit_map), size, size)[0]
