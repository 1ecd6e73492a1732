"""What a gate says of classes: their filters, the filters that they share, and whether features agree.

For any explainer whose units belong to classes, `Units.class_affinity`: G (K, C) in [0, 1].
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

import explainkit as ek
from explainkit.explainers.interface import Explainer
from explainkit.metrics.mutual_information import MutualInformation, mutual_information
from explainkit_csgcnn.ablation import AblationTable, AblationTally, check_ablation
from explainkit_csgcnn.evidence import units_with_classes
from explainkit_csgcnn.model import MEMBER, check_threshold


def class_filters(explainer: Explainer, threshold: float = MEMBER) -> dict[str, list[str]]:
    """The units of each class, by name, those that belong to it most first: ``S_c``.

    Raises
    ------
    NotFittedError
        Before `fit`.
    InputError
        For an explainer whose units belong to no classes, and for a threshold out of [0, 1).
    """
    units, gate = units_with_classes(explainer)
    order = gate.argsort(dim=0, descending=True, stable=True).T.tolist()
    is_member = (gate > check_threshold("threshold", threshold)).tolist()
    return {
        name: [units.names[k] for k in ranked if is_member[k][number]]
        for number, (name, ranked) in enumerate(zip(explainer.classes, order, strict=True))
    }


def shared_filters(explainer: Explainer, threshold: float = MEMBER) -> dict[str, list[str]]:
    """The units that belong to several classes, with those classes.

    Raises
    ------
    NotFittedError, InputError
        As `class_filters`.
    """
    units, gate = units_with_classes(explainer)
    is_member = gate > check_threshold("threshold", threshold)
    return {
        units.names[k]: [
            name for name, has in zip(explainer.classes, is_member[k].tolist(), strict=True) if has
        ]
        for k in (is_member.sum(1) > 1).nonzero()[:, 0].tolist()
    }


def class_similarity(gate: Tensor, normalized: bool = False) -> Tensor:
    """How many filters each two classes share, (C, C): ``G^T G`` of a gate (K, C).

    Parameters
    ----------
    normalized : bool
        Divide by the norms of both columns: 1 for a class and itself; 0 for one without filters.

    Examples
    --------
    >>> class_similarity(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor([[2., 1.],
            [1., 1.]])
    """
    if normalized:
        gate = gate / gate.norm(dim=0).clamp(min=1e-12)
    return gate.T @ gate


def density(gate: Tensor) -> float:
    """The mean of a gate (K, C): 1/C where each filter has one class, 1 where each has all."""
    return float(gate.double().mean())


def gate_feature_agreement(gate: Tensor, class_means: Tensor) -> float:
    """Whether filters respond to the classes that the gate gives them to: a correlation over K x C pairs.

    ``corr(G_kc, E[a_k | c] / max_c E[a_k | c])``. A gate can be sparse, and say nothing of the features: this
    tells. Filters that never respond are left out, and so are classes without images; NaN where nothing
    varies.

    Parameters
    ----------
    gate : Tensor, (K, C)
    class_means : Tensor, (K, C)
        Each filter's mean score on images of each class; NaN in the column of a class without images.
    """
    has_images = ~class_means.isnan().all(0)
    if not has_images.any():
        return float("nan")
    gate, class_means = gate[:, has_images].double(), class_means[:, has_images].double()
    largest = class_means.amax(1)
    responds = (largest > 0) & largest.isfinite()
    shares = class_means[responds] / largest[responds, None]
    return float(torch.corrcoef(torch.stack([gate[responds].flatten(), shares.flatten()]))[0, 1])


@frozen(eq=False, kw_only=True)
class GateReport:
    """Whether filters are class-specific, on images of a split: never go by the density alone.

    Attributes
    ----------
    density, agreement : float
        `density` of the gate, and `gate_feature_agreement` over the classes that have images.
    accuracy : float
    filters_per_class : Tensor, (C,)
        How many filters are each class's own.
    unit_kind : str
        What filters are called, as in `Units.kind`: other explainers' units are no filters.
    information : MutualInformation
        Of filters about classes; its `score` is the mutual information score.
    ablation : AblationTable
    """

    density: float
    agreement: float
    accuracy: float
    filters_per_class: Tensor
    unit_kind: str
    information: MutualInformation
    ablation: AblationTable

    def text(self) -> str:
        """As lines of plain text."""
        classes, information = len(self.ablation.classes), self.information
        few, many = (int(end) for end in self.filters_per_class.aminmax())
        present = int((self.ablation.images > 0).sum())
        over = "" if present == classes else f" (over the {present} of {classes} classes that have images)"
        return "\n".join([
            f"accuracy                 {self.accuracy:.3f}",
            f"density of the gate      {self.density:.3f} (at least {1 / classes:.3f}; "
            f"{self.density * classes:.2f} classes a {self.unit_kind})",
            f"{self.unit_kind + 's of a class':<24} {few} to {many}",
            f"gate-feature agreement   {self.agreement:.2f}{over}",
            f"mutual information score {information.score:.3f} nats, {information.normalized_score:.3f} "
            f"normalized (chance {information.chance:.3f}, bound {float(information.entropy.max()):.3f})",
            self.ablation.table(),
        ])  # fmt: skip


def gate_report(
    explainer: Explainer, dataset: ek.ImageDataset, split: str = "test", *, batch_size: int = 128
) -> GateReport:
    """Density, agreement, mutual information and ablation of a gate, in one pass over a split.

    Raises
    ------
    NotFittedError
        Before `fit`.
    InputError
        For units that belong to no classes, a data set of other classes, a split without images, and where
        several labels may hold.
    """
    units, gate = units_with_classes(explainer)
    batch_size = check_ablation(explainer, dataset, split, batch_size)
    tally, scores, labels = AblationTally(len(explainer.classes)), [], []
    for batch in dataset.batches(split, batch_size=batch_size):
        explanations = explainer.explain(batch, batch.labels, maps=None)
        tally.add(explanations, batch.labels)
        scores.append(explanations.scores.cpu())
        labels.append(batch.labels.cpu())
    truth = torch.nn.functional.one_hot(torch.cat(labels), len(explainer.classes)).bool()
    ablation, all_scores = tally.finish(explainer.classes), torch.cat(scores)
    means = all_scores.double().T @ truth.double() / truth.sum(0)  # NaN of a class without images
    right = (ablation.own_before * ablation.images).nansum()
    return GateReport(
        density=density(gate), agreement=gate_feature_agreement(gate, means),
        accuracy=float(right / ablation.images.sum()), filters_per_class=ablation.num_units,
        unit_kind=units.kind, information=mutual_information(all_scores, truth), ablation=ablation,
    )  # fmt: skip
