"""Methods that explain a network that is trained already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from attrs import define
from torch import nn

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.identity import count_classes
from explainkit.explainers.inputs import normalize_inside
from explainkit.explainers.interface import BATCH_SIZE, Explainer
from explainkit.explanations.counterfactuals import Counterfactuals, Norm
from explainkit.protocols import Images, Targets


@define(eq=False, kw_only=True)
class PostHocExplainer(Explainer):
    """A method that explains a network that is trained already."""

    hooks_network: ClassVar[bool] = True

    def adopt_network(self, network: nn.Module, classes: Sequence[str] | None) -> None:
        """Take any network, and normalize its images as `input_spec` says."""
        self._network = normalize_inside(network, self.input_spec)
        self.set_classes(count_classes(network, classes), classes)

    def counterfactual(
        self,
        images: Images,
        targets: Targets | None = None,
        *,
        distractors: ImageDataset | Batch | None = None,
        norm: Norm = "l0",
        margin: float = 0.01,
        prove: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> Counterfactuals:
        """Refused: there are no scores that the decision is made by.

        Raises
        ------
        InputError
        """
        raise InputError(
            f"Expected an architecture that explains itself; {self.card.title} attributes a decision "
            "after it was made: there are no scores that the decision is made by, and so none to change."
        )
