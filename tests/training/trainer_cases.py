"""A small network, its data and its runs, for the tests of training."""

import torch
from torch import nn
from torch.nn import functional as F

from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.training import Phase, Trainer


class Net(nn.Module):
    """A backbone, another whose name begins alike, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
        self.backbone2 = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.backbone2(self.backbone(images).mean((2, 3))))


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def dataset(count=20, augment=None):
    labels = torch.arange(count) % 2
    images = torch.randint(0, 90, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images[labels == 1, 0] += 160
    split = ArraySplit(images=images.byte(), labels=labels)
    return ImageDataset(
        name="colors",
        classes=("blue", "red"),
        size=(8, 8),
        splits={"train": split, "validation": split, "test": split},
        augment=augment,
    )


def loss(network, batch, step):
    return {"entropy": F.cross_entropy(network(batch.images), batch.labels)}


def phase(name="all", epochs=1, loss=loss, lr=None, **settings):
    return Phase(name, epochs, loss, {"": 1e-2} if lr is None else lr, **{"batch_size": 5} | settings)


def run(*plan, network=None, of=None, **settings):
    network = net() if network is None else network
    trainer = Trainer(device="cpu", progress=False, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout draws from the caller's state
        trainer.run(network, of or dataset(), plan)
    return network, trainer


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def learning(network):
    return [name for name, value in network.named_parameters() if value.requires_grad]
