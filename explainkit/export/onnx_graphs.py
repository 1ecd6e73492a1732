"""Models as ONNX graphs: traced once, checked against the model at other batch sizes, then written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch
from attrs import frozen

from explainkit.data.reading import LARGEST_SIDE
from explainkit.errors import InputError, MissingPackageError
from explainkit.explainers.inputs import is_image_size
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.state import undisturbed
from explainkit.explanations.counts import check_count
from explainkit.explanations.serialization import write
from explainkit.export.agreement import check_agreement, noise_inputs, open_session
from explainkit.export.conversion import convert, quiet
from explainkit.export.explained_network import ExplainedNetwork, Output
from explainkit.export.graph_facts import GraphTargets, graph_facts
from explainkit.networks.precision import reference_tensor

DEFAULT_OUTPUTS: tuple[Output, ...] = ("logits", "base", "contributions", "maps", "saliency")

TRACED_BATCH = 5
"""How many images a graph is traced with."""

CHECKED_BATCHES = (1, 3)
"""How many images it is then checked with: others, so that a size that was kept shows."""

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@frozen(eq=False, kw_only=True)
class OnnxGraph:
    """A model as one ONNX graph, which was found to say what the model says.

    Attributes
    ----------
    content : bytes
        The file.
    facts : mapping of str to JSON values
        What stands in its metadata.
    differences : mapping of str to float
        By output, the largest difference from the model that was seen, as a share of what it is small
        against.
    """

    content: bytes
    facts: Mapping[str, Any]
    differences: Mapping[str, float]

    def __repr__(self) -> str:
        return f"<ONNX graph of {self.facts['explainer']}: {', '.join(self.facts['outputs'])}>"


def export_onnx(
    model: Explainer,
    path: str | Path,
    outputs: Sequence[Output] = DEFAULT_OUTPUTS,
    top: int | None = None,
    *,
    targets: GraphTargets = "predicted",
    size: int | Sequence[int] | None = None,
) -> Path:
    """Write an architecture as one ONNX graph that gives logits and their contributions; return its path.

    The file is written whole, once ONNX Runtime gives what the model gives, at two batch sizes that the graph
    was not traced at. The model is left as it was.

    Parameters
    ----------
    model : InterpretableExplainer
        On the CPU, in float32.
    outputs : sequence of str
        Of ``"logits"``, ``"base"``, ``"contributions"``, ``"scores"``, ``"weights"``, ``"maps"`` and
        ``"saliency"``; maps and saliency are left out where units have no places. What is needed to read them
        comes along: ``"targets"``, which class is explained, and ``"boxes"``, where maps lie in the image.
    top : int or None
        Give so many of the strongest units of each image alone, ``"units"``, and the ``"remainder"`` of the
        sum. ``None``: all units, in their order.
    targets : {"predicted", "input"}
        Explain the class with the largest output; or that of a further input ``targets`` (N,), int64.
    size : int, (int, int) or None
        Height and width of the images; those that the model learned from, or was bound with, unless given.

    Returns
    -------
    Path

    Raises
    ------
    MissingPackageError
        Without onnx, onnxscript and onnxruntime: ``pip install 'explainkit-sdk[onnx]'``.
    InputError
        For a method that is no architecture, settings out of range, and a path that cannot be written.
    UnsupportedNetworkError
        For a network that cannot be traced for any number of images, with what stands in the way.
    """
    graph = onnx_graph(model, outputs, top, targets=targets, size=size)
    write(Path(path), graph.content)
    return Path(path)


def onnx_graph(
    model: Explainer,
    outputs: Sequence[Output] = DEFAULT_OUTPUTS,
    top: int | None = None,
    *,
    targets: GraphTargets = "predicted",
    size: int | Sequence[int] | None = None,
) -> OnnxGraph:
    """The graph that `export_onnx` writes, with its parameters."""
    explainer = _exportable(model)
    _check_options(explainer, outputs, targets)
    shape = _input_shape(explainer, size)
    with undisturbed(explainer.network, isolate=True) as network, torch.no_grad(), quiet():
        like = reference_tensor(network)
        images = noise_inputs(explainer.input_spec, shape, TRACED_BATCH, like.dtype)
        explained = explainer.explain(images)  # refuses in words what it cannot explain
        units = explained.units
        top = None if top is None else min(check_count("top", top), len(units))
        image_size = shape[1:] if len(shape) == 3 else None
        traced = ExplainedNetwork(network, units, outputs, image_size, top).eval()
        inputs = (images,) if targets == "predicted" else (images, explained.targets[: len(images)])
        names = list(traced.columns(*inputs))
        if not set(names) & set(outputs):
            raise InputError(
                f"Expected outputs that {explainer.card.title} has; got {', '.join(outputs)}: its units have "
                "no places."
            )
        facts = graph_facts(explainer, units, names, shape=shape, targets=targets, top=top)
        content = convert(traced, inputs, names, facts)
        differences = _checked(explainer, content, shape, takes_targets=targets == "input")
    return OnnxGraph(content=content, facts=facts, differences=differences)


def _exportable(model: Explainer) -> InterpretableExplainer[Any]:
    """`model`, once it is found to be an architecture in float32 on the CPU."""
    try:
        for package in PACKAGES:
            import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"Exporting needs {', '.join(PACKAGES)} ({error}): pip install 'explainkit-sdk[onnx]'."
        ) from error
    if not isinstance(model, InterpretableExplainer):
        title = model.card.title if isinstance(model, Explainer) else type(model).__name__
        raise InputError(
            "Expected an architecture that decides by its units, whose contributions are part of its forward "
            f"pass; got {title}. Methods that attribute a decision afterwards run the network again, or "
            "backwards, which a graph cannot."
        )
    like = reference_tensor(model.network)
    if like.device.type != "cpu":
        raise InputError(
            f"Expected a model on the CPU, where graphs are traced and checked; got one on {like.device}. "
            "Call model.to('cpu') first."
        )
    if like.dtype != torch.float32:
        raise InputError(
            f"Expected a network in float32, which runtimes compute in; got {like.dtype}. Convert a copy of "
            "it with network.float()."
        )
    return model


def _check_options(explainer: InterpretableExplainer[Any], outputs: Sequence[str], targets: str) -> None:
    known = get_args(Output)
    if isinstance(outputs, str) or not outputs or len(set(outputs)) < len(outputs):
        raise InputError(f"Expected outputs as a sequence of different names; got {outputs!r}.")
    for name in outputs:
        if name not in known:
            raise InputError(f"Expected outputs of {', '.join(known)}; got {name!r}.")
    if targets not in get_args(GraphTargets):
        raise InputError(f"Expected targets as 'predicted' or 'input'; got {targets!r}.")
    if targets == "predicted" and explainer.decision.rule == "identity" and len(explainer.classes) > 1:
        raise InputError(
            f"Expected targets='input' for a model of {len(explainer.classes)} numbers, none of which is a "
            "decision: say in each call which one is explained."
        )


def _input_shape(explainer: InterpretableExplainer[Any], size: int | Sequence[int] | None) -> tuple[int, ...]:
    """Of one image, (D, H, W), or of one row, (F,)."""
    spec = explainer.input_spec
    if spec.is_vector:
        if size is not None:
            raise InputError(
                f"Expected no size: {explainer.card.title} takes rows of {spec.columns} columns."
            )
        return (int(spec.columns or 0),)
    sides: Any = size if isinstance(size, Sequence) else (size, size)
    if size is None and spec.size is None:
        raise InputError(
            f"Expected a size=(height, width) of the images for {explainer.card.title}, which takes any; a "
            "graph is of one."
        )
    sides = tuple(spec.size if size is None and spec.size is not None else sides)
    if not is_image_size(sides):
        raise InputError(
            f"Expected a size of height and width in pixels, up to {LARGEST_SIDE}; got {size!r}."
        )
    return (spec.channels, *sides)


def _checked(
    explainer: Explainer, content: bytes, shape: Sequence[int], *, takes_targets: bool
) -> dict[str, float]:
    """The largest differences seen, by output."""
    session = open_session(content)
    dtype, largest = reference_tensor(explainer.network).dtype, dict[str, float]()
    for count in CHECKED_BATCHES:
        images = noise_inputs(explainer.input_spec, shape, count, dtype)
        found = check_agreement(explainer, session, images, takes_targets=takes_targets)
        largest = {name: max(value, largest.get(name, 0.0)) for name, value in found.items()}
    return largest
