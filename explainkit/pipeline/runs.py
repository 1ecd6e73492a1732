"""One process's share of a run: decode, explain, write, file by file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, frozen
from torch import Tensor

from explainkit.errors import ExplainKitError, InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.records import decision_records
from explainkit.explanations.serialization import canonical
from explainkit.networks.precision import reference_tensor
from explainkit.pipeline.columns import Rows, in_order
from explainkit.pipeline.decoding import decoded
from explainkit.pipeline.manifest import Manifest
from explainkit.pipeline.parts import Part, is_done, remove_abandoned, windows, write_part
from explainkit.pipeline.progress import ImageProgress
from explainkit.pipeline.row_schema import arrow_schema
from explainkit.pipeline.run_settings import Settings
from explainkit.pipeline.sources import Source
from explainkit.pipeline.windows import Window

LONGEST_ERROR = 500
"""Letters of an error that a row keeps."""


@define(eq=False, kw_only=True)
class Run:
    """One process's share of the work."""

    explainer: Explainer
    source: Source
    folder: Path
    settings: Settings
    manifest: Manifest
    on_error: str
    errors: int = 0

    def write(self, parts: Sequence[Part], workers: int, resume: bool, progress: bool | None) -> None:
        """Write those of `parts` that are not there yet."""
        done = [part for part in parts if is_done(self.folder, part, self.manifest)]
        if done and not resume:
            raise InputError(
                f"Expected none of this shard's files in {str(self.folder)!r}; {len(done)} are there. Go on "
                "with resume=True, or take another folder."
            )
        remove_abandoned(self.folder)
        numbers = {part.number for part in done}
        left = [part for part in parts if part.number not in numbers]
        total = sum(part.stop - part.start for part in parts)
        finished = total - sum(part.stop - part.start for part in left)
        rows = self._rows()
        payloads = _Payloads(self.source, left, self.settings.batch_size)
        stream = decoded(self.source.decoder, payloads, workers)
        with ImageProgress(total, finished, progress) as bar:
            for part in left:
                batches: list[Any] = []
                records: list[str] | None = [] if self.settings.records else None
                for _ in windows(part, self.settings.batch_size):
                    window = next(stream)
                    batches.append(self._explain(window, rows, records))
                    bar.advance(len(window), self.errors)
                write_part(self.folder, part, batches, records, self.manifest)

    def _rows(self) -> Rows:
        explainer, settings = self.explainer, self.settings
        return Rows(
            schema=arrow_schema(is_double=reference_tensor(explainer.network).dtype == torch.float64),
            top=settings.top, saliency=settings.saliency, logits=settings.logits,
            sentences=settings.sentences, labels=explainer.decision.class_names(explainer.classes),
        )  # fmt: skip

    def _explain(self, window: Window, rows: Rows, records: list[str] | None) -> Any:
        """The rows of one window; its `records` are added to those of its file."""
        errors = dict(window.errors)
        if errors and self.on_error == "raise":
            place, error = next(iter(errors.items()))
            raise InputError(f"Image {window.start + place} cannot be read: {error}")
        batches = []
        if window.images is not None:
            inputs = self.explainer.input_spec.from_unit(_as_floats(window.images))
            explanations = self._explain_batch(inputs, window.start, errors)
            position = _positions(explanations)
            if errors:
                is_explained = torch.ones(len(window), dtype=torch.bool)
                is_explained[list(errors)] = False
                kept = is_explained[position].nonzero()[:, 0]
                explanations, position = explanations[kept], position[kept]
            batches.append(rows.explained(explanations, window, position))
            if records is not None:
                records += self._records(explanations, window, position.tolist())
        if errors:
            errors = {place: errors[place][:LONGEST_ERROR] for place in sorted(errors)}
            batches.append(rows.failed(window, errors))
            self.errors += len(errors)
        return in_order(batches)

    def _records(self, explanations: Explanations, window: Window, position: list[int]) -> Iterator[str]:
        """The decisions as lines of JSON."""
        paths, digests, top = window.paths, window.digests, self.settings.top
        numbers = [window.start + place for place in position]
        names = numbers if paths is None else [paths[place] for place in position]
        for record in decision_records(
            explanations,
            len(explanations.units) if top is None else top,
            files=None if digests is None else [digests[place] for place in position],
            ids=[number if name is None else name for name, number in zip(names, numbers, strict=True)],
            created=self.manifest.provenance.created,
        ):
            yield f"{canonical(record)}\n"

    def _explain_batch(self, images: Tensor, start: int, errors: dict[int, str]) -> Explanations:
        """The explanations of a batch; what stops them is replaced by another image, and in `errors`."""
        try:
            return self._ask(images)
        except ExplainKitError as error:
            if self.on_error == "raise" or len(images) == 1:
                raise
            faults = self._faults(images)
            good = [place for place in range(len(images)) if place not in faults]
            if not faults or not good:
                raise
            for place in faults:
                errors.setdefault(place, faults[place])
            index = torch.arange(len(images))
            index[list(faults)] = good[0]
            try:
                return self._ask(images[index])
            except ExplainKitError as again:
                raise InputError(f"Images from number {start} on cannot be explained: {again}") from error

    def _faults(self, images: Tensor) -> dict[int, str]:
        """Which images cannot be explained, each for itself, and why."""
        faults = {}
        for place, image in enumerate(images.split(1)):
            try:
                self._ask(image)
            except ExplainKitError as error:
                faults[place] = str(error)
        return faults

    def _ask(self, images: Tensor) -> Explanations:
        settings = self.settings
        return self.explainer.explain(
            images, settings.targets, foils=settings.foils, batch_size=settings.batch_size
        )


@frozen(eq=False)
class _Payloads:
    """What it takes to decode each batch of some parts, in order."""

    source: Source
    parts: Sequence[Part]
    batch_size: int

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            for start, stop in windows(part, self.batch_size):
                yield self.source.payload(start, stop)

    def __len__(self) -> int:
        return sum(-((part.start - part.stop) // self.batch_size) for part in self.parts)


def _as_floats(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float() / 255


def _positions(explanations: Explanations) -> Tensor:
    """Which image of the batch each explanation is of, (M,)."""
    index = explanations.image_index
    return torch.arange(len(explanations)) if index is None else index.cpu()
