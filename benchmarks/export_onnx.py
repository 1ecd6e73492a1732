"""Whether exported graphs say what their models say, and how fast they say it: ONNX Runtime beside torch.

Usage: python benchmarks/export_onnx.py [NAME …] [--models FOLDER] [--pairs 30] [--batch-size 32]

Architectures at their small preset on images of 64 pixels: those saved in FOLDER/NAME, else trained for a
moment. Differences are the largest of any number on test images in batches of 1, 7 and 33, none of them the
traced one; logits and contributions in logits, maps and saliency as shares of their peak. Times are of the
logits and all that explains them, medians of runs that take turns, on as many threads as torch has
(OMP_NUM_THREADS).
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from explain_cost import SHORT

import explainkit as ek
from explainkit.explanations.factored_maps import dense_maps
from explainkit.export.agreement import open_session, residual_of, run_graph
from explainkit.export.onnx_graphs import TRACED_BATCH, onnx_graph

BATCHES = (1, 7, 33)
COLUMNS = ("logits", "contributions", "residual", "maps", "saliency")


def model_called(name: str, folder: Path | None, dataset: ek.ImageDataset) -> ek.Explainer:
    if folder is not None and (folder / name / "explainer.json").is_file():
        return ek.load(folder / name)
    return ek.explainer(name, **SHORT.get(name, {})).fit(dataset, seed=0, device="cpu", progress=False)


def differences(model: ek.Explainer, session: object, images: torch.Tensor) -> dict[str, float]:
    """The largest difference of each of `COLUMNS` for one batch."""
    given = {name: torch.from_numpy(values) for name, values in run_graph(session, images).items()}
    expected = model.explain(images, given["targets"])
    found = {
        "logits": (given["logits"] - expected.logits).abs().max(),
        "contributions": (given["contributions"] - expected.contributions).abs().max(),
        "residual": residual_of(run_graph(session, images), expected.targets).abs().max(),
    }
    if "maps" in given:
        maps, saliency = dense_maps(expected.maps), expected.saliency()
        found["maps"] = (given["maps"] - maps).abs().max() / maps.max()
        found["saliency"] = (given["saliency"] - saliency).abs().max() / saliency.abs().max()
    return {name: float(value) for name, value in found.items()}


def milliseconds(calls: dict[str, Callable[[], object]], pairs: int) -> dict[str, float]:
    """The median of each of `calls`, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(pairs + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(of_call) for name, of_call in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*SHORT])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--train", type=int, default=400)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    assert TRACED_BATCH not in BATCHES
    dataset = ek.dataset("aviary", train=options.train, validation=40, test=64)
    print(f"{torch.get_num_threads()} threads, {options.pairs} runs of {options.batch_size} images")
    print("| | logits | contributions | residual | maps | saliency | MB | torch, ms | ONNX Runtime, ms | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.names:
        model = model_called(name, options.models, dataset)
        graph = onnx_graph(model)
        session, worst = open_session(graph.content), dict.fromkeys(COLUMNS, float("nan"))
        for count in BATCHES:
            found = differences(model, session, dataset.test.batch(torch.arange(count)).images)
            worst |= {
                column: value if worst[column] != worst[column] else max(value, worst[column])
                for column, value in found.items()
            }
        images = dataset.test.batch(torch.arange(options.batch_size)).images
        is_placed = "saliency" in graph.facts["outputs"]

        def explain(model=model, images=images, is_placed=is_placed) -> object:
            explanations = model.explain(images)
            return explanations.contributions, explanations.saliency() if is_placed else None

        spent = milliseconds(
            {"torch": explain, "onnx": lambda session=session, images=images: run_graph(session, images)},
            options.pairs,
        )
        shown = " | ".join("" if value != value else f"{value:.1e}" for value in worst.values())
        print(
            f"| `{name}` | {shown} | {len(graph.content) / 1e6:.1f} | {spent['torch']:.0f} | "
            f"{spent['onnx']:.0f} | {spent['onnx'] / spent['torch']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
