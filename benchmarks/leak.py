"""How much of their scores saved models on aviary take from outside of where they show them.

Usage: python benchmarks/leak.py --model FOLDER … [--images 100] [--split test] [--units 3] [--json FILE]

A Markdown table with a row a model: what a cell sees, cell leak, and region leak with scenes redrawn of the
same class and of another, with 95 % bootstrap intervals over images. The data are those of the model's
classes and size. JSON has means and intervals; with ``--values`` all values beside, as `ek.Leak` reads them.
"""

import json
import time
from pathlib import Path

import torch
from aviary_models import model_parser, print_header, print_row
from torch import Tensor

import explainkit as ek
from explainkit.explanations.leak import KINDS
from explainkit.metrics.results import Score


def summary(values: Tensor | None, seed: int) -> list[float] | None:
    """Mean over images and both ends of its interval, of values (N, m)."""
    if values is None:
        return None
    score = Score(name="leak", values=values.nanmean(1), seed=seed)
    return [round(number, 4) for number in (score.mean, *score.interval)]


def cell(numbers: list[float] | None) -> str:
    """A summary as text."""
    return "-" if numbers is None else "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)


def field_text(leak: ek.Leak) -> str:
    """What a cell sees, as the architecture claims."""
    field = leak.receptive_field
    return "no claim" if field is None else f"{field.size} pixels, every {field.stride}"


def shown_share(leak: ek.Leak) -> str:
    """In how many of the regions there was a score to measure."""
    return "-" if leak.region is None else f"{(~leak.region.isnan()).float().mean().item():.0%}"


def main() -> None:
    parser = model_parser(__doc__, images=100)
    parser.add_argument("--split", default="test")
    parser.add_argument("--units", type=int, default=3, help="of each image, the strongest; 3 unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("leak.json"), help="leak.json unless given")
    parser.add_argument("--values", action="store_true", help="all values in the JSON too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    written, reasons = [], dict[str, None]()
    heads = [f"region leak, {kind}" for kind in KINDS]
    print_header(
        "model", "accuracy", "a cell sees", "cell leak", *heads, "regions measured", "passes", "seconds"
    )
    for folder in options.model:
        model = ek.load(folder)
        dataset = ek.dataset("aviary", classes=len(model.classes), size=(model.size or (64,))[0])
        batch = dataset.split(options.split).batch(torch.arange(options.images))
        accuracy = (model.predict(batch).argmax(1).cpu() == batch.labels).float().mean().item()
        start = time.perf_counter()
        leak = ek.measure_leak(
            model, dataset, split=options.split, images=options.images, units=options.units, seed=options.seed
        )
        duration = time.perf_counter() - start
        of_regions = [
            summary(values, options.seed) for values in (() if leak.region is None else leak.region)
        ] or [None, None]
        of_cells = summary(None if leak.cell is None else leak.cell.mean(0), options.seed)
        print_row(
            f"{leak.explainer} ({Path(folder).name})", f"{accuracy:.1%}", field_text(leak),
            cell(of_cells), *map(cell, of_regions), shown_share(leak), leak.passes, f"{duration:.0f}",
        )  # fmt: skip
        reasons |= dict.fromkeys(filter(None, (leak.region_reason, leak.cell_reason)))
        written.append(
            {
                "model": Path(folder).name, "explainer": leak.explainer, "accuracy": accuracy,
                "images": len(leak), "split": leak.split, "cell leak": of_cells,
                "region leak": dict(zip(KINDS, of_regions, strict=True)),
            }
            | ({"leak": json.loads(leak.to_json())} if options.values else {})
        )  # fmt: skip
    print(*(f"\n- {reason}" for reason in reasons), sep="")
    options.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
