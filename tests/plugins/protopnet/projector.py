"""Project one fixed ProtoPNet, alone or under torchrun: ``projector.py OUT``."""

import os
import sys

import torch
from safetensors.torch import save_file
from torch import distributed

import explainkit as ek
from explainkit.data.types import ArraySplit, ImageDataset
from explainkit.testing import tiny_dataset
from explainkit_protopnet.projection import project


def main(out):
    torch.set_num_threads(1)
    rank = os.environ.get("RANK")
    if rank is not None:
        distributed.init_process_group("gloo")
    tiny = tiny_dataset()
    ids = torch.arange(48).repeat(2)  # every image has a double, so that every nearest patch is a tie
    train = ArraySplit(images=tiny.train.images[ids], labels=tiny.train.labels[ids])
    dataset = ImageDataset(
        name="tiny", classes=tiny.classes, size=(32, 32), splits={**tiny.splits, "train": train}
    )
    torch.manual_seed(0)
    network = ek.explainer("protopnet", preset="tiny").build(ek.Task(classes=3)).eval()
    with torch.no_grad():
        project(network, dataset, batch_size=12)  # doubles meet the same arithmetic: batches of one size
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()}, f"{out}.{rank or 0}"
    )
    if rank is not None:
        distributed.barrier()
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
