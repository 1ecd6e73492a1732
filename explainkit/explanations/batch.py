"""Explanations of images as values: columnar, validated, immutable; all answers follow from the algebra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.additivity import check_sums
from explainkit.explanations.concatenation import PER_IMAGE, checked_parts, concatenate
from explainkit.explanations.counts import check_count
from explainkit.explanations.decisions import Decision, as_decision
from explainkit.explanations.decomposition import Additivity, Decomposition
from explainkit.explanations.display import markup
from explainkit.explanations.factored_maps import UnitMaps
from explainkit.explanations.files import load_explanations, save_explanations
from explainkit.explanations.images import absent_images, are_absent, move_images, select_images
from explainkit.explanations.interventions import UnitScore, intervene
from explainkit.explanations.json_explanations import ExplanationsJson
from explainkit.explanations.json_pictures import IMAGES_FORM
from explainkit.explanations.kept_maps import keep_strongest_maps, without_maps
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.records import RecordFacts, decision_records
from explainkit.explanations.single import Explanation
from explainkit.explanations.spatial import is_localized, resize, saliency_grid
from explainkit.explanations.strongest import Top, strongest
from explainkit.explanations.tables import ExplanationTables
from explainkit.explanations.units import Units
from explainkit.explanations.validation import as_names, check_explanations, foil_indices


@frozen(eq=False, kw_only=True)
class Explanations(ExplanationsJson, ExplanationTables):
    """Why each of N images got the logit that its target has: a sum over K units.

    ``logits[n, targets[n]] = base[n] + contributions[n].sum() + residual[n]``; with `foils`, the left side
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
        By reference; NaN where they are left out. Rows have no places: their explanations have no maps and
        no saliency.
    additivity : {"exact", "approximate", "none"}
        Whether contributions add up to the logit.
    provenance : Provenance
    maps : Tensor, FactoredMaps or None, (N, K, h, w) or (N, k, h, w)
        Never negative; of `map_units` alone where that is given. Factored where the network gives them so:
        ``dense_maps(maps)`` is the tensor.
    boxes : Tensor or None, (N, G, 4)
        Where the maps of each group lie, in pixels of the image; ``None`` for the whole image.
    foils : Tensor or None, (N,)
        The class that the target is contrasted with.
    decomposition : Decomposition or None
        All classes, for interpretable explainers.
    map_units : Tensor or None, (N, k)
        Which units have kept their maps, where not all have.
    remainder_map : Tensor or None, (N, h, w)
        The contributions of the units whose maps were not kept, distributed over the image.
    diagnostics : mapping of str to Tensor, (N,)
        Further numbers that the explainer gives of each image, by what they are: ``"instability"``. They
        are of the target and of the scores as they are: contrasts and interventions have none.
    decision : Decision or str
        How the network's outputs become an answer; for probabilities, what is called a logit here is one.
    image_index : Tensor or None, (N,), int64
        Which of the images each explanation is about, where an image may have several labels; ``None``: one
        explanation an image, in order.
    ids : tuple of int or str, or None
        What the image of each explanation is called: its number in a split, or its file.

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
    classes: tuple[str, ...] = field(converter=as_names)
    images: Tensor = field(repr=False, metadata=IMAGES_FORM)
    additivity: Additivity
    provenance: Provenance = field(repr=False)
    maps: UnitMaps | None = field(default=None, repr=False)
    boxes: Tensor | None = field(default=None, repr=False)
    foils: Tensor | None = None
    decomposition: Decomposition | None = field(default=None, repr=False)
    map_units: Tensor | None = field(default=None, repr=False)
    remainder_map: Tensor | None = field(default=None, repr=False)
    diagnostics: Mapping[str, Tensor] = field(factory=dict, repr=False)
    decision: Decision = field(factory=Decision, converter=as_decision)
    image_index: Tensor | None = field(default=None, repr=False)
    ids: tuple[int | str, ...] | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        check_explanations(self)

    def __repr__(self) -> str:
        images, units = self.scores.shape
        explainer, kind = self.provenance.explainer, self.units.kind
        return f"<{images} explanations by {explainer}: {units} {kind} units, {self.additivity}>"

    @cached_property
    def contributions(self) -> Tensor:
        """(N, K): weight * (score - reference), in units of logit."""
        reference = self.units.reference
        scores = self.scores if reference is None else self.scores - reference.to(self.scores.dtype)
        return self.weights * scores

    @cached_property
    def shares(self) -> Tensor:
        """Contributions as shares of all evidence, for and against: ``contribution / sum |contribution|``."""
        return self.contributions / self.contributions.abs().sum(1, keepdim=True).clamp(min=1e-12)

    @cached_property
    def parent_contributions(self) -> Tensor | None:
        """What the units of each parent add together, (N, P); ``None`` where units have no parents."""
        parent, parents = self.units.parent, self.units.parents
        if parent is None or parents is None:
            return None
        sums = self.contributions.new_zeros(len(self), len(parents))
        return sums.index_add(1, parent, self.contributions)

    @property
    def explained_output(self) -> Tensor:
        """What is explained, (N,): the target's logit, or its margin over `foils`."""
        logits = self.logits.gather(1, self.targets[:, None])[:, 0]
        if self.foils is None:
            return logits
        return logits - self.logits.gather(1, self.foils[:, None])[:, 0]

    @cached_property
    def residual(self) -> Tensor | None:
        """What the sum leaves unexplained, (N,); ``None`` where no sum is claimed."""
        if self.additivity == "none":
            return None
        return self.explained_output - self.base - self.contributions.sum(1)

    @cached_property
    def nonspatial(self) -> Tensor:
        """The contributions of units without a place, (N,): what `saliency` cannot show."""
        total = self.contributions.sum(1)
        if self.maps is None:
            return total
        if self.map_units is None:
            return (self.contributions * ~is_localized(self.maps)).sum(1)
        remainder = 0 if self.remainder_map is None else self.remainder_map.sum((1, 2))
        return total - remainder - (self._mapped_contributions() * is_localized(self.maps)).sum(1)

    @property
    def is_tabular(self) -> bool:
        """Whether what is explained are rows of a table."""
        return self.images.ndim == 2

    @property
    def has_images(self) -> bool:
        """Whether the images are there: where they are left out, `images` are NaN of their shape."""
        return not are_absent(self.images)

    @property
    def unit(self) -> str:
        """What the contributions are measured in, such as ``"logit"``, ``"probability"``, ``"gradient"``."""
        return "gradient" if self.additivity == "none" else self.decision.unit

    @cached_property
    def holds(self) -> Tensor:
        """Which classes or labels the network says of each image, (N, C), bool."""
        return self.decision.holds(self.logits)

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
        columns: dict[str, Any] = {
            name: value[rows] for name in PER_IMAGE if (value := getattr(self, name)) is not None
        }
        columns["images"] = select_images(self.images, rows)
        columns["diagnostics"] = {name: value[rows] for name, value in self.diagnostics.items()}
        if self.ids is not None:
            columns["ids"] = tuple(self.ids[row] for row in rows.tolist())
        decomposition = self.decomposition
        if decomposition is not None:  # the maps are shared, not copied twice
            without_maps = evolve(decomposition, maps=None).select(rows)
            decomposition = evolve(without_maps, maps=columns.get("maps"))
        return evolve(self, **columns, decomposition=decomposition)

    def _repr_html_(self) -> str:
        return markup(self)

    def check_additivity(self) -> Explanations:
        """These explanations, once their sums are found to hold.

        ``|residual| <= 1e-4 * max(max |logit|, sum |contribution|)`` for every image.

        Raises
        ------
        AdditivityError
            Naming the image where the sum fails, and both sides of it.
        InputError
            Where no sum is claimed, so that there is nothing to check.
        """
        check_sums(self)
        return self

    def records(self, top: int = 10) -> Iterator[RecordFacts]:
        """Each decision as JSON values for the record: digests of image and model, reasons, and the check.

        Write each as a line of JSON, and ``explainkit verify`` checks them: that nothing was changed, that
        the parts make the logit, and with the model and the images, that it decides so.

        Parameters
        ----------
        top : int
            Units of each, the strongest; `remainder` is the sum of all others.
        """
        return decision_records(self, check_count("top", top, 0))

    def saliency(self, size: Sequence[int] | None = None) -> Tensor:
        """The contributions where they came from, summed over units: (N, H, W), in units of logit.

        Sums to ``explained_output - base - residual - nonspatial``. Distributed on the network's own grid and
        resized once, keeping the sum; `size` is that of the images unless given.

        Raises
        ------
        InputError
            For rows of a table, which have no places.
        """
        if self.is_tabular:
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
        saliency = saliency_grid(
            contributions, self.maps, self.units.pooling, size, image_size=image_size, boxes=self.boxes,
            group=group, map_units=self.map_units,
        )  # fmt: skip
        return saliency if self.remainder_map is None else saliency + resize(self.remainder_map, size)

    def top(self, k: int) -> Top:
        """The `k` largest contributions of each image, for or against, and the sum of all others."""
        return strongest(self.contributions, k)

    def contrast(self, foils: Tensor | Sequence[int | str] | int | str) -> Explanations:
        """Why the target rather than `foils` (one an image, or one for all): sums to the margin.

        Raises
        ------
        InputError
            For post-hoc methods, which know one class alone: pass ``foils=`` to `explain` instead.
        """
        if self.decomposition is None:
            raise InputError(
                f"Expected explanations of all classes; these by {self.provenance.explainer} know one. "
                "Call explain(images, targets, foils=…) for a contrast."
            )
        foils = foil_indices(foils, self.classes, len(self)).to(self.targets.device)
        decomposition = self.decomposition
        weights = decomposition.weights_for(self.targets) - decomposition.weights_for(foils)
        base = decomposition.bias_for(self.targets) - decomposition.bias_for(foils)
        if self.units.reference is not None:
            base = base + (weights * self.units.reference).sum(1)
        # the remainder map was distributed with other weights, and diagnostics are of the target alone
        return evolve(self, weights=weights, base=base, foils=foils, remainder_map=None, diagnostics={})

    def intervene(self, scores: Mapping[int | str, UnitScore]) -> Explanations:
        """The same images with scores set by hand: what the network says then, and why.

        Logits follow from the sum, or from the network's head where scores are coupled, without another
        forward pass. What is explained stays the same class.

        Parameters
        ----------
        scores : mapping of int or str to float, Tensor (N,) or "off"
            By the unit's number, name or phrase. ``"off"`` sets it to its reference, so that it adds nothing.

        Raises
        ------
        InputError
            For post-hoc methods, which have no scores that a decision is made by; for a number out of range.
        UnknownNameError
            For a unit that there is not.
        """
        return intervene(self, scores)

    def keep_maps(self, count: int) -> Explanations:
        """The same with the maps of each image's `count` strongest units alone.

        The others are kept as one distributed sum, so that `saliency` is the same. With 0 it is all that is
        left of where evidence is.

        Raises
        ------
        InputError
            For what is no whole number of 0 or more.
        """
        return keep_strongest_maps(self, count)

    def without_maps(self) -> Explanations:
        """The same without places: all numbers and words, and no saliency."""
        return without_maps(self)

    def without_images(self) -> Explanations:
        """The same without images, which are NaN then: all numbers, words and places, drawn on gray."""
        return evolve(self, images=absent_images(self.images.shape, self.images))

    def to(self, device: torch.device | str) -> Explanations:
        """The same with tensors on `device`; the decomposition of all classes stays behind."""
        columns: dict[str, Any] = {
            name: value.to(device) for name in PER_IMAGE if (value := getattr(self, name)) is not None
        }
        columns["images"] = move_images(self.images, device)
        columns["diagnostics"] = {name: value.to(device) for name, value in self.diagnostics.items()}
        return evolve(self, **columns, units=self.units.to(device), decomposition=None)

    @staticmethod
    def concat(parts: Iterable[Explanations]) -> Explanations:
        """Explanations by one explainer, such as those of a stream, one after the other.

        Raises
        ------
        InputError
            Where there are none, and where they differ in explainer, classes, decision, contrast, which maps
            and further columns they have, or in what units are, but for pictures, and are worth to classes.
        """
        return concatenate(checked_parts(list(parts)))

    def save(
        self,
        path: str | Path,
        *,
        maps: int | None = 10,
        dtype: torch.dtype = torch.float16,
        images: bool = True,
    ) -> Path:
        """Write one safetensors file, whole or not at all, and return its path.

        Parameters
        ----------
        maps : int or None
            How many of the strongest units of each image keep their maps; the others are kept as one
            distributed sum. ``None``: all of them.
        dtype : torch.dtype
            Of the maps alone; every sum still holds. Factors of maps are saved as they are.
        images : bool
            Whether the images are in the file; without them it is as `without_images` says.

        Raises
        ------
        InputError
            For a number of maps, or a dtype, that there is not.
        """
        return save_explanations(
            self if images else self.without_images(), Path(path), maps=maps, dtype=dtype
        )

    @staticmethod
    def load(path: str | Path) -> Explanations:
        """What `save` wrote to `path`.

        Raises
        ------
        FormatError
            For a file that is damaged, foreign, or of another schema version.
        """
        return load_explanations(Path(path), Explanations)

    def _mapped_contributions(self) -> Tensor:
        """The contributions of the units that `maps` belongs to, (N, K) or (N, k)."""
        return self.contributions if self.map_units is None else self.contributions.gather(1, self.map_units)
