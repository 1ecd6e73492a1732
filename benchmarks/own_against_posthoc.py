"""Networks' own explanations beside post-hoc methods on the same networks, over mixed aviary scenes.

Run ``python benchmarks/own_against_posthoc.py --model runs/demo/cam … --images 200 --out own`` for saved
models. It prints each row as soon as it is measured, then the tables in Markdown, and writes MODEL.md,
MODEL.json (means, intervals and differences; ``--values`` adds the values of every image, as
`PostHocComparison.from_json` reads them) and MODEL.png into the folder. A model that fails
costs none of the others.
"""

import argparse
import json
import time
import traceback
from pathlib import Path

import torch

import explainkit as ek
from explainkit.metrics.results import Row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="folders of saved explainers")
    parser.add_argument("--methods", nargs="+", help="names, or all; the usual ones unless given")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--split", default="mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--metric", default="shapley-correlation", help="of the figure")
    parser.add_argument("--values", action="store_true", help="also write the values of every image")
    parser.add_argument("--out", type=Path, default=Path("own_against_posthoc"), help="folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    dataset = ek.dataset("aviary")
    names = file_names(options.model)
    failed = 0
    for folder in options.model:
        try:
            study(folder, names[folder], dataset, options)
        except Exception:  # one model must not cost the others their figures
            failed += 1
            print(f"{folder} failed:\n{traceback.format_exc()}", flush=True)
    raise SystemExit(failed > 0)


def study(folder: Path, name: str, dataset: ek.ImageDataset, options: argparse.Namespace) -> None:
    """Measure one model, print the tables and write the files."""
    model = ek.load(folder, device=options.device)
    accuracy = model.evaluate(dataset, ["test"])["test"]["accuracy"]
    print(f"\n## {name}: {model.card.title}, test accuracy {accuracy:.2%}", flush=True)
    started = time.perf_counter()

    def print_row(row: Row) -> None:
        cells = [
            f"{column} {score.mean:.3f}" if score.reason is None else f"{column}: {score.reason}"
            for column, score in row.scores.items()
        ]
        is_unavailable = all(score.reason is not None for score in row.scores.values())
        text = cells[0] if is_unavailable else ", ".join(cells)
        print(f"{time.perf_counter() - started:7.1f} s  {row.name}: {text}", flush=True)

    methods = "all" if options.methods == ["all"] else options.methods
    comparison = ek.compare_with_posthoc(
        model, dataset, methods=methods, split=options.split, images=options.images, seed=options.seed,
        on_row=print_row,
    )  # fmt: skip
    markdown = comparison.markdown()
    print(f"\n{markdown}", flush=True)
    print(f"{time.perf_counter() - started:.0f} s, {torch.get_num_threads()} threads, {model.device}")
    facts = json.loads(comparison.to_json())
    if not options.values:
        for row in facts["table"]["rows"]:
            for score in row["scores"].values():
                del score["values"]
    written = options.out / name
    written.with_suffix(".md").write_text(markdown, encoding="utf-8")
    about = {"model": name, "explainer": model.card.title, "accuracy": accuracy}
    written.with_suffix(".json").write_text(json.dumps(about | facts) + "\n", encoding="utf-8")
    comparison.figure(metric=options.metric).savefig(written.with_suffix(".png"), dpi=150)


def file_names(folders: list[Path]) -> dict[Path, str]:
    """The folders' own names, with those of their parents where they are the same."""
    short = {folder: folder.resolve().name.replace(".", "-") for folder in folders}
    return {
        folder: name
        if list(short.values()).count(name) == 1
        else f"{folder.resolve().parent.name.replace('.', '-')}-{name}"
        for folder, name in short.items()
    }


if __name__ == "__main__":
    main()
