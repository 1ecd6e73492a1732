"""Any method, in the mean over an image's noisy neighbors."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Literal, get_args

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError
from explainkit.explainers.inputs import stated_spec
from explainkit_captum.explainer import CaptumExplainer, Question, positive, select_question
from explainkit_captum.gradients import image_sample_pairs
from explainkit_captum.logits import unwrap
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
        Of the noise, as a share of the range of an image. Captum's default of 1 is all of it; the paper has
        0.1 … 0.2.
    seed : int
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="SmoothGrad",
        citation="Smilkov, Thorat, Kim, Viégas, Wattenberg; 2017; arXiv:1706.03825",
        additivity="none",
        unit_kind="pixels",
    )

    hooks_network: ClassVar[bool] = True

    method: str = "saliency"
    options: Mapping[str, Any] = field(factory=dict)
    kind: Kind = field(default="smoothgrad", validator=_is_kind)
    n_samples: int = field(default=5, validator=positive)
    stdev: float = 0.15
    seed: int = 0
    _inner: CaptumExplainer | None = field(default=None, init=False, repr=False)

    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take any classifier, as the method inside the noise does.

        Raises
        ------
        UnknownNameError
            For a method that is not offered, or a setting that it does not have.
        """
        super().adopt_network(network, classes)
        if self.method == "noise-tunnel":
            raise InputError("Expected a method to put into noise; got noise-tunnel itself.")
        network, spec = unwrap(self.network), self.input_spec
        described = {"size": spec.size} if stated_spec(network) is not None else spec.arguments
        self._inner = ek.explainer(
            f"captum/{self.method}", network=network, classes=classes,
            decision=self.decision if self.classes else self._given_decision, **described, **self.options,
        )  # fmt: skip

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """What the method costs, `n_samples` times, as many images at once as `batch_size` allows."""
        inner = copy(self._inner_method)
        inner._network = self.network  # which may be a copy
        inner.batch_size = min(inner.batch_size, self.batch_size)
        shape = (self.n_samples, *images.shape[1:])
        with seeded(self.seed):
            stdev = self.stdev * self.input_spec.width
            noise = torch.normal(0, torch.full(shape, stdev, dtype=torch.float32, device=images.device))
        row, sample = image_sample_pairs(len(images), self.n_samples, images.device)
        total: Tensor | None = None
        squares: Tensor | None = None
        for rows, drawn in zip(row.split(self.batch_size), sample.split(self.batch_size), strict=True):
            noisy = (images.detach()[rows] + noise[drawn]).to(images)
            attribution = inner.attributed(network, noisy, select_question(question, rows))
            if total is None or squares is None:
                total = squares = attribution.new_zeros(len(images), *attribution.shape[1:])
            total = total.index_add(0, rows, attribution)
            squares = squares.index_add(0, rows, attribution.square())
        assert total is not None and squares is not None
        mean, mean_square = total / self.n_samples, squares / self.n_samples
        if self.kind == "smoothgrad":
            return mean
        return mean_square if self.kind == "smoothgrad_sq" else mean_square - mean.square()

    def _check_network(self, network: nn.Module, image: Tensor) -> None:
        """The method inside says what it needs."""

    @property
    def _inner_method(self) -> CaptumExplainer:
        if self._inner is None:
            raise ek.InputError("Expected a network: bind the method with network=….")
        return self._inner

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        self._inner_method._prepare(network, image)
