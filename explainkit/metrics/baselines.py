"""Rows that explain nothing, and rows that know the truth: without them the numbers mislead.

Each maker turns an exam into an answer; one that its data do not allow raises an `InputError`, which is then
the reason in every cell of its row. That such baselines compete: Adebayo et al., Sanity Checks for Saliency
Maps, NeurIPS 2018, arXiv:1810.03292.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explainkit.data.aviary.dataset import Aviary
from explainkit.errors import InputError
from explainkit.metrics.exam import Answer, Exam
from explainkit.metrics.observer import IdealObserver, Observer

ORACLE = "oracle"
AREA = "area"
PRIOR = "class average"

_LOOKED_AT = 500
"""Images of the other split that the best fixed pixel is chosen on."""


def random(exam: Exam) -> Answer:
    """Noise in [0, 1): nothing is known of places, but a larger part collects more of it."""
    generator = torch.Generator().manual_seed(exam.seed)
    count, _, *size = exam.images.shape
    return _row(exam, "random", torch.rand(count, *size, generator=generator))


def signed_noise(exam: Exam) -> Answer:
    """Noise as often below zero as above: chance for maps with a sign, of which size collects nothing."""
    generator = torch.Generator().manual_seed(exam.seed)
    count, _, *size = exam.images.shape
    return _row(exam, "signed noise", torch.randn(count, *size, generator=generator))


def centre(exam: Exam) -> Answer:
    """A Gaussian at the centre of the image, its deviation a fifth of the side."""
    count, _, height, width = exam.images.shape
    rows, columns = (torch.linspace(-1, 1, side).square() for side in (height, width))
    gaussian = torch.exp(-(rows[:, None] + columns) / (2 * 0.4**2))
    return _row(exam, "centre", gaussian.expand(count, -1, -1))


def fixed_pixel(exam: Exam) -> Answer:
    """The one pixel that lies on a part most often in another split; all else is zero."""
    split = "validation" if exam.split != "validation" else "train"
    other = exam.data.split(split)
    if other is exam.data.split(exam.split) or not len(other):
        raise InputError(f"There are no other images of {exam.data.name} to choose a pixel on.")
    masks = other.batch(torch.arange(min(len(other), _LOOKED_AT))).masks
    if masks is None:
        raise InputError(f"{exam.data.name} has no part masks to choose a pixel by.")
    often = masks.any(1).double().mean(0)
    pixel = torch.zeros_like(often)
    pixel.view(-1)[often.argmax()] = 1
    return _row(exam, "fixed pixel", pixel.expand(len(exam.ids), -1, -1))


def area(exam: Exam) -> Answer:
    """One for every pixel of a part: its score is how large it is."""
    return _row(exam, AREA, exam.masks.any(1))


def edges(exam: Exam) -> Answer:
    """How fast the brightness changes, by Sobel's filters."""
    return _row(exam, "edges", brightness_slopes(exam.images))


def class_average(exam: Exam) -> Answer:
    """What each part is worth in the mean over the *other* images of the class; it never sees the image.

    Of all other images, where the class has no other. That it is better than many methods where importance
    hardly varies within a class is why faithfulness is measured on mixed scenes.
    """
    return Answer(
        exam=exam, name=PRIOR, trivial=True,
        given_part_scores=mean_of_others(exam.truth.shapley, exam.targets),
        silent={"residual-r": "0 by definition: the mean of a part in a class is what this takes off."},
    )  # fmt: skip


def randomised_weights(exam: Exam) -> Answer:
    """The explainer itself, once the network's weights are shuffled within every tensor.

    Adebayo et al., NeurIPS 2018, arXiv:1810.03292: the model randomisation test.
    """
    with shuffled(exam.explainer.network, exam.seed):
        told = exam.explainer.explain(exam.images, exam.targets)
    return _row(exam, "randomised weights", told.saliency())


def ideal_observer(exam: Exam) -> Answer:
    """Where the bird has what the target's species has: it knows the scene, not the network."""
    if not isinstance(exam.data, Aviary):
        raise InputError(f"There is no ideal observer of {exam.data.name}.")
    knowing = Observer.of(exam.data)
    knowing.remember(exam.data.scenes(exam.split, exam.ids.numpy()))
    told = IdealObserver.bind(knowing, classes=exam.data.classes).explain(exam.batch, exam.targets)
    return _row(exam, "ideal observer", told.saliency())


def oracle(exam: Exam) -> Answer:
    """The Shapley values themselves, each spread evenly over what is seen of its part.

    Not quite perfect, since its map is read like any other: parts that touch share their margins.
    """
    masks = exam.masks.double()
    worth = exam.truth.shapley / masks.sum((2, 3)).clamp(min=1)
    return _row(exam, ORACLE, torch.einsum("np,nphw->nhw", worth, masks))


TRIVIAL: Mapping[str, Callable[[Exam], Answer]] = {
    ORACLE: oracle,
    "ideal observer": ideal_observer,
    PRIOR: class_average,
    AREA: area,
    "edges": edges,
    "centre": centre,
    "fixed pixel": fixed_pixel,
    "random": random,
    "signed noise": signed_noise,
    "randomised weights": randomised_weights,
}
"""Every trivial row by its name, in the order of the table."""


def mean_of_others(scores: Tensor, targets: Tensor) -> Tensor:
    """For each image the mean of `scores` (N, P) over the others of its target, or else over all others."""
    together = (targets[:, None] == targets).to(scores).fill_diagonal_(0)
    alone = together.sum(1) == 0
    together[alone] = 1 - torch.eye(len(targets), device=scores.device, dtype=scores.dtype)[alone]
    return together @ scores / together.sum(1, keepdim=True).clamp(min=1)


def brightness_slopes(images: Tensor) -> Tensor:
    """The size of Sobel's gradient of the mean colour of images (N, 3, H, W): (N, H, W)."""
    sobel = images.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, torch.stack([sobel, sobel.T])[:, None]).square().sum(1).sqrt()


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


def _row(exam: Exam, name: str, saliency: Tensor) -> Answer:
    return Answer(exam=exam, name=name, trivial=True, saliency_map=saliency.to(exam.images))
