"""What all explainers of one network are asked, and what one of them, or a baseline, answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from attrs import evolve, field, frozen
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.aviary.dataset import Aviary
from explainkit.data.images import Batch, ImageData
from explainkit.errors import InputError
from explainkit.explanation import Explanations
from explainkit.interfaces import Explainer
from explainkit.metrics.cost import Passes
from explainkit.metrics.observer import Observer
from explainkit.metrics.truth import PartTruth, Value, part_truth


@frozen(eq=False, kw_only=True)
class Exam:
    """Images, the classes that a network sees in them, and the truth about both; each worked out once.

    Attributes
    ----------
    explainer : Explainer
        Whose network it is about.
    data : ImageData
    split : str
    ids : Tensor, (N,)
    value : {"logit", "centred"}
        What the truth divides among parts: the target's logit, as explanations do, or that less the mean over
        classes.
    seed : int
        Of everything that is drawn by chance.
    """

    explainer: Explainer = field(repr=False)
    data: ImageData = field(repr=False)
    split: str
    ids: Tensor = field(repr=False)
    value: Value = "logit"
    seed: int = 0

    @cached_property
    def batch(self) -> Batch:
        """The images with all that is known of them."""
        return self.data.split(self.split).batch(self.ids)

    @cached_property
    def images(self) -> Tensor:
        """(N, 3, H, W), where the network is."""
        return self.explainer.read(self.batch)

    @cached_property
    def targets(self) -> Tensor:
        """The predicted classes, (N,): what is explained is what the network says, right or wrong."""
        return self.explainer.predict(self.images).argmax(1)

    @cached_property
    def masks(self) -> Tensor:
        """Where each part is seen, (N, P, H, W), bool.

        Raises
        ------
        InputError
            For data without part masks.
        """
        if self.batch.masks is None:
            raise InputError(f"{self.data.name} has no part masks.")
        return self.batch.masks.to(self.images.device)

    @cached_property
    def bird(self) -> Tensor:
        """Where the bird is seen, body and all, (N, H, W), bool.

        Raises
        ------
        InputError
            For data that do not know it.
        """
        if not isinstance(self.data, Aviary):
            raise InputError(f"{self.data.name} has no mask of the whole object.")
        drawn = self.data.draw(self.data.scenes(self.split, self.ids.numpy()))
        return torch.from_numpy(drawn.birds.any(1)).to(self.images.device)

    @cached_property
    def truth(self) -> PartTruth:
        """What each part is worth to the network.

        Raises
        ------
        InputError
            For data whose scenes cannot be drawn again.
        """
        network = self.explainer.network
        remember = network.remember if isinstance(network, Observer) else None
        told = part_truth(
            self.explainer.predict, self.data, self.split, self.ids, self.targets, remember=remember
        )
        return evolve(told, value=self.value)

    def probabilities(self, images: Tensor, targets: Tensor) -> Tensor:
        """The network's softmax probability of `targets` (n,) in any `images` (n, 3, H, W)."""
        return self.explainer.predict(images).softmax(1).gather(1, targets[:, None])[:, 0]


@frozen(eq=False, kw_only=True)
class Answer:
    """One row of the table before it is measured.

    Attributes
    ----------
    exam : Exam
    name : str
    trivial : bool
        A baseline that explains nothing, or the truth itself.
    saliency_map : Tensor or None, (N, H, W)
        Evidence at the images' size.
    given_part_scores : Tensor or None, (N, P)
        For what scores parts without saying where they are.
    told : Explanations or None
        In full, where there is more than a map.
    passes : Passes or None
        What they cost.
    silent : mapping of str to str
        Metrics that say nothing of this row, and why.
    """

    exam: Exam = field(repr=False)
    name: str
    trivial: bool = False
    saliency_map: Tensor | None = field(default=None, repr=False)
    given_part_scores: Tensor | None = field(default=None, repr=False)
    told: Explanations | None = field(default=None, repr=False)
    passes: Passes | None = None
    silent: Mapping[str, str] = field(factory=dict, repr=False)

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
        grown = F.max_pool2d(self.exam.masks.float(), 3, 1, 1).to(self.saliency)
        return torch.einsum("nhw,nphw->np", self.saliency, grown)

    @property
    def explanations(self) -> Explanations:
        """What was said in full.

        Raises
        ------
        InputError
            For a bare map.
        """
        if self.told is None:
            raise InputError("A map alone: it has no units and claims no sum.")
        return self.told
