"""Are the parts of MA-CNN at true parts? Beside random groups of the same filters, and parts that never move.

Usage: python benchmarks/ma_cnn.py --model runs/ma-cnn-0 … [--placement free] [--size 64] [--out parts]
       python benchmarks/ma_cnn.py --quick

Of each saved model, on the first test images of aviary, the share of peaks that are within a tenth of the
image's side of their true part. Which true part a part is taken for is settled on validation images, for
every row alike. The rows:

- learned: the model's attention.
- clustered: the groups that k-means gave its filters, without the layers that were trained towards them.
- random: the same features, filters dealt into groups of the same sizes, the mean over --draws deals.
- still: each learned part at its mean place, in every image.

Differences are paired by image and part, with 95 % intervals over images (percentile bootstrap). Random
groups often all look at the one most striking place: `distinct` counts the true parts that some peak of the
image is near. Writes OUT.json and OUT.md. --quick trains a small network on few birds to see whether it runs.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

import explainkit as ek
from explainkit_macnn.attention import on_image, peak_points
from explainkit_macnn.parts import NEAR, are_near, match_parts, matched_distances, network_of

RESAMPLES = 2000

ROWS = ("learned", "clustered", "random", "still")

QUICK = {
    "backbone": "tiny", "parts": 3, "trunk_epochs": 4, "membership_epochs": 4, "rounds": 1,
    "classify_epochs": 2,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="folders of saved explainers")
    parser.add_argument("--placement", choices=["centered", "free"], default="free")
    parser.add_argument("--size", type=int, default=64, help="pixels a side, as the model learned")
    parser.add_argument("--images", type=int, default=500, help="of validation and of test")
    parser.add_argument("--draws", type=int, default=20, help="random groupings")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("ma_cnn"), help="of .json and .md")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        dataset = ek.dataset(
            "aviary", classes=5, train=400, validation=100, test=100, placement=options.placement
        )
        model = ek.explainer("ma-cnn", **QUICK).fit(dataset, seed=0, device="cpu", progress=False)
        models = [("quick", model)]
    else:
        dataset = ek.dataset("aviary", placement=options.placement, size=options.size)
        models = [(folder.name, ek.load(folder, device="cpu")) for folder in options.model]
    results = []
    for name, model in models:
        results.append(result_of(name, model, dataset, options))
        print(table([results[-1]]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(results) + "\n", encoding="utf-8")


class Seen:
    """Features of the first images of a split, and where their true parts are."""

    def __init__(self, model: ek.Explainer, dataset: ek.ImageDataset, split: str, images: int) -> None:
        ids = torch.arange(min(images, len(dataset.split(split))))
        self.batch = dataset.split(split).batch(ids)
        self.network = network_of(model)
        with torch.no_grad():
            inputs = model.read_images(self.batch)
            self.features = torch.cat([self.network.features(part) for part in inputs.split(100)])
            self.size = inputs.shape[2:]
        self.key_points = self.batch.key_points

    def points(self, membership: Tensor | None = None) -> Tensor:
        """Peaks (N, P, 2) in pixels; filters belong to parts by `membership` (P, D), or as learned."""
        points = []
        with torch.no_grad():
            for features in self.features.split(100):
                if membership is None:
                    attention = self.network.attend(features).attention
                else:
                    attention = self.network.attention(features, membership.expand(len(features), -1, -1))
                peaks = peak_points(attention, refine=True)
                points.append(on_image(peaks, features.shape[2:], self.size))
        return torch.cat(points)


def result_of(name: str, model: ek.Explainer, dataset: ek.ImageDataset, options) -> dict:
    """Everything about one model, as JSON takes it."""
    network = network_of(model)
    validation, test = (Seen(model, dataset, split, options.images) for split in ("validation", "test"))
    groups, parts = network.groups, torch.arange(network.parts)[:, None]
    generator = torch.Generator().manual_seed(0)
    deals = [groups[torch.randperm(len(groups), generator=generator)] for _ in range(options.draws)]
    places = {
        "learned": [(validation.points(), test.points())],
        "clustered": [deal_points(groups, parts, validation, test)],
        "random": [deal_points(deal, parts, validation, test) for deal in deals],
    }
    middle = places["learned"][0][0].mean(0)
    places["still"] = [tuple(middle.expand(len(seen.features), -1, -1) for seen in (validation, test))]
    radius = NEAR * min(dataset.size)
    scores = {row: [scores_of(*points, validation, test, radius) for points in places[row]] for row in ROWS}
    result = {
        "model": name, "placement": options.placement, "images": len(test.features), "radius": radius,
        "accuracy": model.evaluate(dataset, ["test"])["test"]["accuracy"],
        "true_parts": [dataset.parts[q] for q in scores["learned"][0]["true_part"].tolist()],
        "near_by_part": scores["learned"][0]["near"].nanmean(0).tolist(), "rows": {},
    }  # fmt: skip
    near = {row: torch.stack([each["near"].nanmean(1) for each in items]) for row, items in scores.items()}
    apart = {row: torch.stack([each["distinct"] for each in items]) for row, items in scores.items()}
    distance = {
        row: torch.stack([each["distance"].nanmean(1) for each in items]) for row, items in scores.items()
    }
    for row in ROWS:
        result["rows"][row] = {
            "near": interval(near[row].nanmean(0)), "distance": interval(distance[row].nanmean(0)),
            "distinct": interval(apart[row].mean(0)),
            "learned_minus": interval(near["learned"].nanmean(0) - near[row].nanmean(0)),
            "learned_minus_distinct": interval(apart["learned"].mean(0) - apart[row].mean(0)),
            "best_deal": float(near[row].nanmean(1).max()),
        }  # fmt: skip
    return result


def deal_points(groups: Tensor, parts: Tensor, validation: Seen, test: Seen) -> tuple[Tensor, Tensor]:
    """Peaks on both splits of parts that `groups` (D,) make."""
    membership = (groups == parts).to(validation.features)
    return validation.points(membership), test.points(membership)


def scores_of(
    matched_on: Tensor, points: Tensor, validation: Seen, test: Seen, radius: float
) -> dict[str, Tensor]:
    """Of each image and part whether it is near its true part, and how far; how many true parts are found."""
    true_part = match_parts(matched_on, validation.key_points, radius).true_part
    gap = torch.cdist(points.double(), test.key_points[..., :2].double())
    is_found = (gap <= radius) & (test.key_points[:, None, :, 2] > 0)  # (N, P, Q)
    return {
        "true_part": true_part, "near": are_near(points, test.key_points, true_part, radius),
        "distance": matched_distances(points, test.key_points, true_part),
        "distinct": is_found.any(1).sum(1).double(),
    }  # fmt: skip


def interval(values: Tensor) -> dict:
    """The mean of values (N,) over images, and its 95 % interval; images without one are left out."""
    values = values[~values.isnan()].double()
    chance = torch.Generator().manual_seed(0)
    index = torch.randint(len(values), (RESAMPLES, len(values)), generator=chance)
    low, high = values[index].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return {"mean": float(values.mean()), "interval": [low, high]}


def table(results: list[dict]) -> str:
    """A row for each model and way to find parts."""
    lines = [
        "| model | parts | near | pixels off | distinct | learned minus it | in distinct |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for row, numbers in result["rows"].items():
            cells = [
                text_of(numbers[key])
                for key in ("near", "distance", "distinct", "learned_minus", "learned_minus_distinct")
            ]
            label = f"{result['model']}, accuracy {result['accuracy']:.1%}"
            lines.append(f"| {label} | {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def text_of(score: dict) -> str:
    """A mean with its interval."""
    low, high = score["interval"]
    return f"{score['mean']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
