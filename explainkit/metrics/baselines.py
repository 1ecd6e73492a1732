"""Rows that explain nothing, and rows that know the truth: without them the numbers mislead.

Each function turns an `EvalContext` into an `ExplainerOutput`; one that its data do not allow raises an
`InputError`, which is then the reason in every cell of its row. That such baselines compete: Adebayo et al.,
Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv:1810.03292.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.errors import InputError
from explainkit.metrics.context import EvalContext, ExplainerOutput
from explainkit.metrics.results import AREA, ORACLE, PRIOR
from explainkit.protocols import Observable

_FIXED_PIXEL_IMAGES = 500
"""Images of the other split that the best fixed pixel is chosen on."""


def random(context: EvalContext) -> ExplainerOutput:
    """Noise in [0, 1): nothing is known of places, but a larger part collects more of it."""
    generator = torch.Generator().manual_seed(context.seed)
    count, _, *size = context.images.shape
    return _row(context, "random", torch.rand(count, *size, generator=generator))


def signed_noise(context: EvalContext) -> ExplainerOutput:
    """Noise as often below zero as above: chance for maps with a sign, of which size collects nothing."""
    generator = torch.Generator().manual_seed(context.seed)
    count, _, *size = context.images.shape
    return _row(context, "signed noise", torch.randn(count, *size, generator=generator))


def center(context: EvalContext) -> ExplainerOutput:
    """A Gaussian at the center of the image, its deviation a fifth of the side."""
    count, _, height, width = context.images.shape
    rows, columns = (torch.linspace(-1, 1, side).square() for side in (height, width))
    gaussian = torch.exp(-(rows[:, None] + columns) / (2 * 0.4**2))
    return _row(context, "center", gaussian.expand(count, -1, -1))


def fixed_pixel(context: EvalContext) -> ExplainerOutput:
    """The one pixel that lies on a part most often in another split; all else is zero."""
    split = "validation" if context.split != "validation" else "train"
    other = context.dataset.split(split)
    if other is context.dataset.split(context.split) or not len(other):
        raise InputError(f"There are no other images of {context.dataset.name} to choose a pixel on.")
    masks = other.batch(torch.arange(min(len(other), _FIXED_PIXEL_IMAGES))).masks
    if masks is None:
        raise InputError(f"{context.dataset.name} has no part masks to choose a pixel by.")
    frequency = masks.any(1).double().mean(0)
    pixel = torch.zeros_like(frequency)
    pixel.view(-1)[frequency.argmax()] = 1
    return _row(context, "fixed pixel", pixel.expand(len(context.ids), -1, -1))


def area(context: EvalContext) -> ExplainerOutput:
    """One for every pixel of a part: its score is how large it is."""
    return _row(context, AREA, context.masks.any(1))


def edges(context: EvalContext) -> ExplainerOutput:
    """How fast the brightness changes, by Sobel's filters."""
    return _row(context, "edges", brightness_slopes(context.images))


def class_average(context: EvalContext) -> ExplainerOutput:
    """What each part is worth in the mean over the *other* images of the class; it never sees the image.

    Of all other images, where the class has no other. That it is better than many methods where importance
    hardly varies within a class is why faithfulness is measured on mixed scenes.
    """
    return ExplainerOutput(
        context=context,
        name=PRIOR,
        trivial=True,
        given_part_scores=mean_of_others(context.truth.shapley, context.targets),
        not_applicable={
            "within-class-correlation": "0 by definition: the mean of a part in a class is what this takes "
            "off."
        },
    )


def randomized_weights(context: EvalContext) -> ExplainerOutput:
    """The explainer itself, once the network's weights are shuffled within every tensor.

    Adebayo et al., NeurIPS 2018, arXiv:1810.03292: the model randomization test.
    """
    with shuffled(context.explainer.network, context.seed):
        explanations = context.explainer.explain(context.images, context.targets)
    return _row(context, "randomized weights", explanations.saliency())


def ideal_observer(context: EvalContext) -> ExplainerOutput:
    """Where the object has what the target's class has: it knows the scene, not the network."""
    split = context.dataset.split(context.split)
    if not isinstance(split, Observable):
        raise InputError(f"There is no ideal observer of {context.dataset.name}.")
    explanations = split.ideal_observer(context.ids).explain(context.batch, context.targets)
    return _row(context, "ideal observer", explanations.saliency())


def oracle(context: EvalContext) -> ExplainerOutput:
    """The Shapley values themselves, each spread evenly over what is seen of its part.

    Not quite perfect, since its map is read like any other: parts that touch share their margins.
    """
    masks = context.masks.double()
    worth = context.truth.shapley / masks.sum((2, 3)).clamp(min=1)
    return _row(context, ORACLE, torch.einsum("np,nphw->nhw", worth, masks))


TRIVIAL: Mapping[str, Callable[[EvalContext], ExplainerOutput]] = {
    ORACLE: oracle,
    "ideal observer": ideal_observer,
    PRIOR: class_average,
    AREA: area,
    "edges": edges,
    "center": center,
    "fixed pixel": fixed_pixel,
    "random": random,
    "signed noise": signed_noise,
    "randomized weights": randomized_weights,
}
"""Every trivial row by its name, in the order of the table."""


def mean_of_others(scores: Tensor, targets: Tensor) -> Tensor:
    """For each image the mean of `scores` (N, P) over the others of its target, or else over all others."""
    same_class = (targets[:, None] == targets).to(scores).fill_diagonal_(0)
    is_alone = same_class.sum(1) == 0
    same_class[is_alone] = 1 - torch.eye(len(targets), device=scores.device, dtype=scores.dtype)[is_alone]
    return same_class @ scores / same_class.sum(1, keepdim=True).clamp(min=1)


def brightness_slopes(images: Tensor) -> Tensor:
    """The size of Sobel's gradient of the mean color of images (N, 3, H, W): (N, H, W)."""
    sobel = images.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    gray = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(gray, torch.stack([sobel, sobel.T])[:, None]).square().sum(1).sqrt()


@contextmanager
def shuffled(network: nn.Module, seed: int) -> Iterator[None]:
    """`network` with the weights of each tensor in another order; put back at the end.

    Raises
    ------
    InputError
        For a network without weights.
    """
    weights = list(network.parameters())
    if not weights:
        raise InputError(f"{type(network).__name__} has no weights to shuffle.")
    before = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for weight, values in zip(weights, before, strict=True):
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(values.flatten()[order].view(values.shape))
        yield
    finally:
        with torch.no_grad():
            for weight, values in zip(weights, before, strict=True):
                weight.copy_(values)


def _row(context: EvalContext, name: str, saliency: Tensor) -> ExplainerOutput:
    return ExplainerOutput(context=context, name=name, trivial=True, saliency_map=saliency.to(context.images))
