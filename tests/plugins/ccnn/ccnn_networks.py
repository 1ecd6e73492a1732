"""Small CCNN networks, fitted explainers, and captions."""

import warnings
from functools import cache

import torch
from attrs import evolve
from plugin_cases import draw_norm_statistics, uniform

import explainkit as ek
from explainkit.data.captions.vectors import phrase_vectors
from explainkit.data.types import ArraySplit, Caption
from explainkit.testing import tiny_dataset
from explainkit_ccnn.model import CCNNNetwork

PHRASES = ("red crest", "red tail", "blue crest", "long tail", "gray wing")
OF_CLASSES = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)


def small_network(size=(32, 32), seed=0, of_classes=OF_CLASSES, **settings):
    torch.manual_seed(seed)
    cells = size[0] // 4 * (size[1] // 4)
    network = CCNNNetwork(ek.backbone("tiny"), of_classes, phrase_vectors(PHRASES), cells, 4, **settings)
    draw_norm_statistics(network)
    return network.eval()


def fit_quietly(explainer, dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return explainer.fit(dataset, device="cpu", progress=False)


def tiny_explainer(**settings):
    return ek.explainer("ccnn", preset="tiny", **settings)


@cache
def fitted_explainer():
    return fit_quietly(tiny_explainer(), tiny_dataset())


def with_captions(dataset, split, texts):
    """`dataset` with other captions of a split; ``None`` for none."""
    images, labels = dataset.splits[split].images, dataset.splits[split].labels
    captions = None if texts is None else tuple(Caption(text=text) for text in texts)
    captioned = ArraySplit(images=images, labels=labels, captions=captions)
    return evolve(dataset, splits={**dataset.splits, split: captioned})


def captions_of(dataset, split="train"):
    return [caption.text for batch in dataset.batches(split, 50) for caption in batch.captions]


def random_mentions(images, phrases, share=0.4, seed=0):
    """Which phrases the captions of images mention, (N, K)."""
    mentioned = uniform(images, phrases, seed=seed) < share
    mentioned[0] = False  # an image without phrases
    return mentioned
