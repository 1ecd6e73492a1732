"""RA-CNN on birds that stand anywhere: whether its boxes find the bird, and a closer look helps.

Usage: python benchmarks/racnn.py [--model folder | --seed 0] [--out folder] [--threads 1]

Aviary with ``placement="free"``, 96 pixels; without ``--model`` one is trained, and kept in the folder of
``--out``. Boxes are measured on the test split against the bird as it is seen, body and all, beside boxes of
the same size, or their mean size: in the center; at the one place that covers most of the birds of the
training split; around the strongest response of the scale before, where proposals began. ``best`` is that
size at the best place for each image, which no proposal can exceed.
"""

import argparse
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from attrs import asdict
from torch import Tensor
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import Aviary
from explainkit.explanations.spatial import bounding_boxes
from explainkit_racnn.explainer import RACNN, SCALES
from explainkit_racnn.losses import strongest_squares
from explainkit_racnn.model import RACNNNetwork, RACNNOutputs
from explainkit_racnn.zoom import pixel_boxes, within

SETTINGS = {"crop_size": 64, "warm_epochs": 20, "look_epochs": 3, "rank_epochs": 1, "rounds": 3}


def birds(dataset: Aviary, split: str, chunk: int = 250) -> Tensor:
    """Where the bird of each image is seen, (N, H, W), 0 or 1."""
    ids = torch.arange(len(dataset.split(split)))
    drawn = [dataset.draw(dataset.scenes(split, rows.numpy())).birds for rows in ids.split(chunk)]
    return torch.cat([torch.from_numpy(mask).any(1) for mask in drawn]).float()


def inside(masks: Tensor, boxes: Tensor) -> Tensor:
    """How many pixels of masks (N, H, W) lie in boxes (N, 4), pixels on an edge by their share: (N,)."""
    rows = _shares(boxes[:, 1], boxes[:, 3], masks.shape[1])
    columns = _shares(boxes[:, 0], boxes[:, 2], masks.shape[2])
    return torch.einsum("nhw,nh,nw->n", masks, rows, columns)


def overlap(boxes: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of boxes (N, 4), (N,)."""
    low, high = torch.maximum(boxes[:, :2], truth[:, :2]), torch.minimum(boxes[:, 2:], truth[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    return common / (area(boxes) + area(truth) - common)


def area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def bounding(masks: Tensor) -> Tensor:
    """The tightest box around each mask (N, H, W), (N, 4)."""
    return bounding_boxes(masks > 0).float()


def anywhere(masks: Tensor, side: int) -> Tensor:
    """How many pixels of each mask (N, H, W) a square of `side` holds at every whole place: (N, h, w)."""
    return F.avg_pool2d(masks[:, None], side, 1)[:, 0] * side**2


def squares(corner: Tensor, side: float) -> Tensor:
    """Boxes (N, 4) from their upper left corners (N, 2), x first."""
    return torch.cat([corner, corner + side], 1)


def other_boxes(boxes: Tensor, masks: Tensor, train: Tensor, strongest: Tensor) -> dict[str, Tensor]:
    """Boxes of the size of `boxes` (N, 4) that were placed otherwise, by name; `strongest` is one of them."""
    size, half = masks.shape[1], (boxes[:, 2:] - boxes[:, :2]) / 2
    side = round(float(2 * half.mean()))
    often = (anywhere(train, side) / train.sum((1, 2))[:, None, None]).mean(0)
    fixed = _corner(often.argmax()[None], often.shape[1])
    held = anywhere(masks, side)
    best = _corner(held.flatten(1).argmax(1), held.shape[2])
    return {
        "centered": torch.cat([size / 2 - half, size / 2 + half], 1),
        "best fixed": squares(fixed.expand(len(boxes), 2), side),
        "strongest response": strongest,
        "best": squares(best, side),
    }


def measure(network: RACNNNetwork, dataset: Aviary, split: str) -> dict[str, Tensor]:
    """What is measured of every image of a split, joined."""
    columns: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in dataset.batches(split, 200):
            looks = network.outputs(batch.images)
            measures = {"right": network.logits_of(looks).argmax(1) == batch.labels}
            confidence = looks.by_scale.softmax(2)
            measures["right by scale"] = (looks.by_scale.argmax(2) == batch.labels).T
            labels = batch.labels[None, :, None].expand(len(confidence), -1, 1)
            measures["confidence"] = confidence.gather(2, labels)[..., 0].T
            boxes = [pixel_boxes(square, looks.size) for square in looks.squares]
            measures["boxes"] = torch.stack(boxes, 1)
            measures["strongest"] = torch.stack(
                [at_strongest(looks, s, batch.images.shape[2:]) for s in range(1, network.scales)], 1
            )
            for name, value in measures.items():
                columns.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in columns.items()}


def at_strongest(looks: RACNNOutputs, scale: int, size: Sequence[int]) -> Tensor:
    """Boxes (N, 4) of a finer scale, were they around the strongest response of the scale before."""
    half = looks.proposed[scale - 1][:, 2:]
    middle = strongest_squares(looks.features[scale - 1], 0.0)[:, :2]
    inner = torch.cat([torch.minimum(torch.maximum(middle, half), 1 - half), half], 1)
    return pixel_boxes(within(looks.squares[scale - 1], inner), size)


def show_scales(measures: dict[str, Tensor]) -> None:
    """Print accuracy, confidence and size of each scale."""
    size = (measures["boxes"][..., 2] - measures["boxes"][..., 0]).mean(0)
    print("| scale | accuracy | p(true) | side of its box |\n|---|---|---|---|")
    for s in range(len(size)):
        print(
            f"| {SCALES[s]} | {measures['right by scale'][:, s].float().mean():.1%} "
            f"| {measures['confidence'][:, s].mean():.3f} | {size[s]:.1f} |"
        )
    print(f"| all, fused | {measures['right'].float().mean():.1%} | | |\n")


def show_boxes(measures: dict[str, Tensor], masks: Tensor, train: Tensor) -> None:
    """Print how well the boxes of each finer scale are placed, beside others of their size."""
    truth, visible = bounding(masks), masks.sum((1, 2))
    print("| scale | box | cover of the bird | gain of RA-CNN | precision | IoU with the bird's box |")
    print("|---|---|---|---|---|---|")
    for s in range(1, measures["boxes"].shape[1]):
        boxes = measures["boxes"][:, s]
        cover = inside(masks, boxes) / visible
        others = other_boxes(boxes, masks, train, measures["strongest"][:, s - 1])
        for name, compared in {"RA-CNN": boxes, **others}.items():
            held = inside(masks, compared)
            gain = cover - held / visible
            error = gain.std() / len(gain) ** 0.5
            gain_text = "" if name == "RA-CNN" else f"{gain.mean():+.3f} ± {error:.3f}"
            print(
                f"| {SCALES[s]} | {name} | {(held / visible).mean():.3f} | {gain_text} "
                f"| {(held / area(compared)).mean():.3f} | {overlap(compared, truth).mean():.3f} |"
            )
    print()


def show_aim(measures: dict[str, Tensor], masks: Tensor) -> None:
    """Print how far boxes follow the birds: correlation of their middles, and how much boxes move."""
    truth = bounding(masks)
    bird = (truth[:, :2] + truth[:, 2:]) / 2
    for s in range(1, measures["boxes"].shape[1]):
        box = (measures["boxes"][:, s, :2] + measures["boxes"][:, s, 2:]) / 2
        x, y = (torch.corrcoef(torch.stack([bird[:, a], box[:, a]]))[0, 1] for a in range(2))
        print(
            f"{SCALES[s]}: middles of box and bird correlate by {x:.2f} (x), {y:.2f} (y); they vary by "
            f"{box.std(0).mean():.1f} and {bird.std(0).mean():.1f} pixels"
        )


def show_rounds(history: Sequence[Mapping[str, Any]]) -> None:
    """Print what each turn of the ranking changed, on validation images."""
    names = ("p(true) 2", "p(true) 3", "half side 2", "half side 3")
    print("| ranking | " + " | ".join(names) + " |\n|---|---|---|---|---|")
    ends = [epoch for epoch, after in pairwise(history) if epoch["phase"] != after["phase"]]
    turns = [(one, two) for one, two in pairwise(ends) if two["phase"] == "rank"]
    for turn, (before, after) in enumerate(turns, 1):
        cells = [f"{before['val_metrics'][name]:.3f} to {after['val_metrics'][name]:.3f}" for name in names]
        print(f"| round {turn} | " + " | ".join(cells) + " |")
    print()


def train_model(dataset: Aviary, seed: int, out: Path | None) -> RACNN:
    wall = time.perf_counter()
    model = RACNN(**SETTINGS).fit(dataset, seed=seed, device="cpu", progress=False)
    print(f"trained in {time.perf_counter() - wall:.0f} s on {torch.get_num_threads()} threads")
    if out is not None:
        ek.save(model, out)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of a saved one; else one is trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to keep the trained one in")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    dataset = ek.dataset("aviary", placement="free", size=96)
    if options.model:
        model = ek.load(options.model)
        history = json.loads((options.model / "explainer.json").read_text())["history"]
    else:
        model = train_model(dataset, options.seed, options.out)
        history = [asdict(epoch) for epoch in model.history]
    masks, train = birds(dataset, "test"), birds(dataset, "train")
    measures = measure(model.network, dataset, "test")
    show_rounds(history)
    show_scales(measures)
    show_boxes(measures, masks, train)
    show_aim(measures, masks)


def _shares(start: Tensor, stop: Tensor, pixels: int) -> Tensor:
    """How much of each of `pixels` lies between start and stop (N,): (N, pixels)."""
    edge = torch.arange(pixels, dtype=start.dtype)
    return (torch.minimum(edge + 1, stop[:, None]) - torch.maximum(edge, start[:, None])).clamp(min=0)


def _corner(index: Tensor, width: int) -> Tensor:
    return torch.stack([index % width, index // width], 1).float()


if __name__ == "__main__":
    main()
