"""Whether a graph says what its model says, at batch sizes that it was not traced at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from explainkit.errors import InputError
from explainkit.explainers.inputs import InputSpec
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.factored_maps import dense_maps
from explainkit.explanations.serialization import in_brief
from explainkit.export.explained_network import OF_UNITS

TOLERANCE = 1e-4
"""Largest difference of an output, as a share of what it is small against: the evidence, or its peak."""

COARSE_CELLS = 5
"""Of the grid that test images are smooth on."""


def noise_inputs(spec: InputSpec, shape: Sequence[int], count: int, dtype: torch.dtype) -> Tensor:
    """Smooth noise in the range that a network takes: images (N, D, H, W), or rows (N, F)."""
    generator = torch.Generator().manual_seed(count)
    if len(shape) == 1:
        return torch.randn(count, *shape, generator=generator, dtype=dtype)
    coarse = torch.rand(count, shape[0], COARSE_CELLS, COARSE_CELLS, generator=generator, dtype=dtype)
    smooth = F.interpolate(coarse, tuple(shape[1:]), mode="bilinear")
    fine = torch.rand(count, *shape, generator=generator, dtype=dtype)
    return spec.from_unit(0.8 * smooth + 0.2 * fine)


def open_session(content: bytes | Path) -> Any:
    """An ONNX Runtime session on the CPU that only reports errors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    source = content if isinstance(content, bytes) else str(content)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_graph(session: Any, images: Tensor, targets: Tensor | None = None) -> dict[str, NDArray[np.generic]]:
    """The outputs of an ONNX Runtime `session` by name."""
    feed = {"images": images.numpy()} | ({} if targets is None else {"targets": targets.numpy()})
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def check_agreement(
    explainer: Explainer, session: Any, images: Tensor, *, takes_targets: bool
) -> dict[str, float]:
    """The largest difference between graph and model for `images`, by output.

    As shares of what each is small against. A graph that takes targets is asked about each class in turn.

    Raises
    ------
    InputError
        Above `TOLERANCE`, for an output that is not there for each image, and for sums that do not hold.
    """
    count = images.shape[0]
    targets = torch.arange(count) % len(explainer.classes) if takes_targets else None
    try:
        given = run_graph(session, images, targets)
    except Exception as error:  # whatever the runtime says of a graph that it cannot run
        raise InputError(
            f"Expected a graph that runs on any number of images; with {count} ONNX Runtime says: "
            f"{in_brief(str(error).partition(chr(10))[0])}"
        ) from error
    lengths = {name: values.shape[:1] for name, values in given.items()}
    if any(length != (count,) for length in lengths.values()):
        raise InputError(f"Expected outputs for each of {count} images; got as many as {lengths}.")
    if "targets" in given:
        targets = torch.from_numpy(given["targets"])
    explanations = explainer.explain(images, targets if targets is not None else 0)
    differences = _differences(explanations, given)
    if "targets" in given:
        largest = explanations.logits.amax(1) - explanations.explained_output
        differences["targets"] = float((largest / _evidence(explanations)).max())
    if explainer.card.additivity == "exact" and {"logits", "base", "contributions"} <= given.keys():
        residual = residual_of(given, explanations.targets)
        differences["residual"] = float((residual.abs() / _evidence(explanations)).max())
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise InputError(
                f"Expected a graph that says what the model says, to {TOLERANCE:g} of its size; of {count} "
                f"images {name} differs by {difference:.3g}. See docs/export.md on what cannot be exported."
            )
    return differences


def residual_of(given: Mapping[str, NDArray[np.generic]], targets: Tensor) -> Tensor:
    """What the sums of a graph leave unexplained, (N,): from its outputs alone."""
    columns = {name: torch.from_numpy(np.asarray(values)) for name, values in given.items()}
    explained = columns["logits"].gather(1, targets[:, None])[:, 0]
    total = columns["base"] + columns["contributions"].sum(1)
    return explained - total - columns.get("remainder", torch.zeros_like(total))


def _differences(explanations: Explanations, given: Mapping[str, NDArray[np.generic]]) -> dict[str, float]:
    columns = {name: torch.from_numpy(np.asarray(values)) for name, values in given.items()}
    evidence, units = _evidence(explanations), columns.pop("units", None)
    differences = {}
    for name, values in columns.items():
        if name == "targets":
            continue
        expected = _expected(name, explanations, units)
        if values.shape != expected.shape:
            raise InputError(
                f"Expected {name} of {tuple(expected.shape)}; the graph gives {tuple(values.shape)}."
            )
        apart = (values - expected).abs().reshape(len(values), -1).amax(1)
        scale = evidence
        if name in ("scores", "weights", "maps", "boxes"):
            scale = expected.abs().amax().clamp(min=1e-12)
        differences[name] = float((apart / scale).max())
    if units is not None:
        weakest = explanations.contributions.abs().gather(1, units).amin(1)
        strongest = explanations.contributions.abs().topk(units.shape[1], dim=1).values.amin(1)
        differences["units"] = float(((strongest - weakest) / evidence).max())
    return differences


def _expected(name: str, explanations: Explanations, units: Tensor | None) -> Tensor:
    """What an output should be, for the units that the graph names where it names some."""
    if name == "saliency":
        return explanations.saliency()
    if name == "maps":
        assert explanations.maps is not None
        maps = dense_maps(explanations.maps)
        return maps if units is None else maps[torch.arange(len(maps))[:, None], units]
    if name == "remainder":
        assert units is not None
        return explanations.contributions.sum(1) - explanations.contributions.gather(1, units).sum(1)
    values: Tensor = getattr(explanations, name)
    return values.gather(1, units) if units is not None and name in OF_UNITS else values


def _evidence(explanations: Explanations) -> Tensor:
    """What logits and contributions are small against, (N,): as `check_additivity` has it."""
    contributions, logits = explanations.contributions.abs().sum(1), explanations.logits.abs().amax(1)
    return torch.maximum(contributions, logits).clamp(min=1e-12)
