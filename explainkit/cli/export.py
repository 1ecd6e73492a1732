"""``explainkit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from explainkit.cli.options import load_explainer, plain


def export(
    model: Path,
    path: Path,
    /,
    *,
    output: Annotated[list[str] | None, Parameter(negative="")] = None,
    top: int | None = None,
    targets: Literal["predicted", "input"] = "predicted",
    size: tuple[int, int] | None = None,
) -> None:
    """Write a saved architecture as one ONNX graph: logits, and what each unit adds to them.

    ONNX Runtime is asked whether the graph says what the model says before anything is written.

    Parameters
    ----------
    model
        Folder of a saved explainer.
    path
        The graph.
    output
        logits, base, contributions, scores, weights, maps or saliency; may be given again. All but scores and
        weights unless given.
    top
        Give so many of the strongest units of each image alone, and the sum of all others.
    targets
        predicted: explain the class with the largest output. input: the graph takes classes as a second
        input.
    size
        Height and width of the images, where the model takes any.

    Examples
    --------
    explainkit export model model.onnx
    explainkit export model model.onnx --output logits --output base --output contributions --top 5
    """
    from explainkit.explanations.serialization import write
    from explainkit.export.onnx_graphs import DEFAULT_OUTPUTS, onnx_graph

    outputs: Any = DEFAULT_OUTPUTS if output is None else output
    graph = onnx_graph(load_explainer(model, None, "cpu"), outputs, top, targets=targets, size=size)
    write(path, graph.content)
    for name, meaning in graph.facts["outputs"].items():
        difference = graph.differences[name]
        print(plain(f"{name:<13} {meaning}; differs by {difference:.1g} of its size at most"))
    print(f"graph: {path.resolve()}, {len(graph.content):,} bytes")
