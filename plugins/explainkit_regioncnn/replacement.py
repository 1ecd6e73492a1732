"""Regions taken from another image: the fewest whose replacement makes the network say another class.

A region's feature decides both what it says and how much attention it gets. Replacing it changes both, so
that this is no edit of scores with the weights held still: it has a function and a value of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, fields, frozen
from torch import Tensor, nn

from explainkit.data.types import Batch, ImageDataset
from explainkit.errors import InputError
from explainkit.explainers.isolation import running
from explainkit.explanations.sentences import counted, listed
from explainkit.explanations.validation import class_indices
from explainkit.networks.input_scaling import NormalizedNetwork
from explainkit.protocols import Images, Targets
from explainkit_regioncnn.explainer import RegionCNN
from explainkit_regioncnn.grouping import MIN_MASS
from explainkit_regioncnn.model import RegionCNNNetwork, RegionOutputs

MAX_REGIONS = 12
"""Regions up to which all subsets are tried."""

LARGEST = 2**22
"""Logits that are worked out at once."""


@frozen(eq=False, kw_only=True)
class RegionReplacements:
    """For N images, the regions that were taken from an image of the target, and what the head then says.

    Attributes
    ----------
    targets : Tensor, (N,)
    replaced : Tensor, (N, K), bool
        None where nothing was found, or the image is of the target as it is.
    exemplars : Tensor, (N,)
        Ids in the distractors; -1 where nothing was replaced.
    logits : Tensor, (N, C)
        Of the head with the replaced regions.
    success : Tensor, (N,), bool
        Whether the head says the target.
    num_exemplars : int
        Images that regions could be taken from, of each target at most.
    classes, regions : tuple of str
        Names.
    """

    targets: Tensor
    replaced: Tensor = field(repr=False)
    exemplars: Tensor
    logits: Tensor = field(repr=False)
    success: Tensor
    num_exemplars: int
    classes: tuple[str, ...] = field(repr=False)
    regions: tuple[str, ...] = field(repr=False)

    @property
    def size(self) -> Tensor:
        """How many regions were replaced, (N,)."""
        return self.replaced.sum(1)

    def sentence(self, row: int) -> str:
        """What was replaced in image number `row`."""
        name = self.classes[int(self.targets[row])]
        if not self.success[row]:
            return f"No regions of {counted(self.num_exemplars, 'image')} of {name} made it {name}."
        if not self.replaced[row].any():
            return f"It is {name} already."
        names = [self.regions[k] for k in self.replaced[row].nonzero()[:, 0].tolist()]
        return f"With its {listed(names)} taken from image {int(self.exemplars[row])}, the head says {name}."


def replace_regions(
    model: RegionCNN,
    images: Images,
    targets: Targets,
    distractors: ImageDataset | Batch,
    *,
    exemplars: int = 40,
) -> RegionReplacements:
    """The fewest regions of each image that make it its target once they are those of another image.

    All subsets of regions are tried with each of up to `exemplars` images that the network rightly takes for
    the target; of equally many the one whose features are nearest to those that it replaces. Attention is
    worked out anew each time. Regions that are absent or disabled in either image are not replaced.

    Raises
    ------
    NotFittedError
        Before `fit`.
    InputError
        For more than 12 regions, distractors without a rightly classified image of a target, and several
        labels.
    """
    if not model.decision.is_exclusive:
        raise InputError(
            "Expected one class an image; with labels that hold or not regions belong to several."
        )
    inputs = model.read_images(images)
    goals = class_indices(targets, model.classes, len(inputs)).to(inputs.device)
    with torch.no_grad(), running(model.network) as module:
        network, inputs = _unwrapped(module, inputs)
        if len(network.unit_mask) > MAX_REGIONS:
            raise InputError(
                f"Expected {MAX_REGIONS} regions at most, all of whose subsets are tried; got "
                f"{len(network.unit_mask)}."
            )
        found = network.outputs(inputs)
        replaced = torch.zeros_like(found.attention, dtype=torch.bool)
        taken = torch.full_like(goals, -1)
        logits = found.logits.clone()
        most = 0
        for label in goals.unique().tolist():  # one bank a class
            ids, bank = _bank(model, network, distractors, label, exemplars)
            most = max(most, len(ids))
            for row in ((goals == label) & (found.logits.argmax(1) != label)).nonzero()[:, 0].tolist():
                choice = _fewest(network, found, row, bank, label)
                if choice is not None:
                    number, replaced[row], logits[row] = choice
                    taken[row] = ids[number]
    names = model.units.names if model.units is not None else ()
    return RegionReplacements(
        targets=goals.cpu(), replaced=replaced.cpu(), exemplars=taken.cpu(), logits=logits.cpu(),
        success=(logits.argmax(1) == goals).cpu(), num_exemplars=most, classes=model.classes, regions=names,
    )  # fmt: skip


def subsets(count: int) -> Tensor:
    """All subsets of `count` things, the smallest first: (2 ** count, count), bool."""
    codes = torch.arange(2**count)[:, None] >> torch.arange(count) & 1
    return codes.bool()[codes.sum(1).argsort(stable=True)]


def replaced_logits(
    network: RegionCNNNetwork, images: RegionOutputs, row: int, bank: RegionOutputs, chosen: Tensor
) -> Tensor:
    """Logits (A, M, C) of image `row` with the regions `chosen` (A, K) from each of M images.

    Attention goes over the regions that are there and enabled, the bank's for those that are chosen.
    """
    at = chosen[:, None]  # (A, 1, K)
    energies = torch.where(at, bank.energies, images.energies[row])  # (A, M, K)
    mass = torch.where(at, bank.mass, images.mass[row])
    attention = network.attention_of(
        energies.flatten(0, 1), (mass > MIN_MASS).flatten(0, 1) & network.unit_mask
    ).view_as(energies)
    ours, bias = network.evidence_of(images.descriptors[row][None])  # (1, C, K)
    theirs, _ = network.evidence_of(bank.descriptors)  # (M, C, K)
    kept, taken = attention * ~at, attention * at
    return kept @ ours[0].T + torch.einsum("amk,mck->amc", taken, theirs) + bias


def _fewest(
    network: RegionCNNNetwork, images: RegionOutputs, row: int, bank: RegionOutputs, label: int
) -> tuple[int, Tensor, Tensor] | None:
    """The exemplar, the regions (K,) and the logits (C,) of the smallest replacement that does."""
    is_there = (images.mass[row] > MIN_MASS) & network.unit_mask
    distance = (bank.features - images.features[row]).square().sum(2)  # (M, K)
    every = subsets(len(is_there)).to(is_there.device)
    every = every[~(every & ~is_there).any(1)]
    count = max(1, LARGEST // (len(bank.mass) * images.logits.shape[1]))
    for chosen in every.split(count):
        logits = replaced_logits(network, images, row, bank, chosen)
        is_whole = ~(chosen[:, None] & (bank.mass <= MIN_MASS)).any(2)
        does = (logits.argmax(2) == label) & is_whole
        if not does.any():
            continue
        size = chosen.sum(1)[:, None].expand_as(does)
        fewest = does & (size == size[does].min())
        change = (chosen[:, None] * distance).sum(2).masked_fill(~fewest, torch.inf)
        subset, number = divmod(int(change.argmin()), change.shape[1])
        return number, chosen[subset], logits[subset, number]
    return None


def _bank(
    model: RegionCNN, network: RegionCNNNetwork, distractors: ImageDataset | Batch, label: int, count: int
) -> tuple[Sequence[int], RegionOutputs]:
    """Ids of at most `count` images of class `label` that the network takes for it, and their regions."""
    if isinstance(distractors, ImageDataset):
        model.check_classes(distractors)
        rows = (distractors.train.labels == label).nonzero()[:, 0][: 2 * count]
        batch = distractors.train.batch(rows)
    else:
        rows = (distractors.labels.cpu() == label).nonzero()[:, 0][: 2 * count]
        images = distractors.images[rows.to(distractors.images.device)]
        batch = Batch(images=images, labels=distractors.labels[rows], ids=distractors.ids[rows])
    right: list[int] = []
    if len(rows):
        outputs = network.outputs(_unwrapped(model.network, model.read_images(batch))[1])
        right = (outputs.logits.argmax(1) == label).nonzero()[:count, 0].tolist()
    if not right:
        raise InputError(
            f"Expected a distractor of {model.classes[label]} that the network takes for it; there is none."
        )
    kept = RegionOutputs(**{item.name: getattr(outputs, item.name)[right] for item in fields(RegionOutputs)})
    return batch.ids[right].tolist(), kept


def _unwrapped(network: nn.Module, images: Tensor) -> tuple[RegionCNNNetwork, Tensor]:
    """The network of regions, and images as it takes them: those of others are normalized before it."""
    if isinstance(network, NormalizedNetwork):
        normalization: nn.Module = network.normalization
        network, images = network.network, normalization(images)
    assert isinstance(network, RegionCNNNetwork)
    return network, images
