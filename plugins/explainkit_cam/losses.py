"""How CAM learns: cross-entropy, and as SoftCAM few and small values on the class evidence maps."""

from torch import Tensor
from torch.nn import functional as F

from explainkit.data.types import Batch
from explainkit.training.criteria import classification_loss
from explainkit.training.steps import Step
from explainkit_cam.model import CAMNetwork


def evidence_loss(
    network: CAMNetwork,
    batch: Batch,
    step: Step,
    label_smoothing: float = 0.0,
    evidence_l1: float = 0.0,
    evidence_l2: float = 0.0,
) -> dict[str, Tensor]:
    """Mean cross-entropy over the batch, and an elastic net on the class evidence maps of all classes.

    Label smoothing: Szegedy et al., CVPR 2016, section 7. Elastic net: Djoumessi and Berens, SoftCAM, MIDL
    2026, arXiv:2505.17748: ``l1 mean |E| + l2 mean E ** 2``.
    """
    decomposition = network.decompose(batch.images)
    terms = {"cross_entropy": classification_loss(decomposition.logits, batch.labels, label_smoothing)}
    if evidence_l1 or evidence_l2:
        assert isinstance(decomposition.maps, Tensor)
        evidence = class_evidence(network, decomposition.maps)
        terms["evidence_l1"] = evidence_l1 * evidence.abs().mean()
        terms["evidence_l2"] = evidence_l2 * evidence.square().mean()
    return terms


def class_evidence(network: CAMNetwork, maps: Tensor) -> Tensor:
    """What each cell says of each class, (N, C, h, w), from the filters' maps (N, K, h, w).

    The head is applied at each cell. The mean over cells is the logit: to average before a linear layer or
    after a 1 x 1 convolution is the same network.
    """
    return F.conv2d(maps, network.head.weight[:, :, None, None], network.head.bias)
