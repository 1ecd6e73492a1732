"""Project one fixed ProtoPNet, alone or under torchrun: ``projector.py OUT``."""

import os
import sys

import torch
from safetensors.torch import save_file
from torch import distributed

import explainkit as ek
from explainkit.data.images import ArraySplit, ImageData
from explainkit.testing import tiny_data
from explainkit_protopnet.projection import project


def main(out):
    torch.set_num_threads(1)
    rank = os.environ.get("RANK")
    if rank is not None:
        distributed.init_process_group("gloo")
    known = tiny_data()
    twice = torch.arange(48).repeat(2)  # every image has a double, so that every nearest patch is a tie
    train = ArraySplit(images=known.train.images[twice], labels=known.train.labels[twice])
    data = ImageData(
        name="tiny", classes=known.classes, size=(32, 32), splits={**known.splits, "train": train}
    )
    torch.manual_seed(0)
    network = ek.explainer("protopnet", preset="tiny").build(ek.Task(classes=3)).eval()
    with torch.no_grad():
        project(network, data, batch_size=10)
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()}, f"{out}.{rank or 0}"
    )
    if rank is not None:
        distributed.barrier()
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
