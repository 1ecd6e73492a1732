"""A run for one process or several, under torchrun: ``learner.py OUT``."""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from explainkit.data.transforms.augmentation import FlipShiftBrightness
from explainkit.data.types import ImageDataset
from explainkit.networks.backbones import tiny
from explainkit.testing import tiny_dataset
from explainkit.training import Phase, Trainer


class Learner(nn.Module):
    """Convolutions that learn between batch norms that do not."""

    def __init__(self):
        super().__init__()
        self.backbone = tiny()
        self.head = nn.Linear(32, 3)

    def forward(self, images):
        return self.head(self.backbone(images).mean((2, 3)))


def cross_entropy(network, batch):
    return {"cross_entropy": F.cross_entropy(network(batch.images), batch.labels)}


def main(out):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tiny_ones = tiny_dataset()
    dataset = ImageDataset(
        name="tiny",
        classes=tiny_ones.classes,
        size=(32, 32),
        splits=tiny_ones.splits,
        augment=FlipShiftBrightness(),
    )
    network = Learner()
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    plan = [
        Phase(
            "all", 34, cross_entropy, dict.fromkeys([*convolutions, "head"], 1e-2), optimizer="sgd",
            optimizer_kwargs={"momentum": 0.9}, batch_size=16, precision="64-true", grad_clip_norm=1.0,
        )
    ]  # fmt: skip
    trainer = Trainer(device="cpu", progress=False)
    trainer.run(network, dataset, plan)
    losses = torch.tensor(
        [[e.train_losses["cross_entropy"], e.val_accuracy] for e in trainer.history], dtype=torch.float64
    )
    save_file({**{k: v.contiguous() for k, v in network.state_dict().items()}, "losses": losses}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]).with_suffix(f".{os.environ.get('RANK', '0')}"))
