"""CAM and the usual post-hoc methods, measured over mixed aviary scenes beside all trivial rows.

Run ``python benchmarks/metric_table.py --out table`` for the table of the docs: it trains CAM, or takes the
ones saved in ``--model folder …``, and writes table.json and table.md. ``--data-seed 1 --split mixed`` takes
scenes that no table of the docs is of, as defaults are chosen on. ``--quick`` is for looking whether it
runs: three epochs on a fifth of the images, 40 scenes.
"""

import argparse
import time
from pathlib import Path

import torch

import explainkit as ek
from explainkit.cli.options import post_hoc

FAITHFULNESS = [
    "shapley-correlation",
    "within-class-correlation",
    "top-part",
    "part-deletion",
    "part-insertion",
    "residual",
]
"""The columns of the first table in Markdown; a second one has the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, nargs="+", help="folders of saved explainers; CAM is trained where none is"
    )
    parser.add_argument("--beside", nargs="*", help="post-hoc methods by name; the usual ones unless given")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-seed", type=int, default=0, help="of the data set")
    parser.add_argument("--split", default="mixed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--metrics", nargs="+", help="names of columns; all unless given")
    parser.add_argument(
        "--value", default="logit", choices=["logit", "centered"], help="that parts are worth to"
    )
    parser.add_argument("--out", type=Path, default=Path("metric_table"), help="of .json and .md")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    train, images, epochs = (1000, 40, 3) if options.quick else (5000, options.images, options.epochs)
    dataset = ek.dataset("aviary", train=train, seed=options.data_seed)
    started = time.perf_counter()
    model, *others = loaded_or_trained(options, dataset, epochs)
    trained = time.perf_counter()
    for explainer in (model, *others):
        accuracy = explainer.evaluate(dataset, ["test"])["test"]["accuracy"]
        print(f"{explainer.card.title}: test accuracy {accuracy:.1%}")
    print(f"trained or loaded in {trained - started:.0f} s")
    table = ek.evaluate_explanations(
        [model, *others, *post_hoc(model, options.beside)], dataset, split=options.split, images=images,
        seed=options.seed, metrics=options.metrics, value=options.value,
    )  # fmt: skip
    print(table.table())
    print(f"{time.perf_counter() - trained:.0f} s, {torch.get_num_threads()} threads, {model.device}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(table.to_json(), encoding="utf-8")
    halves = (FAITHFULNESS, [name for name in table.columns if name not in FAITHFULNESS])
    pages = [table.only(*(name for name in half if name in table.columns)).markdown() for half in halves]
    options.out.with_suffix(".md").write_text("\n".join(pages), encoding="utf-8")


def loaded_or_trained(
    options: argparse.Namespace, dataset: ek.ImageDataset, epochs: int
) -> list[ek.InterpretableExplainer]:
    if options.model is not None:
        return [ek.load(folder) for folder in options.model]
    return [ek.explainer("cam", epochs=epochs).fit(dataset, seed=options.seed, device=options.device)]


if __name__ == "__main__":
    main()
