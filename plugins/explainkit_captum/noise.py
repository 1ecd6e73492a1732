"""Any method, in the mean over an image's noisy neighbours."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Literal, Self, get_args

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError
from explainkit_captum.explainer import CaptumExplainer, Question, positive, question_of
from explainkit_captum.gradients import grid_of
from explainkit_captum.seeding import seeded

Kind = Literal["smoothgrad", "smoothgrad_sq", "vargrad"]
"""The mean of the attributions, of their squares, or their variance."""


def _is_kind(_: object, __: "attrs.Attribute[str]", value: str) -> None:
    if value not in get_args(Kind):
        raise InputError(f"Expected kind to be one of {get_args(Kind)}; got {value!r}.")


@define(eq=False, kw_only=True)
class NoiseTunnel(CaptumExplainer):
    """What another method says of an image with noise on it, in the mean over many.

    All images meet the noise that Captum would draw from `seed` for an image alone, so that what is said of
    one does not depend on the others. The sum is about the noisy images, so none is claimed.

    Parameters
    ----------
    method : str
        Of ours, without "captum/": "saliency", "integrated-gradients" …
    options : mapping
        Settings of that method.
    kind : {"smoothgrad", "smoothgrad_sq", "vargrad"}
    n_samples : int
        Noisy images for each.
    stdev : float
        Of the noise. Captum's default of 1 is the whole range of an image; the paper has 0.1 … 0.2 of it.
    seed : int
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="SmoothGrad",
        citation="Smilkov, Thorat, Kim, Viégas, Wattenberg; 2017; arXiv:1706.03825",
        claim="none",
        speaks="pixels",
    )

    method: str = "saliency"
    options: Mapping[str, Any] = field(factory=dict)
    kind: Kind = field(default="smoothgrad", validator=_is_kind)
    n_samples: int = field(default=5, validator=positive)
    stdev: float = 0.15
    seed: int = 0
    _inner: CaptumExplainer | None = field(default=None, init=False, repr=False)

    @classmethod
    def bind(
        cls,
        network: nn.Module,
        *,
        classes: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        **settings: Any,
    ) -> Self:
        """The method inside noise, on any classifier.

        Parameters
        ----------
        network, classes, size
            As for any of Captum's methods.

        Raises
        ------
        UnknownNameError
            For a method that is not offered, or a setting that it does not have.
        """
        explainer = super().bind(network, classes=classes, size=size, **settings)
        if explainer.method == "noise-tunnel":
            raise InputError("Expected a method to put into noise; got noise-tunnel itself.")
        inner = ek.explainer(
            f"captum/{explainer.method}", network=network, classes=classes, size=size, **explainer.options
        )
        explainer._inner = inner
        return explainer

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """What the method costs, `n_samples` times, as many images at once as `max_batch` allows."""
        inner = copy(self._known)
        inner.max_batch = min(inner.max_batch, self.max_batch)
        with seeded(self.seed):
            spread = torch.full((self.n_samples, *images.shape[1:]), float(self.stdev), device=images.device)
            noise = torch.normal(0, spread)
        row, sample = grid_of(len(images), self.n_samples, images.device)
        total: Tensor | None = None
        squares: Tensor | None = None
        for rows, which in zip(row.split(self.max_batch), sample.split(self.max_batch), strict=True):
            noisy = (images.detach()[rows] + noise[which]).to(images)
            found = inner.attributed(network, noisy, question_of(question, rows))
            if total is None or squares is None:
                total = squares = found.new_zeros(len(images), *found.shape[1:])
            total = total.index_add(0, rows, found)
            squares = squares.index_add(0, rows, found.square())
        assert total is not None and squares is not None
        mean, mean_square = total / self.n_samples, squares / self.n_samples
        if self.kind == "smoothgrad":
            return mean
        return mean_square if self.kind == "smoothgrad_sq" else mean_square - mean.square()

    @property
    def _known(self) -> CaptumExplainer:
        if self._inner is None:
            raise ek.InputError("Expected a network: bind the method with network=….")
        return self._inner

    def _meet(self, image: Tensor) -> None:
        super()._meet(image)
        self._known._meet(image)
