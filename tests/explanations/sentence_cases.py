"""The sentences of an image and of a class whose units contribute given numbers."""

import torch

from explainkit.explanations.batch import Explanations
from explainkit.explanations.class_examples import Examples
from explainkit.explanations.class_level import ClassExplanations
from explainkit.explanations.phrasing import Phrasing
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.units import Units

CLASSES = ("Cardinal", "Jay", "Wren")
NAMES = ("the red crest", "the short beak", "the gray tail", "the wing", "the eye")
DEFAULT = Phrasing()
PROVENANCE = Provenance(explainer="made", created="")


def prototypes(count, phrasing=DEFAULT):
    """The units of `NAMES`, then others numbered."""
    names = [*NAMES[:count], *(f"prototype {unit}" for unit in range(len(NAMES), count))]
    return Units(kind="prototype", names=names, pooling="none", phrasing=phrasing)


def image_sentence(contributions, **fields):
    """The sentence of one image with these contributions."""
    count = len(contributions)
    explanations = Explanations(
        logits=torch.tensor([[3.0, 1.0, 0.0]]),
        targets=torch.tensor([0]),
        base=torch.zeros(1),
        scores=torch.ones(1, count),
        weights=torch.tensor([contributions], dtype=torch.float64),
        units=prototypes(count),
        classes=CLASSES,
        images=torch.zeros(1, 3, 4, 4),
        additivity="none",
        provenance=PROVENANCE,
        **fields,
    )
    return explanations[0].sentence()


def class_sentence(contributions, sign_agreement=None, images=1000, phrasing=DEFAULT):
    """The sentence of a class of `images` images with these mean contributions."""
    count = len(contributions)
    numbers = torch.tensor([contributions], dtype=torch.float64)
    agreement = torch.ones(1, count) if sign_agreement is None else torch.tensor([sign_agreement])
    none = torch.zeros(1, 0, count, dtype=torch.long)
    class_explanations = ClassExplanations(
        classes=CLASSES,
        index=torch.tensor([0]),
        counts=torch.tensor([images]),
        logits=torch.tensor([[numbers.sum(), 0, 0]]),
        base=torch.zeros(1),
        scores=torch.ones(1, count),
        contributions=numbers,
        std=torch.zeros(1, count),
        quantiles=numbers.expand(3, 1, count),
        sign_agreement=agreement,
        decisive_rate=None,
        confusion=torch.tensor([[images, 0, 0]]),
        linear_r2=None,
        contributions_by_class=None,
        bases=None,
        examples=Examples(
            ids=none, cells=none, boxes=none[..., None].expand(-1, -1, -1, 4), columns=1, split="train",
            pictures={},
        ),
        units=prototypes(count, phrasing),
        additivity="exact",
        provenance=PROVENANCE,
    )  # fmt: skip
    return class_explanations[0].sentence()
