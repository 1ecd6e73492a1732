"""PrototypeDNN on the 5,000 images of MNIST: accuracy beside a plain network, and what counterfactuals keep.

Usage: python benchmarks/prototype_dnn.py [--folds 0 1 2 3 4] [--epochs 60] [--seed 0] [--images 200]
       [--out folder] [--quick]

Five folds of all 5,000 images, shuffled by the seed, each a test set once; of the others a tenth is for
validation. On each fold two networks learn in the same epochs, batches, order and elastic distortion, at the
same learning rate: PrototypeDNN, and a linear layer with a bias on the latent point of the same encoder. A
fold is written to ``out/fold-K.json`` when it is done, and not run again where that is there by the same
settings: folds may be run one at a time. At last the paired difference over folds, with an interval of 95 %
by Student's t with four degrees of freedom; and the same over all test images, by their right and wrong.

Of the first test images of each fold every other class is a goal, of the runner-up alone too: which share of
latent moves holds for the head at z*, and for the picture that is decoded there and encoded again, with the
first lead alone and with growing ones. --quick: one fold of 600 images and two epochs, under a minute.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import define, evolve
from scipy.stats import t as student_t
from torch import Tensor, nn

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.networks.modes import eval_mode
from explainkit.training import Trainer
from explainkit.training.criteria import classification_loss
from explainkit_prototypednn.explainer import PrototypeDNN
from explainkit_prototypednn.model import PrototypeDNNNetwork

FOLDS = 5

VALIDATION = 10
"""One in so many of the images that a fold learns from is for validation."""


class PlainNetwork(nn.Module):
    """The encoder of PrototypeDNN and a linear layer on the latent point: no prototypes, no decoder.

    Parameters
    ----------
    network : PrototypeDNNNetwork
        Whose encoder it takes, with its first weights.
    """

    def __init__(self, network: PrototypeDNNNetwork) -> None:
        super().__init__()
        self.encoder, self.channels = network.encoder, network.channels
        self.head = nn.Linear(network.prototypes.shape[1], network.head.out_features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        inputs = images if self.channels == images.shape[1] else images.mean(1, keepdim=True)
        return self.head(self.encoder(inputs).flatten(1))


def plain_loss(network: PlainNetwork, batch: ek.Batch, _: Any) -> dict[str, Tensor]:
    """Cross-entropy."""
    return {"cross_entropy": classification_loss(network(batch.images), batch.labels)}


def fold_of(dataset: ek.ImageDataset, fold: int, seed: int, images: int | None) -> ek.ImageDataset:
    """The data set with `fold` for a test split, of all its images or of the first `images`."""
    parts = [dataset.split(name) for name in ("train", "validation", "test")]
    pixels = torch.cat([part.images for part in parts])
    labels = torch.cat([part.labels for part in parts])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1000 + seed))[:images]
    is_test = torch.arange(len(order)) % FOLDS == fold
    learned = order[~is_test]
    is_validation = torch.arange(len(learned)) % VALIDATION == 0
    ids = {"train": learned[~is_validation], "validation": learned[is_validation], "test": order[is_test]}
    splits = {name: ArraySplit(images=pixels[chosen], labels=labels[chosen]) for name, chosen in ids.items()}
    return evolve(dataset, splits=splits)


def train_plain(model: PrototypeDNN, dataset: ek.ImageDataset, seed: int) -> PlainNetwork:
    """The plain network, trained as `model` is: same first encoder, epochs, order and distortion."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        task = ek.Task(classes=dataset.classes, size=dataset.size, channels=dataset.channels, dataset=dataset)
        network = PlainNetwork(model.build(task))
        plan = [
            evolve(phase, loss=plain_loss, lr={"": model.lr}, on_end=None)
            for phase in model.phases()
            if phase.epochs
        ]
        Trainer(seed=seed, device="cpu", progress=False).run(network, dataset, plan)
    return network


def right_of(network: nn.Module, split: Any) -> Tensor:
    """Which images of a split are rightly classified, (N,), bool."""
    batch = split.batch(torch.arange(len(split)))
    with eval_mode(network), torch.no_grad():
        logits = torch.cat([network(part) for part in batch.images.split(256)])
    return logits.argmax(1) == batch.labels


def counterfactual_shares(model: PrototypeDNN, images: Tensor) -> dict[str, dict[str, float]]:
    """Shares of moves that hold: to the runner-up, and to every other class."""
    logits = model.predict(images)
    order = logits.argsort(1, descending=True)
    goals = {
        "runner-up": (images, order[:, 1]),
        "every other class": (images.repeat_interleave(order.shape[1] - 1, 0), order[:, 1:].flatten()),
    }
    shares = {}
    for name, (inputs, targets) in goals.items():
        first = model.latent_moves(inputs, targets, attempts=1)
        last = model.latent_moves(inputs, targets)
        found = first.holds
        shares[name] = {
            "moves": len(targets),
            "out of reach": first.is_excluded.float().mean().item(),
            "holds at z*": first.holds.float().mean().item(),
            "picture holds, first lead": first.picture_holds.float().mean().item(),
            "picture holds, growing leads": last.picture_holds.float().mean().item(),
            "proved least": (first.lengths <= first.lower_bound * 1.001)[found].float().mean().item(),
            "median length": first.lengths[found].median().item(),
            "median length, growing leads": last.lengths[found].median().item(),
            "median length of the latent point": first.before.norm(dim=1).median().item(),
        }
    return shares


@define(kw_only=True)
class Run:
    """What a fold is run with: equal settings, equal results."""

    fold: int
    seed: int
    images: int
    size: int | None
    settings: Mapping[str, Any]

    def result(self) -> dict[str, Any]:
        """Both networks trained on the fold, and what is measured of them."""
        dataset = fold_of(ek.dataset("mnist"), self.fold, self.seed, self.size)
        start = time.process_time()
        model = ek.explainer("prototype-dnn", preset="mnist", **self.settings)
        assert isinstance(model, PrototypeDNN)
        model.fit(dataset, seed=self.seed, device="cpu", progress=False)
        seconds = time.process_time() - start
        plain = train_plain(model, dataset, self.seed)
        right, plain_right = right_of(model.network, dataset.test), right_of(plain, dataset.test)
        explanations = model.explain(dataset.test.batch(torch.arange(min(self.images, len(dataset.test)))))
        explanations.check_additivity()
        return {
            "fold": self.fold, "seed": self.seed, "settings": dict(self.settings), "size": self.size,
            "images": self.images,
            "accuracy": right.double().mean().item(), "plain accuracy": plain_right.double().mean().item(),
            "only prototype-dnn right": int((right & ~plain_right).sum()),
            "only plain right": int((plain_right & ~right).sum()), "test images": len(right),
            "cpu seconds": seconds, "uncovered": list(model.report.uncovered),
            "duplicates": model.report.duplicates, "nearest distance": model.report.nearest_distance,
            "largest residual": explanations.residual.abs().max().item(),
            "counterfactuals": counterfactual_shares(model, explanations.images),
        }  # fmt: skip

    def is_of(self, result: Mapping[str, Any]) -> bool:
        """Whether `result` was run with the same."""
        kept = ("fold", "seed", "images", "size")
        return all(result.get(name) == getattr(self, name) for name in kept) and result.get(
            "settings"
        ) == dict(self.settings)


def summary(results: list[dict[str, Any]]) -> list[str]:
    """Means, the paired difference with both intervals, and shares of counterfactuals."""
    lines = []
    for result in results:
        lines.append(
            f"fold {result['fold']}: prototype-dnn {result['accuracy']:.4f}, "
            f"plain {result['plain accuracy']:.4f}, "
            f"{result['cpu seconds']:.0f} CPU s"
        )
    differences = torch.tensor([each["accuracy"] - each["plain accuracy"] for each in results]).double()
    mean, count = differences.mean().item(), len(differences)
    text = f"paired difference {100 * mean:+.2f} points"
    if count > 1:
        half = student_t.ppf(0.975, count - 1) * differences.std().item() / math.sqrt(count)
        text += f", over {count} folds 95 % in [{100 * (mean - half):+.2f}, {100 * (mean + half):+.2f}]"
    total = sum(each["test images"] for each in results)
    gained, lost = (
        sum(each[f"only {name} right"] for each in results) for name in ("prototype-dnn", "plain")
    )
    paired = (gained - lost) / total
    half = 1.96 * math.sqrt(max((gained + lost) / total - paired**2, 0) / total)
    text += f"; over {total} images [{100 * (paired - half):+.2f}, {100 * (paired + half):+.2f}]"
    lines.append(text)
    for goal in results[0]["counterfactuals"]:
        facts = [each["counterfactuals"][goal] for each in results]
        means = {name: sum(fact[name] for fact in facts) / count for name in facts[0]}
        lines.append(f"{goal}: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)), choices=range(FOLDS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=200, help="test images of a fold that are edited")
    parser.add_argument("--out", type=Path, help="folder that folds are written to, and read from")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings: dict[str, Any] = {} if options.epochs is None else {"epochs": options.epochs}
    size, images, folds = None, options.images, options.folds
    if options.quick:
        settings, size, images, folds = {"epochs": 6, "start_epochs": 2}, 600, 20, [0]
    results = []
    for fold in folds:
        run = Run(fold=fold, seed=options.seed, images=images, size=size, settings=settings)
        path = None if options.out is None else options.out / f"fold-{fold}.json"
        result = json.loads(path.read_text()) if path is not None and path.exists() else None
        if result is None or not run.is_of(result):
            result = run.result()
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(result, indent=1) + "\n")
        results.append(result)
        print(summary([result])[0], flush=True)
    print("\n".join(summary(results)))


if __name__ == "__main__":
    main()
