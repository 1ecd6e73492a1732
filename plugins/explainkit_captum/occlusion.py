"""Occlusion: cover a window, and see how far the logit falls."""

from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import define
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError
from explainkit_captum.baseline import Baseline, baseline_for, told
from explainkit_captum.explainer import CaptumExplainer

Sides = int | tuple[int, int] | None
"""Height and width in pixels, one number for both, or ``None`` for what fits the image."""


@define(eq=False, kw_only=True)
class Occlusion(CaptumExplainer):
    """How far the logit falls where a window is covered, averaged over the windows that cover a pixel.

    A window covers all colours, and each colour of a pixel gets the whole fall: their sum is three times it,
    as when Captum's channels are added up. Falls of different windows do not add up to the logit.

    Parameters
    ----------
    window : int, (int, int) or None
        Of pixels; an eighth of each side of the image unless given. Captum has no default.
    stride : int, (int, int) or None
        From window to window; half of one unless given, so that inner pixels are covered four times.
    baseline : float, sequence of three floats, or Tensor (3, H, W)
        What windows are filled with. Black unless given, as in Captum.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Occlusion",
        citation="Zeiler, Fergus; ECCV 2014; arXiv:1311.2901",
        claim="none",
        speaks="pixels",
    )

    window: Sides = None
    stride: Sides = None
    baseline: Baseline = 0.0

    def attribute(self, network: nn.Module, images: Tensor, question: dict[str, Any]) -> Tensor:
        """A forward pass a window, and one more; as many windows at once as `max_batch` allows."""
        window, stride = steps(images.shape[-2:], self.window, self.stride)
        return attr.Occlusion(network).attribute(
            images.detach(),
            sliding_window_shapes=(3, *window),
            strides=(3, *stride),
            baselines=baseline_for(images, self.baseline),
            perturbations_per_eval=max(1, self.max_batch // len(images)),
            **question,
        )

    def settings(self) -> dict[str, Any]:
        """With the baseline in words where it is an image."""
        return {**super().settings(), "baseline": told(self.baseline)}


def steps(size: Sequence[int], window: Sides, stride: Sides) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and stride in pixels for images of `size`.

    Raises
    ------
    InputError
        For a window larger than the image, or a stride that leaves pixels uncovered.
    """
    height, width = _pair(window, (max(1, size[0] // 8), max(1, size[1] // 8)))
    down, right = _pair(stride, (max(1, height // 2), max(1, width // 2)))
    if not (1 <= height <= size[0] and 1 <= width <= size[1]):
        raise InputError(f"Expected a window within the image, {tuple(size)}; got {(height, width)}.")
    if not (1 <= down <= height and 1 <= right <= width):
        raise InputError(f"Expected a stride within the window, {(height, width)}; got {(down, right)}.")
    return (height, width), (down, right)


def _pair(sides: Sides, fitting: tuple[int, int]) -> tuple[int, int]:
    if sides is None:
        return fitting
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])
