"""Methods that fit a linear model to what the network says of images with patches covered."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import attrs
import torch
from attrs import define, field
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit.errors import InputError, MissingPackageError
from explainkit_captum.baseline import baseline_for
from explainkit_captum.explainer import Question, positive, question_batches
from explainkit_captum.patches import divide_by_patch, patch_mask
from explainkit_captum.perturbation import PatchMethod
from explainkit_captum.seeding import seeded

Distance = Literal["cosine", "euclidean"]


def _is_distance(_: object, __: "attrs.Attribute[str]", value: str) -> None:
    if value not in get_args(Distance):
        raise InputError(f"Expected distance to be one of {get_args(Distance)}; got {value!r}.")


@define(eq=False, kw_only=True)
class _Surrogate(PatchMethod):
    """A linear model of the logit, fitted anew for each image on patches that are there or not.

    Captum goes through the images one by one; each starts from the same `seed`, so that what is said of one
    does not depend on the others.

    Parameters
    ----------
    n_samples : int
        Images with patches covered that it is fitted on. Captum's 25 cannot tell 64 patches apart.
    seed : int
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "tiny": {"n_samples": 24, "patches": 3},
    }

    n_samples: int = field(default=512, validator=positive)
    seed: int = 0

    def attribute(self, network: nn.Module, images: Tensor, question: Question) -> Tensor:
        """`n_samples` forward passes an image, as many at once as `batch_size` allows."""
        attributions = []
        for image, part in question_batches(images.detach(), question, 1):
            mask = patch_mask(image, self.patches)
            with seeded(self.seed):
                values = self.fitted(network).attribute(
                    image,
                    baselines=baseline_for(image, self.baseline, self.input_spec),
                    feature_mask=mask,
                    n_samples=self.n_samples,
                    perturbations_per_eval=min(self.batch_size, self.n_samples),
                    **part,
                )
            attributions.append(divide_by_patch(values.to(image), mask))
        return torch.cat(attributions)

    def fitted(self, network: nn.Module) -> Any:
        """Captum's method about `network`."""
        raise NotImplementedError

    def _prepare(self, network: nn.Module, image: Tensor) -> None:
        super()._prepare(network, image)
        try:
            import sklearn  # noqa: F401
        except ImportError as error:
            raise MissingPackageError(
                f"{self.card.title} needs scikit-learn: pip install 'explainkit-sdk[surrogates]'."
            ) from error


@define(eq=False, kw_only=True)
class KernelShap(_Surrogate):
    """Shapley values of the patches, as the weights of a linear model.

    The images with all patches and with none count so much that it adds up to the logit less that of the
    baseline, nearly.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="Kernel SHAP",
        citation="Lundberg, Lee; NeurIPS 2017; arXiv:1705.07874",
        additivity="approximate",
        unit_kind="pixels",
    )

    def fitted(self, network: nn.Module) -> Any:
        """Least squares."""
        return attr.KernelShap(network)

    def base_of(self, images: Tensor, targets: Tensor, foils: Tensor | None) -> Tensor:
        """The logit, or margin, of the baseline."""
        return self.mean_logits(baseline_for(images, self.baseline, self.input_spec), targets, foils)


@define(eq=False, kw_only=True)
class Lime(_Surrogate):
    """The weights of a sparse linear model that holds near the image.

    Parameters
    ----------
    distance : {"cosine", "euclidean"}
    kernel_width : float
        An image at this distance counts 0.6. By Euclidean distance images are some tens apart, so that a
        width of 1 leaves no weight to any.
    alpha : float
        Of the lasso; Captum's default.
    """

    card: ClassVar[ek.Card] = ek.Card(
        title="LIME",
        citation="Ribeiro, Singh, Guestrin; KDD 2016; arXiv:1602.04938",
        additivity="none",
        unit_kind="pixels",
    )

    distance: Distance = field(default="cosine", validator=_is_distance)
    kernel_width: float = 1.0
    alpha: float = 0.01

    def fitted(self, network: nn.Module) -> Any:
        """The lasso, weighted by nearness."""
        from captum._utils.models.linear_model import SkLearnLasso
        from captum.attr._core.lime import get_exp_kernel_similarity_function

        return attr.Lime(
            network,
            interpretable_model=SkLearnLasso(alpha=self.alpha),
            similarity_func=get_exp_kernel_similarity_function(self.distance, self.kernel_width),
        )
