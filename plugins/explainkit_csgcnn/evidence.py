"""What of a logit comes from a class's own units: the split by the gate, and where it lies in the image.

For any explainer whose units belong to classes, `Units.class_affinity`: G (K, C) in [0, 1].
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

import explainkit as ek
from explainkit.errors import InputError, NotFittedError
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explanations.batch import Explanations
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.sentences import counted, percent, signed
from explainkit.explanations.single import Explanation
from explainkit.explanations.spatial import saliency_grid
from explainkit_csgcnn.model import MEMBER

LARGEST = 2**22
"""Most scores that the head is asked about at once."""


@frozen(eq=False, kw_only=True)
class EvidenceSplit:
    """Of N images, the two parts of what is explained: ``base + specific + leakage``, up to the residual.

    Attributes
    ----------
    base, specific, leakage : Tensor, (N,)
        `specific` is ``sum_k G_kc W_ck a_k``, what comes from the target's own units; `leakage` the same with
        1 - G.
    purity : Tensor, (N,), in [0, 1]
        ``|specific| / (|specific| + |leakage|)``; NaN where both are 0.
    """

    base: Tensor
    specific: Tensor
    leakage: Tensor
    purity: Tensor


def split_evidence(explanations: Explanations) -> EvidenceSplit:
    """What the target's own units add to what is explained, and what all others do.

    Of a contrast, the difference of both for the target and the foil, each by its own gate.

    Raises
    ------
    InputError
        For explanations whose units belong to no classes.
    """
    specific = specific_contributions(explanations)
    leakage = (explanations.contributions - specific).sum(1)
    return EvidenceSplit(
        base=explanations.base, specific=specific.sum(1), leakage=leakage,
        purity=purity_of(specific.sum(1), leakage),
    )  # fmt: skip


def purity_of(specific: Tensor, leakage: Tensor) -> Tensor:
    """``|specific| / (|specific| + |leakage|)``; NaN where both are 0."""
    return specific.abs() / (specific.abs() + leakage.abs())


def specific_contributions(explanations: Explanations) -> Tensor:
    """The part of each contribution that is the target's own, (N, K): ``G_kc`` of it.

    Raises
    ------
    InputError
        For explanations whose units belong to no classes.
    """
    gate = affinity_of(explanations).to(explanations.contributions)
    if explanations.foils is None:
        return explanations.contributions * gate[:, explanations.targets].T
    decomposition = _decomposition(explanations)
    own, foil = (
        decomposition.weights_for(classes) * gate[:, classes].T
        for classes in (explanations.targets, explanations.foils)
    )
    return (own - foil) * scores_above_reference(explanations)


def gated_saliency(explanations: Explanations, size: tuple[int, int] | None = None) -> Tensor:
    """Where a class's own evidence lies, (N, H, W): the class activation map of ``G_kc W_ck A_k``.

    Its sum is `EvidenceSplit.specific`, less what units without a place have.

    Raises
    ------
    InputError
        For explanations without maps, or of which not all maps were kept.
    """
    specific = specific_contributions(explanations)
    if explanations.maps is None or explanations.map_units is not None:
        raise InputError(
            "Expected explanations with the maps of all units; these have none, or the strongest alone. Call "
            "explain(images, maps='all')."
        )
    image_size = explanations.images.shape[-2:]
    return saliency_grid(
        specific, explanations.maps, explanations.units.pooling,
        image_size if size is None else size, image_size=image_size, boxes=explanations.boxes,
        group=explanations.units.group,
    )  # fmt: skip


def own_gate_probabilities(explanations: Explanations) -> Tensor:
    """The probability of each class by its own units alone, (N, C): ``softmax(W (G_c a) + b)_c``.

    Each class is asked under its own gate, so that these do not sum to 1. A class that is not the likeliest
    under its own gate is not held up by its own units.

    Raises
    ------
    InputError
        For explanations whose units belong to no classes, or that know one class alone.
    """
    logits = logits_by_class(explanations, affinity_of(explanations))
    return explanations.decision.probabilities(logits).diagonal(dim1=1, dim2=2)


def logits_by_class(explanations: Explanations, kept: Tensor) -> Tensor:
    """What the head says with the share ``kept[:, c]`` of each score, for every class c: (N, C, C).

    The middle axis is the class whose shares are kept. Scores are measured from the units' reference, and the
    head is asked again, also where scores are coupled.

    Parameters
    ----------
    kept : Tensor, (K, C)
    """
    decomposition, above = _decomposition(explanations), scores_above_reference(explanations)
    rest, shares = explanations.scores - above, kept.T.to(above)
    (count, classes), units = explanations.logits.shape, above.shape[1]
    pairs = torch.arange(count * classes, device=above.device)
    logits = []
    with torch.no_grad():
        for part in pairs.split(max(1, LARGEST // units)):
            rows, owners = part // classes, part % classes
            logits.append(decomposition.logits_at(rows, rest[rows] + above[rows] * shares[owners]))
    return torch.cat(logits).view(count, classes, classes)


def purity_sentence(explanation: Explanation) -> str:
    """How much of the evidence is the class's own, in words.

    Of a contrast, by how much the target's own evidence is above the foil's own, each by its own gate.

    Raises
    ------
    InputError
        For an explanation whose units belong to no classes, and for what is no `Explanation`.
    """
    if not isinstance(explanation, Explanation):
        raise InputError(
            f"Expected one Explanation, as explanations[n] gives it; got {type(explanation).__name__}."
        )
    batch, name, foil = explanation.batch, explanation.target_name, explanation.foil_name
    split = split_evidence(batch[explanation.index : explanation.index + 1])
    if split.purity.isnan().any():
        return f"No evidence for or against {name}{'' if foil is None else f' over {foil}'}."
    specific, leakage = signed(split.specific.item()), signed(split.leakage.item())
    share = f"{percent(split.purity.item())} of the evidence; all else adds {leakage}."
    if foil is not None:
        return f"Each by its own gate, own evidence of {name} less that of {foil} is {specific}, {share}"
    own = int((affinity_of(batch)[:, explanation.target] > MEMBER).sum())
    owners = counted(len(batch.units), batch.units.kind)
    return f"By its gate {name}, with {own} of {owners}, gets {specific}, {share}"


def units_with_classes(explainer: Explainer) -> tuple[ek.Units, Tensor]:
    """The units of an explainer, and how much they belong to classes (K, C), on the CPU.

    Raises
    ------
    NotFittedError
        Before `fit`.
    InputError
        For an explainer whose units belong to no classes.
    """
    is_decomposed = isinstance(explainer, InterpretableExplainer)
    units = explainer.units if is_decomposed else None
    if is_decomposed and units is None:
        raise NotFittedError(
            f"{explainer.card.title} has no units yet: call fit(…), or explainkit.load(folder)."
        )
    if units is None or units.class_affinity is None:
        raise InputError(
            f"Expected an explainer whose units belong to classes (units.class_affinity); those of "
            f"{explainer.card.title} do not. Explainers such as 'csg-cnn' have such units."
        )
    return units, units.class_affinity.cpu()


def affinity_of(explanations: Explanations) -> Tensor:
    """How much each unit belongs to each class, (K, C).

    Raises
    ------
    InputError
        For units that belong to no classes, and for what is no `Explanations`.
    """
    if not isinstance(explanations, Explanations):
        raise InputError(
            f"Expected Explanations, as explain(images) gives them; got {type(explanations).__name__}. Of "
            "one, take explanations[n : n + 1]."
        )
    affinity = explanations.units.class_affinity
    if affinity is None:
        raise InputError(
            f"Expected units that belong to classes (units.class_affinity); those of "
            f"{explanations.provenance.explainer} do not. Explainers such as 'csg-cnn' have such units."
        )
    return affinity.to(explanations.scores.device)


def scores_above_reference(explanations: Explanations) -> Tensor:
    """Scores less those that count as nothing to say, (N, K)."""
    reference = explanations.units.reference
    return (
        explanations.scores if reference is None else explanations.scores - reference.to(explanations.scores)
    )


def _decomposition(explanations: Explanations) -> Decomposition:
    if explanations.decomposition is None:
        raise InputError(
            f"Expected explanations of all classes; these by {explanations.provenance.explainer} know one."
        )
    return explanations.decomposition
