"""Whether filters mean something: InterpCNN, CSG-CNN, CI-GC and the plain network on the same backbone.

Run ``python benchmarks/filter_meaning.py --model runs/cam-0 runs/interp-cnn-0 … --images 500 --out filters``
for saved models. A row a model, in the order given: accuracy on --split; of its first images location
instability, part interpretability, mutual information score, content heatmap and stochastic pointing game,
with 95 % intervals over images; FIS in the mean over filters, with its standard error over filters. Writes
OUT.json and OUT.md. Chance levels of the first two are in the notes of OUT.json.
"""

import argparse
import json
from pathlib import Path

import torch

import explainkit as ek
from explainkit.explanations.spatial import resize
from explainkit.metrics import EvalContext, ExplainerOutput, Score
from explainkit.metrics.concepts import GRID, concept_scores, on_grid
from explainkit.metrics.localization import content_heatmap, stochastic_pointing
from explainkit.metrics.mutual_information import mutual_information_score
from explainkit.metrics.unit_parts import location_instability, part_interpretability, unit_maps_of

METRICS = {
    "location-instability": location_instability,
    "part-interpretability": part_interpretability,
    "mutual-information-score": mutual_information_score,
    "content-heatmap": content_heatmap,
    "stochastic-pointing": stochastic_pointing,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="folders of saved explainers")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("filter_meaning"), help="of .json and .md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = ek.dataset("aviary")
    rows = []
    for folder in options.model:
        rows.append(row_of(folder, dataset, options.split, options.images))
        print(markdown_row(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows) + "\n", encoding="utf-8")
    names = ["accuracy", *METRICS, "FIS"]
    head = f"| model | {' | '.join(names)} |\n|---{'|---' * len(names)}|"
    page = "\n".join([head, *map(markdown_row, rows)]) + "\n"
    options.out.with_suffix(".md").write_text(page, encoding="utf-8")


def row_of(folder: Path, dataset: ek.ImageDataset, split: str, images: int) -> dict:
    """Everything about one model, as JSON takes it."""
    model = ek.load(folder)
    ids = torch.arange(min(images, len(dataset.splits[split])))
    context = EvalContext(explainer=model, dataset=dataset, split=split, ids=ids)
    explanations = model.explain(context.images, context.targets, maps="all")
    output = ExplainerOutput(
        context=context, name=folder.name, full_explanations=explanations,
        saliency_map=explanations.saliency(),
    )  # fmt: skip
    row = {
        "model": folder.name,
        "explainer": model.card.title,
        "split": split,
        "images": len(ids),
        "accuracy": model.evaluate(dataset, [split])[split]["accuracy"],
    }
    for name, metric in METRICS.items():
        score: Score = metric(output)
        row[name] = {"mean": score.mean, "interval": score.interval, "note": score.note}
    maps = unit_maps_of(explanations)
    fis = concept_scores(resize(maps, GRID), on_grid(context.masks.cpu())).fis
    row["FIS"] = {"mean": fis.mean().item(), "std_error": (fis.std() / len(fis) ** 0.5).item()}
    return row


def markdown_row(row: dict) -> str:
    """The row of a table."""
    cells = [row["model"], f"{row['accuracy']:.2%}"]
    for name in METRICS:
        low, high = row[name]["interval"]
        cells.append(f"{row[name]['mean']:.3f} [{low:.3f}, {high:.3f}]")
    cells.append(f"{row['FIS']['mean']:.3f} ± {row['FIS']['std_error']:.3f}")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
