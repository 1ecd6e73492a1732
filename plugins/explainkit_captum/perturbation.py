"""Methods that cover parts of an image, and see what becomes of the logit."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attrs import define, field
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError
from explainkit_captum.baseline import Baseline, baseline_for, baseline_setting
from explainkit_captum.explainer import CaptumExplainer, Question, positive
from explainkit_captum.patches import Patches, divide_by_patch, patch_mask, patches_setting
from explainkit_captum.seeding import seeded

Sides = int | tuple[int, int] | None
"""Height and width in pixels, one number for both, or ``None`` for what fits the image."""


@define(eq=False, kw_only=True)
class Occlusion(CaptumExplainer):
    """How far the logit falls where a window is covered, averaged over the windows that cover a pixel.

    A window covers all colors, and each color of a pixel gets the whole fall: their sum is three times it,
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
        additivity="none",
        unit_kind="pixels",
    )

    needs_gradients: ClassVar[bool] = False
    needs_full_precision: ClassVar[bool] = True

    window: Sides = None
    stride: Sides = None
    baseline: Baseline = 0.0

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """A forward pass a window, and one more; as many windows at once as `batch_size` allows."""
        window, stride = steps(images.shape[-2:], self.window, self.stride)
        return attr.Occlusion(network).attribute(
            images.detach(),
            sliding_window_shapes=(images.shape[1], *window),
            strides=(images.shape[1], *stride),
            baselines=baseline_for(images, self.baseline, self.input_spec),
            perturbations_per_eval=max(1, self.batch_size // len(images)),
            **question,
        )

    def settings(self) -> dict[str, Any]:
        """With the baseline in words where it is an image."""
        return {**super().settings(), "baseline": baseline_setting(self.baseline)}


@define(eq=False, kw_only=True)
class PatchMethod(CaptumExplainer):
    """A method that asks patches rather than pixels; each pixel gets an even share of its patch's evidence.

    Parameters
    ----------
    patches : int, (int, int), "superpixels" or Tensor (H, W)
        Rows and columns of a grid; or regions that follow the image; or a number for every pixel, which tells
        its patch. Captum has no default but single numbers of single pixels.
    baseline : float, sequence of three floats, or Tensor (3, H, W)
        What patches are filled with. Black unless given, as in Captum.
    """

    needs_gradients: ClassVar[bool] = False
    needs_full_precision: ClassVar[bool] = True

    patches: Patches = 8
    baseline: Baseline = 0.0

    def settings(self) -> dict[str, Any]:
        """With baseline and patches in words where they are images."""
        described = {
            "baseline": baseline_setting(self.baseline),
            "patches": patches_setting(self.patches),
        }
        return {**super().settings(), **described}


@define(eq=False, kw_only=True)
class FeatureAblation(PatchMethod):
    """How far the logit falls where one patch is covered.

    Patches cover each other's loss, and bring each other about: the falls do not add up to the logit.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Feature ablation",
        citation="Zeiler, Fergus; ECCV 2014; arXiv:1311.2901, with patches that do not overlap",
        additivity="none",
        unit_kind="pixels",
    )

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """A forward pass a patch, and one more."""
        mask = patch_mask(images, self.patches)
        attribution = attr.FeatureAblation(network).attribute(
            images.detach(),
            baselines=baseline_for(images, self.baseline, self.input_spec),
            feature_mask=mask,
            perturbations_per_eval=max(1, self.batch_size // len(images)),
            **question,
        )
        return divide_by_patch(attribution, mask)


@define(eq=False, kw_only=True)
class ShapleyValueSampling(PatchMethod):
    """What a patch adds when it is uncovered, in the mean over random orders of patches.

    It adds up to the logit less that of the baseline in every order, and so in the mean.

    Parameters
    ----------
    n_samples : int
        Orders; each takes a forward pass a patch.
    seed : int
        Of the orders, which are the same for all images.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Shapley value sampling",
        citation="Castro, Gómez, Tejada; Computers & Operations Research 36 (5), 2009",
        additivity="approximate",
        unit_kind="pixels",
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": {}, "tiny": {"n_samples": 4, "patches": 3}}

    n_samples: int = field(default=25, validator=positive)
    seed: int = 0

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`n_samples` times a forward pass a patch, and one more."""
        mask = patch_mask(images, self.patches)
        with seeded(self.seed):
            attribution = attr.ShapleyValueSampling(network).attribute(
                images.detach(),
                baselines=baseline_for(images, self.baseline, self.input_spec),
                feature_mask=mask,
                n_samples=self.n_samples,
                perturbations_per_eval=max(1, self.batch_size // len(images)),
                **question,
            )
        return divide_by_patch(attribution, mask)

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The logit, or margin, of the baseline."""
        return self.mean_logits(baseline_for(images, self.baseline, self.input_spec), targets, foils)


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
