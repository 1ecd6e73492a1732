"""Are regions of Region-CNN parts? Beside k-means on the same features, and training without the prior.

Usage: python benchmarks/region_cnn.py [--quick] [--model folder] [--without-prior folder] [--plain folder]

Regions are matched with the parts of aviary one to one on training images (Hungarian method) and measured on
test images by those matches: intersection over union with the true masks, and the error of landmarks that a
linear regression on the regions' middles expects, as the paper has it. With intervals over images, and paired
differences. Of k-means the best of several beginnings on training images counts. The networks are loaded from
--model and --without-prior, or trained with the settings of `small`; --plain adds one with neither prior nor
recoloring, since recoloring alone is content with one region for all. --out keeps the numbers. --quick: five
classes, 600 images and three epochs, a quarter of a minute a network.
"""

import argparse
import json
from pathlib import Path

import torch

import explainkit as ek
from explainkit.metrics.results import Score
from explainkit_regioncnn.agreement import (
    hard_regions,
    landmark_errors,
    match_regions,
    overlaps,
    part_agreement,
    region_centers,
)
from explainkit_regioncnn.dictionary import MAX_POINTS, k_means
from explainkit_regioncnn.grouping import assignment

QUICK = {"warm_epochs": 1, "epochs": 2, "backbone_settings": {"width": 32}}

BEGINNINGS = 5
"""Of k-means."""

CHUNK = 100


def dataset_of(quick):
    """Aviary, whole or small."""
    return (
        ek.dataset("aviary", classes=5, train=600, validation=50, test=200) if quick else ek.dataset("aviary")
    )


def model_of(folder, settings, dataset, options):
    """A network from `folder`, or trained and kept there."""
    if folder is not None and folder.exists():
        return ek.load(folder, device="cpu")
    settings = settings | (QUICK if options.quick else {})
    model = ek.explainer("region-cnn", **settings)
    model.fit(dataset, seed=options.seed, device="cpu", progress=False)
    if folder is not None:
        ek.save(model, folder)
    return model


def cells_of(model, images):
    """Features of the cells of images, as the network compares them with centers."""
    with torch.no_grad():
        return torch.cat([model.network.cell_features(part) for part in images.split(CHUNK)])


def grouped(cells, centers, beta):
    """The soft assignment of cells to centers."""
    with torch.no_grad():
        return torch.cat([assignment(part, centers, beta) for part in cells.split(CHUNK)])


def clusters(cells, count, masks, beta, seed):
    """Centers by k-means whose regions overlap parts most in training images."""
    points = cells.flatten(2).mT.flatten(0, 1)
    best, chosen = -1.0, None
    for number in range(BEGINNINGS):
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed + number))
        centers = k_means(points[order[:MAX_POINTS]], count, seed=seed + number)
        regions = hard_regions(grouped(cells, centers, beta), tuple(masks.shape[2:]))
        common, union = (values.sum(0) for values in overlaps(regions, masks, count))
        region_of = match_regions(regions, masks, count)
        kept = region_of >= 0
        overlap = (common / union.clamp(min=1))[torch.arange(len(kept))[kept], region_of[kept]].sum().item()
        if overlap > best:
            best, chosen = overlap, centers
    return chosen


def measure(shares, batch, other_shares, other):
    """Scores of overlaps and landmarks on `other`, by matches and a regression on `batch`."""
    count, size = shares.shape[1], tuple(batch.masks.shape[2:])
    region_of = match_regions(hard_regions(shares, size), batch.masks, count)
    agreement = part_agreement(hard_regions(other_shares, size), other.masks, region_of, count)
    errors = landmark_errors(
        region_centers(shares), batch.key_points, region_centers(other_shares), other.key_points
    )
    return {
        "part-iou": Score(name="part-iou", values=agreement.of_images, better="higher"),
        "landmark-error": Score(
            name="landmark-error", values=errors.nanmean(1), better="lower", unit="pixels"
        ),
        "iou by part": agreement.iou.nanmean(0).tolist(),
        "error by part": errors.nanmean(0).tolist(),
    }


def line(score):
    low, high = score.interval
    return f"{score.mean:.3f} [{low:.3f}, {high:.3f}]"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", type=Path, help="folder of the network with the prior")
    parser.add_argument("--without-prior", type=Path, help="folder of the network without it")
    parser.add_argument("--plain", type=Path, help="folder of one with neither prior nor recoloring")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1000, help="of each split, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = dataset_of(options.quick)
    batch, other = (
        dataset.split(name).batch(torch.arange(min(options.images, len(dataset.split(name)))))
        for name in ("train", "test")
    )
    model = model_of(options.model, {}, dataset, options)
    plain = model_of(options.without_prior, {"prior_weight": 0.0}, dataset, options)
    models = {"regions": model, "without the prior": plain}
    if options.plain is not None:
        settings = {"prior_weight": 0.0, "recoloring_weight": 0.0}
        models["neither prior nor recoloring"] = model_of(options.plain, settings, dataset, options)
    rows = {}
    for name, each in models.items():
        network = each.network
        centers, beta = network.dictionary.detach(), network.beta.detach()
        cells, others = cells_of(each, batch.images), cells_of(each, other.images)
        rows[name] = measure(grouped(cells, centers, beta), batch, grouped(others, centers, beta), other)
        if each is model:
            found = clusters(cells, len(centers), batch.masks, beta.mean().expand(len(centers)), options.seed)
            even = beta.mean().expand(len(found))
            rows["k-means"] = measure(grouped(cells, found, even), batch, grouped(others, found, even), other)
    accuracy = {name: each.evaluate(dataset, ["test"])["test"]["accuracy"] for name, each in models.items()}
    result = {
        "images": len(other),
        "seed": options.seed,
        "parts": list(dataset.parts),
        "accuracy": accuracy,
        "rows": {},
    }
    for name, row in rows.items():
        print(
            f"{name}: part-iou {line(row['part-iou'])}, landmark-error {line(row['landmark-error'])} pixels"
        )
        for part, iou, error in zip(dataset.parts, row["iou by part"], row["error by part"], strict=True):
            print(f"  {part}: iou {iou:.3f}, landmark {error:.1f} pixels")
        kept = {"iou by part": row["iou by part"], "error by part": row["error by part"]}
        for metric in ("part-iou", "landmark-error"):
            score = row[metric]
            kept[metric] = {"mean": score.mean, "interval": score.interval}
            if name != "regions":
                gain = rows["regions"][metric].advantage_over(score)
                print(f"  advantage of regions in {metric}: {line(gain)}")
                kept[metric]["advantage of regions"] = {
                    "mean": gain.mean,
                    "interval": gain.interval,
                    "excludes zero": gain.excludes_zero,
                }
        result["rows"][name] = kept
    print("test accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items()))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
