"""Checks of what runs elsewhere: a model as a graph."""

from __future__ import annotations

from unittest import SkipTest

import torch
from torch import Tensor

from explainkit.errors import InputError, MissingPackageError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.export.agreement import TOLERANCE, check_agreement, open_session
from explainkit.export.graph_facts import GraphTargets
from explainkit.export.onnx_graphs import onnx_graph
from explainkit.networks.precision import reference_tensor
from explainkit.testing.assertions import check

BATCHES = (1, 7, 33)
"""How many images a graph is asked about; it is traced with another number."""


def check_exports(explainer: Explainer, images: Tensor) -> None:
    """An architecture is one ONNX graph, which says of any number of images what the model says.

    Of networks on the CPU in float32, which alone are exported.

    Raises
    ------
    ConformanceError
        With what stands in the way, or the output that differs.
    unittest.SkipTest
        Without onnx, onnxscript and onnxruntime, which test runners report as skipped.
    """
    if not isinstance(explainer, InterpretableExplainer):
        return
    like = reference_tensor(explainer.network)
    if like.dtype != torch.float32 or like.device.type != "cpu":
        return
    size = None if explainer.input_spec.is_vector else tuple(images.shape[2:])
    targets: GraphTargets = "input" if explainer.decision.rule == "identity" else "predicted"
    try:
        graph = onnx_graph(explainer, targets=targets, size=size)
    except MissingPackageError as error:
        raise SkipTest(str(error)) from error
    except InputError as error:
        check(False, f"a graph of the model; it is refused: {error}")
    session = open_session(graph.content)
    for count in BATCHES:
        many = images[torch.arange(count) % images.shape[0]]
        try:
            check_agreement(explainer, session, many, takes_targets=targets == "input")
        except InputError as error:
            check(False, f"a graph that agrees to {TOLERANCE:g} on {count} images: {error}")
