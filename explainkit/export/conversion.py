"""From a traced network to the bytes of an ONNX file, whatever the number of images."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor

from explainkit.errors import InputError, UnsupportedNetworkError
from explainkit.explanations.serialization import canonical, in_brief
from explainkit.export.explained_network import ExplainedNetwork
from explainkit.export.graph_facts import METADATA_KEY
from explainkit.version import __version__

LARGEST_GRAPH = 2**31 - 1
"""Bytes of one file: protobuf's limit."""

FIXED_BATCH = (
    "the number of images was read as a fixed number somewhere. Use images.shape[0] in place of len(images), "
    "and no Python loop over images."
)

LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")
"""That report the stages of an export, and what is then raised as an error."""


def convert(
    traced: ExplainedNetwork, inputs: tuple[Tensor, ...], names: Sequence[str], facts: Mapping[str, Any]
) -> bytes:
    """The file: traced for any number of images, converted, with its facts as metadata.

    Raises
    ------
    UnsupportedNetworkError
        With what stands in the way.
    InputError
        For a graph that is too large for one file.
    """
    batch, title = torch.export.Dim("batch", min=1), facts["explainer"]
    shapes = tuple({0: batch} for _ in inputs)
    try:
        with redirect_stderr(io.StringIO()):  # where torch prints half a graph when it fails
            program = torch.export.export(traced, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever the network's code does when it is run on shapes alone
        raise UnsupportedNetworkError(
            f"Expected decompose of {title} to be traced for any number of images: {_reason(error)}"
        ) from error
    input_names = ["images", "targets"][: len(inputs)]
    try:
        converted = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=input_names, output_names=list(names)
        )
    except Exception as error:  # of operators that have no counterpart, as the converter puts it
        raise UnsupportedNetworkError(
            f"Expected decompose of {title} to be of operations that ONNX has: {_reason(error)}"
        ) from error
    assert converted is not None
    proto: Any = converted.model_proto
    _tidy(proto, facts)
    if proto.ByteSize() > LARGEST_GRAPH:
        raise InputError(f"Expected a graph of at most {LARGEST_GRAPH:,} bytes; got {proto.ByteSize():,}.")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _reason(error: Exception) -> str:
    """Why, in a line: sizes that were kept, branches on numbers; else as torch says it."""
    text = str(error)
    if "specialized it to be a constant" in text:
        return FIXED_BATCH
    if "data-dependent" in text:
        return "Python branches on a number that is computed. Use torch.where in place of it."
    cause: BaseException = error
    while cause.__cause__ is not None:  # the first of a chain says what it was
        cause = cause.__cause__
    return in_brief(f"{type(cause).__name__}: {cause}")


def _tidy(proto: Any, facts: Mapping[str, Any]) -> None:
    """Metadata in; out what an exporter leaves of the place it ran at. The batch is called that."""
    graph = proto.graph
    name = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not name:
        raise UnsupportedNetworkError(
            f"Expected decompose of {facts['explainer']} to be traced for any number of images; {FIXED_BATCH}"
        )
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == name:
                dim.dim_param = "batch"
    for node in (*graph.node, *(node for function in proto.functions for node in function.node)):
        del node.metadata_props[:]
        node.doc_string = ""
    for initializer in graph.initializer:
        del initializer.metadata_props[:]
    for holder in (graph, *proto.functions):
        del holder.metadata_props[:]
    del proto.metadata_props[:]
    proto.producer_name, proto.producer_version = "explainkit", __version__
    graph.name = facts["explainer"]
    graph.doc_string = "logits[n, targets[n]] = base[n] + sum of contributions[n] + residual[n]"
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, canonical(facts)


@contextmanager
def quiet() -> Iterator[None]:
    """No reports of stages, and no warnings of libraries about each other; errors are raised."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
