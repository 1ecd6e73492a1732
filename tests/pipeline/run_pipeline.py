"""A run that a test kills: `run_pipeline.py MODEL FOLDER FATE`.

``part:n`` dies half-way through writing the n-th file, ``rename:n`` before it takes its name, ``batch:n`` in
the n-th batch.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from pipeline_cases import DamagedSplit

import explainkit as ek
from explainkit.explanations import serialization
from explainkit.pipeline.runs import Run

IMAGES = 50
SETTINGS = {"batch_size": 4, "images_per_file": 8, "top": 3, "sentences": True}


def make_source():
    return DamagedSplit(IMAGES, [3, 21, 22])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function, count, before=die):
    left = [count]

    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            before(*args)
            die()
        return function(*args, **kwargs)

    return call


def write_half(path, content):
    os.write(os.open(path, os.O_CREAT | os.O_WRONLY), content[: len(content) // 2])


def arm(fate):
    step, _, count = fate.partition(":")
    beforehand = 2  # units and manifest are written first
    if step == "part":
        Path.write_bytes = dying(Path.write_bytes, int(count) + beforehand, write_half)
    elif step == "rename":
        replace = dying(os.replace, int(count), lambda *_: None)
        serialization.os = type("os", (), {**vars(os), "replace": staticmethod(replace)})
    elif step == "batch":
        Run._ask = dying(Run._ask, int(count), lambda *_: None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, folder, fate = sys.argv[1:]
    arm(fate)
    ek.explain_dataset(ek.load(model), make_source(), folder, **SETTINGS)
