"""A run for one process or several, under torchrun: ``learner.py OUT``."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.networks.backbones import tiny
from explainkit.networks.normalization import fold_batch_norm
from explainkit.testing import tiny_dataset
from explainkit.training import Phase, Trainer


class Learner(nn.Module):
    """Convolutions; a batch norm beside them, whose statistics are nobody's input."""

    def __init__(self):
        super().__init__()
        self.backbone = fold_batch_norm(tiny())
        self.norm = nn.BatchNorm1d(32, affine=False)
        self.head = nn.Linear(32, 3)

    def features(self, images):
        features = self.backbone(images).mean((2, 3))
        self.norm(features.detach())
        return features

    def forward(self, images):
        return self.head(self.features(images))


def contrastive(network, batch, step):
    """Classification, and that images of one class are alike: over the pairs of the whole batch."""
    features = network.features(batch.images)
    every, labels = step.gather(F.normalize(features, dim=1)), step.gather(batch.labels)
    same = labels[:, None] == labels
    return {
        "cross_entropy": F.cross_entropy(network.head(features), batch.labels),
        "pairs": 0.1 * ((every @ every.T - same.to(every)) ** 2).mean(),
    }


def main(out):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    whole = tiny_dataset()
    few = ArraySplit(images=whole.train.images[:13], labels=whole.train.labels[:13])
    dataset = ImageDataset(
        name="tiny", classes=whole.classes, size=(32, 32), splits={**whole.splits, "train": few},
        augment=FlipShiftBrightness(),
    )  # fmt: skip
    network = Learner()
    plan = [  # 13 images are less than a batch: 7 for the one process, 6 for the other
        Phase(
            "all", 80, contrastive, {"backbone": 1e-2, "head": 1e-2}, optimizer="sgd",
            optimizer_kwargs={"momentum": 0.9}, batch_size=16, precision="64-true", grad_clip_norm=1.0,
        )
    ]  # fmt: skip
    trainer = Trainer(device="cpu", progress=False)
    trainer.run(network, dataset, plan)
    losses = torch.tensor(
        [[e.train_losses["cross_entropy"], e.train_losses["pairs"], e.val_accuracy] for e in trainer.history],
        dtype=torch.float64,
    )
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file({**state, "losses": losses}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]).with_suffix(f".{os.environ.get('RANK', '0')}"))
