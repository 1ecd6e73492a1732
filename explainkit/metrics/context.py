"""What the explainers of one network are evaluated on, and the output of one of them or of a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from attrs import evolve, field, frozen
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.spatial import bounding_boxes
from explainkit.metrics.ground_truth import PartTruth, Value, part_truth
from explainkit.protocols import Intervenable, Split


@frozen(eq=False, kw_only=True)
class EvalContext:
    """Images, the classes that a network sees in them, and the truth about both; each worked out once.

    Attributes
    ----------
    explainer : Explainer
        Whose network it is about.
    dataset : ImageDataset
    split : str
    ids : Tensor, (N,)
    value : {"logit", "centered"}
        What the truth divides among parts: the target's logit, as explanations do, or that less the mean over
        classes.
    seed : int
        Of everything that is drawn by chance.
    given_targets : Tensor or None, (N,)
        The classes that are explained, where they are not the predicted ones.
    subset_logits : Tensor or None, (N, S, C)
        `PartTruth.logits`, where they are there already.
    """

    explainer: Explainer = field(repr=False)
    dataset: ImageDataset = field(repr=False)
    split: str
    ids: Tensor = field(repr=False)
    value: Value = "logit"
    seed: int = 0
    given_targets: Tensor | None = field(default=None, repr=False)
    subset_logits: Tensor | None = field(default=None, repr=False)

    @cached_property
    def batch(self) -> Batch:
        """The images with all that is known of them."""
        return self._split.batch(self.ids)

    @cached_property
    def images(self) -> Tensor:
        """(N, 3, H, W), where the network is."""
        return self.explainer.read_images(self.batch)

    @cached_property
    def targets(self) -> Tensor:
        """The predicted classes, (N,), unless given: explained is what the network says, right or wrong."""
        if self.given_targets is not None:
            return self.given_targets
        return self.explainer.decision.strongest(self.explainer.predict(self.images))

    @cached_property
    def masks(self) -> Tensor:
        """Where each part is seen, (N, P, H, W), bool.

        Raises
        ------
        InputError
            For data without part masks.
        """
        if self.batch.masks is None:
            raise InputError(f"{self.dataset.name} has no part masks.")
        return self.batch.masks.to(self.images.device)

    @cached_property
    def object_mask(self) -> Tensor:
        """Where the whole object is seen, (N, H, W), bool.

        Raises
        ------
        InputError
            For data that do not know it.
        """
        if not isinstance(self._split, Intervenable):
            raise InputError(f"{self.dataset.name} has no mask of the whole object.")
        return self._split.object_masks(self.ids).to(self.images.device)

    @cached_property
    def boxes(self) -> Tensor:
        """Around the whole object, (N, 4) as x0, y0, x1, y1 in pixels, half-open: the data's, or its mask's.

        Raises
        ------
        InputError
            For data without boxes and masks of objects.
        """
        if self.batch.boxes is not None:
            return self.batch.boxes.to(self.images.device)
        if not isinstance(self._split, Intervenable):
            raise InputError(f"{self.dataset.name} has no boxes of objects.")
        return bounding_boxes(self.object_mask)

    @cached_property
    def truth(self) -> PartTruth:
        """What each part is worth to the network.

        Raises
        ------
        InputError
            For data whose scenes cannot be drawn again.
        """
        if not isinstance(self._split, Intervenable):
            raise InputError(f"The scenes of {self.dataset.name} cannot be drawn again with a part removed.")
        if self.subset_logits is None:
            truth = part_truth(self.explainer.predict, self._split, self.ids, self.targets)
        else:
            present = self._split.part_presence(self.ids).to(self.subset_logits.device)
            truth = PartTruth(logits=self.subset_logits, targets=self.targets, present=present)
        return evolve(truth, value=self.value, decision=self.explainer.decision)

    @property
    def _split(self) -> Split:
        return self.dataset.split(self.split)

    def probabilities(self, images: Tensor, targets: Tensor) -> Tensor:
        """The network's probability of `targets` (n,) in any `images` (n, D, H, W), by its decision.

        Raises
        ------
        InputError
            For a network whose outputs are plain numbers.
        """
        probabilities = self.explainer.decision.probabilities(self.explainer.predict(images))
        return probabilities.gather(1, targets[:, None])[:, 0]


@frozen(kw_only=True)
class Passes:
    """Runs of the network, one for each image that passed through it."""

    forward: float
    backward: float


@frozen(eq=False, kw_only=True)
class ExplainerOutput:
    """One row of the table before it is measured.

    Attributes
    ----------
    context : EvalContext
    name : str
    trivial : bool
        A baseline that explains nothing, or the truth itself.
    saliency_map : Tensor or None, (N, H, W)
        Evidence at the images' size.
    given_part_scores : Tensor or None, (N, P)
        For what scores parts without saying where they are.
    full_explanations : Explanations or None
        In full, where there is more than a map.
    explainer : Explainer or None
        Whose they are, for metrics that ask it about other images.
    passes : Passes or None
        What they cost.
    not_applicable : mapping of str to str
        Metrics that say nothing of this row, and why.
    """

    context: EvalContext = field(repr=False)
    name: str
    trivial: bool = False
    saliency_map: Tensor | None = field(default=None, repr=False)
    given_part_scores: Tensor | None = field(default=None, repr=False)
    full_explanations: Explanations | None = field(default=None, repr=False)
    explainer: Explainer | None = field(default=None, repr=False)
    passes: Passes | None = None
    not_applicable: Mapping[str, str] = field(factory=dict, repr=False)

    @property
    def saliency(self) -> Tensor:
        """(N, H, W), at the images' size.

        Raises
        ------
        InputError
            Where there is no map.
        """
        if self.saliency_map is None:
            raise InputError(f"{self.name} says how much, not where.")
        return self.saliency_map

    @cached_property
    def part_scores(self) -> Tensor:
        """What the map holds on each part, (N, P): summed within a pixel of where the part is seen.

        Raises
        ------
        InputError
            For data without part masks, and where there is no map.
        """
        if self.given_part_scores is not None:
            return self.given_part_scores
        grown = F.max_pool2d(self.context.masks.float(), 3, 1, 1).to(self.saliency)
        return torch.einsum("nhw,nphw->np", self.saliency, grown)

    @property
    def explanations(self) -> Explanations:
        """The explanations in full.

        Raises
        ------
        InputError
            For a bare map.
        """
        if self.full_explanations is None:
            raise InputError("A map alone: it has no units and claims no sum.")
        return self.full_explanations
