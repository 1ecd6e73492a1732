"""What explainers say, as values: columnar, validated, immutable; all answers follow from the algebra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit import registry
from explainkit.data.images import class_index, words
from explainkit.decomposition import Decomposition, Pooling, join, place, placed, resize, spread_out
from explainkit.errors import AlgebraError, InputError
from explainkit.rules import check_finite, check_floats, check_indices, check_shape
from explainkit.wording import DESPITE, MANY, MOSTLY, TELLING, called, counted, listed, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Claim = Literal["exact", "approximate", "none"]
"""Whether contributions add up to the logit: by construction, up to a residual shown, or not at all."""


@frozen(eq=False, kw_only=True)
class Exemplar:
    """A place in a known image that a unit stands for.

    Attributes
    ----------
    id, split, label
        Which image of the training data it is, and its class.
    cell : (int, int)
        Row and column on the network's grid.
    box : (int, int, int, int)
        x0, y0, x1, y1 in pixels of the image, half-open.
    image : Tensor or None, (3, H, W), uint8
    """

    id: int
    split: str
    label: int
    cell: tuple[int, int]
    box: tuple[int, int, int, int]
    image: Tensor | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        _check_exemplar(self)


@frozen(eq=False, kw_only=True)
class Units:
    """The vocabulary of an explainer: what its K units are.

    Attributes
    ----------
    kind : str
        One word: ``"filter"``, ``"prototype"``, ``"concept"``, ``"pixels"`` …
    names : tuple of str, K
    pooling : {"mean", "sum", "max", "coupled", "none"}
        How a unit's map became its score.
    group : Tensor or None, (K,)
        Index into the G boxes of an explanation: which scale or part the unit belongs to.
    reference : Tensor or None, (K,)
        The score that counts as nothing to say; ``None`` for 0.
    range : Tensor or None, (2, C, K)
        5 % and 95 % quantiles of the score on training images of each class: what is plausible.
    phrases : tuple of (str or None) or None, K
        The unit in words, where words were found.
    phrase_scores : Tensor or None, (2, K)
        How well each phrase fits, on images that it was not chosen on, and the standard error of that; 0
        where there is no phrase. ``None`` where phrases are the units' own, and were not looked for.
    exemplars : tuple of tuple of Exemplar or None, K
    """

    kind: str
    names: tuple[str, ...] = field(converter=words, repr=lambda names: f"<{len(names)} names>")
    pooling: Pooling
    group: Tensor | None = field(default=None, repr=False)
    reference: Tensor | None = field(default=None, repr=False)
    range: Tensor | None = field(default=None, repr=False)
    phrases: tuple[str | None, ...] | None = field(default=None, repr=False)
    phrase_scores: Tensor | None = field(default=None, repr=False)
    exemplars: tuple[tuple[Exemplar, ...], ...] | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        _check_units(self)

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Units:
        """The same vocabulary with its tensors on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name in ("group", "reference", "range", "phrase_scores")
            if isinstance(value := getattr(self, name), Tensor)
        }
        return evolve(self, **moved)


@frozen(eq=False, kw_only=True)
class Provenance:
    """Who said it, with what, when.

    Attributes
    ----------
    explainer : str
        The name it is offered under, such as ``"captum/integrated-gradients"``.
    versions : mapping of str to str
        Of explainkit, of the plugin's distribution and of torch.
    settings : mapping
        The explainer's settings, as JSON values.
    digest : callable to str
        SHA-256 of the network's state, worked out when first asked for.
    """

    explainer: str
    created: str
    versions: Mapping[str, str] = field(factory=dict)
    settings: Mapping[str, Any] = field(factory=dict, repr=False)
    seed: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    digest: Callable[[], str] = field(default=str, repr=False)

    @property
    def model_digest(self) -> str:
        """SHA-256 of the explained network's state, or an empty string where there is none."""
        return self.digest()


@frozen(kw_only=True)
class Evidence:
    """One unit in one image: how much of it is there, what that is worth, what it adds.

    ``contribution = weight * (score - reference)``; `map` is (h, w) over the image, or ``None`` where the
    unit has no place. `phrase_score` tells how well a phrase that was looked for fits.
    """

    unit: int
    kind: str
    name: str
    phrase: str | None
    score: float
    weight: float
    contribution: float
    map: Tensor | None = field(repr=False, eq=False)
    exemplars: tuple[Exemplar, ...] = field(default=(), repr=False, eq=False)
    phrase_score: float | None = None

    @property
    def words(self) -> str:
        """The unit's phrase, or its name where it has none."""
        return self.phrase or self.name


@frozen(eq=False, kw_only=True)
class Top:
    """The k strongest units of each image, and what all others add, so that sums still hold.

    Attributes
    ----------
    unit : Tensor, (N, k), int64
    contribution : Tensor, (N, k)
    remainder : Tensor, (N,)
    """

    unit: Tensor
    contribution: Tensor
    remainder: Tensor


@frozen(eq=False, kw_only=True)
class Explanations:
    """Why each of N images got the logit that its target has: a sum over K units.

    ``logits[n, targets[n]] = base[n] + contributions[n].sum() + residual[n]``; with `against`, the left side
    is the margin over that class.

    Attributes
    ----------
    logits : Tensor, (N, C)
    targets : Tensor, (N,), int64
    base : Tensor, (N,)
        The bias, and the weighted reference scores; f(baseline) for post-hoc methods that are complete.
    scores, weights : Tensor, (N, K)
        For the targets.
    units : Units
    classes : tuple of str, C
    images : Tensor, (N, 3, H, W), or rows of a table (N, F)
        By reference. Rows have no places: their explanations have no maps and no saliency.
    claim : {"exact", "approximate", "none"}
    provenance : Provenance
    maps : Tensor or None, (N, K, h, w) or (N, k, h, w)
        Never negative; of `map_units` alone where that is given.
    boxes : Tensor or None, (N, G, 4)
        Where the maps of each group lie, in pixels of the image; ``None`` for the whole image.
    against : Tensor or None, (N,)
        The class that the target is contrasted with.
    decomposition : Decomposition or None
        All classes, for interpretable explainers.
    map_units : Tensor or None, (N, k)
        Which units have kept their maps, where not all have.
    rest : Tensor or None, (N, h, w)
        The contributions of the units whose maps were not kept, poured over the image.
    notes : mapping of str to Tensor (N,)
        Further numbers that the explainer tells of each image, by what they are: ``"instability"``.

    Raises
    ------
    InputError
        On construction, for numbers that are not finite, shapes that disagree, targets out of range,
        negative maps or boxes that leave the image.
    """

    logits: Tensor
    targets: Tensor
    base: Tensor
    scores: Tensor
    weights: Tensor
    units: Units
    classes: tuple[str, ...] = field(converter=words)
    images: Tensor = field(repr=False)
    claim: Claim
    provenance: Provenance = field(repr=False)
    maps: Tensor | None = field(default=None, repr=False)
    boxes: Tensor | None = field(default=None, repr=False)
    against: Tensor | None = None
    decomposition: Decomposition | None = field(default=None, repr=False)
    map_units: Tensor | None = field(default=None, repr=False)
    rest: Tensor | None = field(default=None, repr=False)
    notes: Mapping[str, Tensor] = field(factory=dict, repr=False)

    def __attrs_post_init__(self) -> None:
        _check(self)

    def __repr__(self) -> str:
        images, units = self.scores.shape
        who, kind = self.provenance.explainer, self.units.kind
        return f"<{images} explanations by {who}: {units} {kind} units, {self.claim}>"

    @cached_property
    def contributions(self) -> Tensor:
        """(N, K): weight * (score - reference), in units of logit."""
        reference = self.units.reference
        scores = self.scores if reference is None else self.scores - reference.to(self.scores.dtype)
        return self.weights * scores

    @property
    def totals(self) -> Tensor:
        """What is explained, (N,): the target's logit, or its margin over `against`."""
        logits = self.logits.gather(1, self.targets[:, None])[:, 0]
        if self.against is None:
            return logits
        return logits - self.logits.gather(1, self.against[:, None])[:, 0]

    @cached_property
    def residual(self) -> Tensor | None:
        """What the sum leaves unexplained, (N,); ``None`` where no sum is claimed."""
        if self.claim == "none":
            return None
        return self.totals - self.base - self.contributions.sum(1)

    @cached_property
    def unplaced(self) -> Tensor:
        """The contributions of units without a place, (N,): what `saliency` cannot show."""
        total = self.contributions.sum(1)
        if self.maps is None:
            return total
        if self.map_units is None:
            return (self.contributions * ~placed(self.maps)).sum(1)
        rest = 0 if self.rest is None else self.rest.sum((1, 2))
        return total - rest - (self._mapped_contributions() * placed(self.maps)).sum(1)

    @property
    def of_rows(self) -> bool:
        """Whether what is explained are rows of a table."""
        return self.images.ndim == 2

    @property
    def unit(self) -> Literal["logit", "gradient"]:
        """What the contributions are measured in."""
        return "gradient" if self.claim == "none" else "logit"

    def __len__(self) -> int:
        return len(self.logits)

    def __iter__(self) -> Iterator[Explanation]:
        return (Explanation(batch=self, index=index) for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Explanations: ...
    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Explanation | Explanations:
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"Expected an index of {len(self)} explanations; got {index}.")
            return Explanation(batch=self, index=index % len(self))
        rows = torch.arange(len(self), device=self.logits.device)[index]
        if rows.ndim == 0:  # an integer of numpy's or torch's
            return self[int(rows)]
        kept: dict[str, Any] = {
            name: value[rows] for name in _PER_IMAGE if isinstance(value := getattr(self, name), Tensor)
        }
        kept["notes"] = {name: value[rows] for name, value in self.notes.items()}
        parts = self.decomposition
        if parts is not None:  # the maps are shared, not copied twice
            parts = evolve(evolve(parts, maps=None).rows(rows), maps=kept.get("maps"))
        return evolve(self, **kept, decomposition=parts)

    def _repr_html_(self) -> str:
        from explainkit.rendering.html import several

        return several(self, len(self))

    def check(self) -> Explanations:
        """These explanations, once their sums are found to hold.

        ``|residual| <= 1e-4 * max(max |logit|, sum |contribution|)`` for every image.

        Raises
        ------
        AlgebraError
            Naming the image where the sum fails, and both sides of it.
        InputError
            Where no sum is claimed, so that there is nothing to check.
        """
        residual = self.residual
        if residual is None:
            raise InputError(f"{self.provenance.explainer} claims no sum: there is nothing to check.")
        scale = torch.maximum(self.logits.abs().amax(1), self.contributions.abs().sum(1))
        worst = (residual.abs() - 1e-4 * scale).argmax() if len(self) else None
        if worst is not None and not residual[worst].abs() <= 1e-4 * scale[worst]:  # NaN does not pass
            total, gap = self.totals[worst].item(), residual[worst].item()
            what = "logit" if self.against is None else "margin"
            raise AlgebraError(
                f"Image {int(worst)}: base and contributions come to {total - gap:.6g}, the "
                f"{what} is {total:.6g}; the residual {gap:.3g} is over "
                f"1e-4 of {scale[worst].item():.3g} (claim {self.claim!r}, {self.logits.dtype})."
            )
        return self

    def saliency(self, size: Sequence[int] | None = None) -> Tensor:
        """The contributions where they came from, summed over units: (N, H, W), in units of logit.

        Sums to ``totals - base - residual - unplaced``. Poured on the network's own grid and resized once,
        keeping the sum; `size` is that of the images unless given.

        Raises
        ------
        InputError
            For rows of a table, which have no places.
        """
        if self.of_rows:
            raise InputError("Rows of a table have no places: there is no saliency. See contributions.")
        image_size = self.images.shape[-2:]
        size = tuple(image_size if size is None else size)
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"Expected a size of (height, width), each at least 1; got {size}.")
        if self.maps is None:
            return self.logits.new_zeros(len(self), *size)
        contributions = self._mapped_contributions()
        group = self.units.group
        if group is not None and self.map_units is not None:
            group = group[self.map_units]
        total = spread_out(
            contributions, self.maps, self.units.pooling, size, image_size=image_size, boxes=self.boxes,
            group=group,
        )  # fmt: skip
        return total if self.rest is None else total + resize(self.rest, size)

    def top(self, k: int) -> Top:
        """The `k` largest contributions of each image, for or against, and the sum of all others."""
        k = min(max(k, 0), self.contributions.shape[1])
        unit = self.contributions.abs().topk(k, dim=1).indices
        chosen = self.contributions.gather(1, unit)
        return Top(unit=unit, contribution=chosen, remainder=self.contributions.sum(1) - chosen.sum(1))

    def contrast(self, targets: Tensor | Sequence[int | str] | int | str) -> Explanations:
        """Why the target rather than `targets` (one a image, or one for all): sums to the margin.

        Raises
        ------
        InputError
            For post-hoc methods, which know one class alone: pass ``against=`` to `explain` instead.
        """
        if self.decomposition is None:
            raise InputError(
                f"Expected explanations of all classes; these by {self.provenance.explainer} know one. "
                "Call explain(images, targets, against=…) for a contrast."
            )
        against = class_indices(targets, self.classes, len(self)).to(self.targets.device)
        parts = self.decomposition
        weights = parts.weights_for(self.targets) - parts.weights_for(against)
        base = parts.bias_for(self.targets) - parts.bias_for(against)
        if self.units.reference is not None:
            base = base + (weights * self.units.reference).sum(1)
        return evolve(
            self, weights=weights, base=base, against=against, rest=None
        )  # poured with other weights

    def to(self, device: torch.device | str) -> Explanations:
        """The same with tensors on `device`; the decomposition of all classes stays behind."""
        moved: dict[str, Any] = {
            name: value.to(device) for name in _PER_IMAGE if isinstance(value := getattr(self, name), Tensor)
        }
        notes = {name: value.to(device) for name, value in self.notes.items()}
        return evolve(self, **moved, notes=notes, units=self.units.to(device), decomposition=None)

    def save(self, path: str | Path, *, maps: int | None = 10, dtype: torch.dtype = torch.float16) -> Path:
        """Write one safetensors file, whole or not at all, and return its path.

        Parameters
        ----------
        maps : int or None
            How many of the strongest units of each image keep their maps; the others are kept as one
            poured sum. ``None``: all of them.
        dtype : torch.dtype
            Of the maps alone; every sum still holds.
        """
        from explainkit.storage import save_explanations

        return save_explanations(self, Path(path), maps=maps, dtype=dtype)

    @staticmethod
    def load(path: str | Path) -> Explanations:
        """What `save` wrote to `path`.

        Raises
        ------
        FormatError
            For a file that is damaged, foreign, or of another schema version.
        """
        from explainkit.storage import load_explanations

        return load_explanations(Path(path))

    def _mapped_contributions(self) -> Tensor:
        """The contributions of the units that `maps` belongs to, (N, K) or (N, k)."""
        return self.contributions if self.map_units is None else self.contributions.gather(1, self.map_units)


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
    def notes(self) -> dict[str, float]:
        """Further numbers that the explainer tells of the image."""
        return {name: value[self.index].item() for name, value in self.batch.notes.items()}

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
    def against_name(self) -> str | None:
        """The class that it is contrasted with, if any."""
        against = self.batch.against
        return None if against is None else self.batch.classes[int(against[self.index])]

    @property
    def prediction(self) -> int:
        """The class with the largest logit."""
        return int(self.logits.argmax())

    @property
    def total(self) -> float:
        """The logit explained, or the margin."""
        return self.batch.totals[self.index].item()

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
    def evidence(self) -> list[Evidence]:
        """Every unit, the strongest first."""
        order = self.contributions.abs().argsort(descending=True, stable=True)
        return [self.evidence_of(unit) for unit in order.tolist()]

    def strongest(self, count: int) -> list[Evidence]:
        """The first `count` of `evidence`, without building the others."""
        count = min(count, len(self.contributions))
        return [self.evidence_of(unit) for unit in self.contributions.abs().topk(count).indices.tolist()]

    def evidence_of(self, unit: int) -> Evidence:
        """What unit number `unit` adds."""
        batch, units = self.batch, self.batch.units
        return Evidence(
            unit=unit,
            kind=units.kind,
            name=units.names[unit],
            phrase=units.phrases[unit] if units.phrases else None,
            phrase_score=units.phrase_scores[0, unit].item() if units.phrase_scores is not None else None,
            score=batch.scores[self.index, unit].item(),
            weight=batch.weights[self.index, unit].item(),
            contribution=self.contributions[unit].item(),
            map=self._map(unit),
            exemplars=units.exemplars[unit] if units.exemplars else (),
        )

    def saliency(self, size: Sequence[int] | None = None) -> Tensor:
        """`Explanations.saliency` of this image: (H, W)."""
        return self.batch[[self.index]].saliency(size)[0]

    def sentence(self, *, supporting: int | None = None, opposing: int | None = None) -> str:
        """The decision in words, with the strongest reasons for and against and what they count.

        Parameters
        ----------
        supporting, opposing : int or None
            How many reasons; 3 and 1 unless given, or as the explainer's plugin puts it, where it has a way.
        """
        own = registry.sentence_for(self.batch.provenance.explainer)
        if own is not None and supporting is None and opposing is None:
            return str(own(self))
        reasons = self._largest(self.contributions, 3 if supporting is None else supporting)
        doubts = self._largest(-self.contributions, 1 if opposing is None else opposing)
        total = self.contributions.clamp(min=0).sum().item()
        if supporting is None:
            reasons = reasons[:1] + [item for item in reasons[1:] if item.contribution >= TELLING * total]
        if opposing is None:
            doubts = [item for item in doubts if -item.contribution >= DESPITE * total]
        rival = f" rather than {self.against_name}" if self.against_name else ""
        because = f", {self._because(reasons, total)}" if reasons else ", though nothing speaks for it"
        despite = f", despite {listed(_counts(doubts))}" if doubts else ""
        return f"{self.target_name}{rival}{because}{despite}."

    def figure(self, size: float = 3.0) -> Figure:
        """A matplotlib figure of it, drawn by its plugin's renderer; `size` in inches a panel."""
        from explainkit.rendering.figures import draw

        return draw(self, size)

    def _repr_html_(self) -> str:
        from explainkit.rendering.html import fragment

        return fragment(self)

    def _because(self, reasons: Sequence[Evidence], total: float) -> str:
        """The reasons told, how much the first is of the whole, and what is left untold."""
        told = sum(item.contribution for item in reasons)
        others = int((self.contributions > 0).sum()) - len(reasons)
        items = _counts(reasons)
        if others and told < MANY * total:
            kind = counted(others, f"other {self.batch.units.kind}")
            items.append(f"{kind} ({signed(total - told)}{' together' if others > 1 else ''})")
        first = sum(item.contribution for item in reasons if item.words == reasons[0].words)
        if len(items) > 1 and first > MOSTLY * total:
            return f"mostly because of {items[0]}, also {listed(items[1:])}"
        return f"because of {listed(items)}"

    def _largest(self, contributions: Tensor, count: int) -> list[Evidence]:
        """The units with the `count` largest `contributions`, of those above zero."""
        top = contributions.topk(min(count, len(contributions)))
        return [self.evidence_of(unit) for unit in top.indices[top.values > 0].tolist()]

    def _map(self, unit: int) -> Tensor | None:
        """The unit's map over the whole image: on the network's grid, or by pixels where it has a box."""
        maps, kept, boxes = self.batch.maps, self.batch.map_units, self.batch.boxes
        if maps is None or self.batch.units.pooling == "none":
            return None
        slot = unit
        if kept is not None:
            where = (kept[self.index] == unit).nonzero()
            if not len(where):
                return None
            slot = int(where[0, 0])
        found = maps[self.index, slot]
        if boxes is None:
            return found
        group = 0 if self.batch.units.group is None else int(self.batch.units.group[unit])
        size = self.image.shape[-2:]
        return place(found[None, None], boxes[self.index, group][None, None].to(found), size, size)[0]


def class_indices(
    targets: Tensor | Sequence[int | str] | int | str, classes: Sequence[str], count: int
) -> Tensor:
    """`targets`, one an image or one for all, by name or index, as (N,) int64.

    Raises
    ------
    InputError
        For a wrong number of targets, or an index out of range.
    UnknownNameError
        For a name that no class bears.
    """
    if isinstance(targets, Tensor):
        if targets.dtype.is_floating_point or targets.dtype == torch.bool:
            raise InputError(f"Expected targets as integers; got {targets.dtype}.")
        targets = targets.tolist()
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        listed = [targets] * count
    else:
        listed = list(targets)
    if len(listed) != count:
        raise InputError(f"Expected one target an image, ({count},); got {len(listed)}.")
    return torch.tensor([class_index(classes, _plain(target)) for target in listed], dtype=torch.long)


def concatenate(pieces: Sequence[Explanations]) -> Explanations:
    """Explanations by one explainer, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    joined: dict[str, Any] = {
        name: torch.cat([getattr(piece, name) for piece in pieces])
        for name in _PER_IMAGE
        if isinstance(getattr(pieces[0], name), Tensor)
    }
    parts = [piece.decomposition for piece in pieces if piece.decomposition is not None]
    decomposition = join(parts, joined.get("maps")) if len(parts) == len(pieces) else None
    notes = {name: torch.cat([piece.notes[name] for piece in pieces]) for name in pieces[0].notes}
    return evolve(pieces[0], **joined, notes=notes, decomposition=decomposition)


_PER_IMAGE = (
    "logits", "targets", "base", "scores", "weights", "images", "maps", "boxes", "against", "map_units",
    "rest",
)  # fmt: skip


def _plain(target: Any) -> int | str:
    if isinstance(target, str):
        return target
    try:
        return int(target.__index__())
    except (AttributeError, TypeError):
        raise InputError(f"Expected a target as a class name or index; got {target!r}.") from None


def _counts(items: Sequence[Evidence]) -> list[str]:
    """What each adds; those that go by the same phrase together, the first one's place is theirs."""
    told: dict[str, list[Evidence]] = {}
    for item in items:
        missing = item.phrase_score is not None and item.score < 0
        told.setdefault(called(item.name, item.phrase, missing=missing), []).append(item)
    return [
        f"{name} ({signed(sum(item.contribution for item in alike))}"
        f"{f' in {len(alike)} {alike[0].kind}s' if len(alike) > 1 else ''})"
        for name, alike in told.items()
    ]


def _check(told: Explanations) -> None:
    """Refuse what breaks a rule, naming field, rule and value."""
    if told.logits.ndim != 2:
        raise InputError(f"Expected logits of (N, C); got {tuple(told.logits.shape)}.")
    (images, classes), units = told.logits.shape, len(told.units)
    if told.claim not in get_args(Claim):
        raise InputError(f"Expected claim to be one of {get_args(Claim)}; got {told.claim!r}.")
    if len(told.classes) != classes or not classes:
        raise InputError(f"Expected {classes or 'some'} class names, one a logit; got {len(told.classes)}.")
    shapes: dict[str, tuple[int, ...]] = {
        "targets": (images,), "base": (images,), "scores": (images, units), "weights": (images, units),
    }  # fmt: skip
    if told.against is not None:
        shapes["against"] = (images,)
    for name, shape in shapes.items():
        check_shape(name, getattr(told, name), shape)
    for name in ("targets", "against"):
        check_indices(name, getattr(told, name), classes)
    if told.of_rows:
        if len(told.images) != images or any(x is not None for x in (told.maps, told.boxes, told.rest)):
            raise InputError(f"Expected {images} rows (N, F), without maps; got {tuple(told.images.shape)}.")
    elif told.images.ndim != 4 or told.images.shape[:2] != (images, 3) or 0 in told.images.shape[2:]:
        raise InputError(f"Expected {images} images of (N, 3, H, W); got {tuple(told.images.shape)}.")
    for name, value in told.notes.items():
        check_shape(f"the note {name!r}", value, (images,))
    columns = {name: getattr(told, name) for name in ("logits", "base", "scores", "weights", "rest")}
    check_floats(columns | {"maps": told.maps, "boxes": told.boxes, "images": told.images})
    check_finite(columns)
    _check_maps(told, images, units)


def _check_maps(told: Explanations, images: int, units: int) -> None:
    maps, boxes, some, rest = told.maps, told.boxes, told.map_units, told.rest
    precision = torch.promote_types(told.scores.dtype, told.weights.dtype)
    if maps is not None and maps.dtype != precision:
        raise InputError(f"Expected maps of {precision}, as scores and weights; got {maps.dtype}.")
    if some is not None and (some.ndim != 2 or len(some) != images):
        raise InputError(f"Expected map_units of ({images}, k); got {tuple(some.shape)}.")
    check_indices("map_units", some, units)
    if rest is not None and (rest.ndim != 3 or len(rest) != images or 0 in rest.shape[1:]):
        raise InputError(f"Expected rest of ({images}, h, w); got {tuple(rest.shape)}.")
    if maps is not None:
        if told.units.pooling == "none":
            raise InputError("Expected no maps of units with pooling 'none', which have no place; got some.")
        kept = units if told.map_units is None else told.map_units.shape[1]
        if maps.ndim != 4 or maps.shape[:2] != (images, kept) or 0 in maps.shape[2:]:
            raise InputError(f"Expected maps of ({images}, {kept}, h, w); got {tuple(maps.shape)}.")
        if maps.numel():
            low, high = maps.aminmax()  # one pass; NaN comes out as both
            if not high.isfinite():
                check_finite({"maps": maps})
            if low < 0:
                raise InputError(f"Expected maps that are never negative; got {low.item():.3g}.")
    if boxes is not None:
        if boxes.ndim != 3 or boxes.shape[0] != images or boxes.shape[2] != 4:
            raise InputError(f"Expected boxes of ({images}, G, 4); got {tuple(boxes.shape)}.")
        height, width = told.images.shape[-2:]
        limit = boxes.new_tensor([width, height, width, height])
        if not ((boxes >= 0) & (boxes <= limit)).all() or not (boxes[..., 2:] > boxes[..., :2]).all():
            raise InputError(f"Expected boxes x0 < x1, y0 < y1 inside images of {height} x {width} pixels.")
        check_indices("units.group", told.units.group, boxes.shape[1])


def _check_units(units: Units) -> None:
    count = len(units)
    if not all(isinstance(word, str) for word in (units.kind, *units.names)):
        raise InputError("Expected units.kind and units.names as words.")
    if units.pooling not in get_args(Pooling):
        raise InputError(f"Expected units.pooling to be one of {get_args(Pooling)}; got {units.pooling!r}.")
    for name in ("phrases", "exemplars"):
        value = getattr(units, name)
        if value is not None and len(value) != count:
            raise InputError(f"Expected units.{name} for {count} units; got {len(value)}.")
    if not all(isinstance(phrase, str | None) for phrase in units.phrases or ()):
        raise InputError("Expected units.phrases as words, or None where there are none.")
    columns = {"units.group": units.group, "units.reference": units.reference}
    for name, values in columns.items():
        if values is not None:
            check_shape(name, values, (count,))
    if units.range is not None and (units.range.ndim != 3 or units.range.shape[::2] != (2, count)):
        raise InputError(f"Expected units.range of (2, C, {count}); got {tuple(units.range.shape)}.")
    if units.phrase_scores is not None:
        check_shape("units.phrase_scores", units.phrase_scores, (2, count))
    for name in ("reference", "range", "phrase_scores"):
        check_floats({f"units.{name}": getattr(units, name)})
        check_finite({f"units.{name}": getattr(units, name)})


def _check_exemplar(exemplar: Exemplar) -> None:
    (x0, y0, x1, y1), image = exemplar.box, exemplar.image
    height, width = (y1 + 1, x1 + 1) if image is None else image.shape[-2:]
    numbers = (exemplar.id, exemplar.label, *exemplar.cell, *exemplar.box)
    if not all(isinstance(number, int) for number in numbers) or len(exemplar.cell) != 2:
        raise InputError(f"Expected the places of an exemplar as whole numbers; got {exemplar!r}.")
    if not isinstance(exemplar.split, str):
        raise InputError(f"Expected the split of an exemplar by name; got {exemplar.split!r}.")
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(f"Expected an exemplar's box inside its image; got {exemplar.box}.")
    if image is not None and (image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8):
        raise InputError(
            f"Expected an exemplar's image of (3, H, W) in bytes; got {image.dtype} {tuple(image.shape)}."
        )
