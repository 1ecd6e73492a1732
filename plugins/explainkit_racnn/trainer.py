"""How RA-CNN learns: scales and proposals take turns, each held still while the other moves (section 3.3)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.images import Batch, ImageData
from explainkit.training import Epoch
from explainkit_racnn.model import Looks, RACNNNetwork


def classification(parts: Looks, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of every scale's own head, summed over scales: the first sum of equation 5."""
    return torch.stack(
        [F.cross_entropy(logits, labels, label_smoothing=smoothing) for logits in parts.by_scale]
    ).sum()


def ranking(parts: Looks, labels: Tensor, margin: float = 0.05, detach_reference: bool = True) -> Tensor:
    """How far each finer scale is from being surer of the truth than the one before: equation 6, summed.

    The hinge ``max(0, p_s - p_(s+1) + margin)`` on softmax probabilities; at its floor, when all are sure,
    each pair still costs `margin`.

    Parameters
    ----------
    detach_reference : bool
        Take the coarser scale as it is. Literally, its own gradient cancels the one that it has as the finer
        of the pair before.
    """
    sure = parts.by_scale.softmax(2).gather(2, labels[None, :, None].expand(len(parts.by_scale), -1, 1))[
        ..., 0
    ]
    before, after = sure[:-1], sure[1:]
    return ((before.detach() if detach_reference else before) - after + margin).clamp(min=0).mean(1).sum()


def warm_loss(network: RACNNNetwork, batch: Batch, smoothing: float = 0.0) -> dict[str, Tensor]:
    """The whole image alone."""
    parts = network.decompose(batch.images, 1)
    return {"cross_entropy": classification(parts, batch.labels, smoothing)}


def look_loss(network: RACNNNetwork, batch: Batch, smoothing: float = 0.0) -> dict[str, Tensor]:
    """All scales, each by its own head, in the boxes as they are."""
    parts = network.decompose(batch.images)
    return {"cross_entropy": classification(parts, batch.labels, smoothing)}


def rank_loss(
    network: RACNNNetwork, batch: Batch, margin: float = 0.05, detach_reference: bool = True
) -> dict[str, Tensor]:
    """The boxes alone: where to look so that a closer look is a surer one."""
    parts = network.decompose(batch.images)
    return {"ranking": ranking(parts, batch.labels, margin, detach_reference)}


def aim_loss(network: RACNNNetwork, batch: Batch, half: float = 0.3) -> dict[str, Tensor]:
    """Squares of one size around the strongest response: how proposals begin (section 3.3, step 2)."""
    parts = network.decompose(batch.images)
    aims = [
        F.smooth_l1_loss(place, strongest(features, half), beta=0.05)
        for place, features in zip(parts.proposed, parts.features, strict=False)
    ]
    return {"aim": torch.stack(aims).sum()}


def fusion_loss(network: RACNNNetwork, batch: Batch, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Cross-entropy of the head over all scales."""
    logits = network.decompose(batch.images).logits
    return {"cross_entropy": F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)}


def strongest(features: Tensor, half: float) -> Tensor:
    """Squares (N, 3) of half side `half` around the cell with the largest mean response, moved inside."""
    height, width = features.shape[2:]
    cell = features.detach().mean(1).flatten(1).argmax(1)
    middle = torch.stack([(cell % width + 0.5) / width, (cell // width + 0.5) / height], 1)
    return torch.cat([middle.clamp(half, 1 - half), torch.full_like(middle[:, :1], half)], 1)


def begin_alike(network: RACNNNetwork, _: ImageData) -> None:
    """Finer scales begin as the coarsest is: what tells birds apart from afar does so from near."""
    for scale in range(1, network.depth):
        network.backbones[scale].load_state_dict(network.backbones[0].state_dict())
        network.heads[scale].load_state_dict(network.heads[0].state_dict())


def fuse(network: RACNNNetwork, data: ImageData, images: int = 1024, chunk: int = 256) -> None:
    """From now on the logits are those of the head over all scales, which begins as the mean of their own.

    Descriptors lose their lengths, so that weights take them over: the mean of each scale's, on the first
    `images` of the training split. From random weights the head is far from learned in a few epochs.
    """
    network.fused.fill_(False)
    classes = torch.arange(network.fusion.out_features, device=network.fused.device)
    lengths = []
    for ids in torch.arange(min(images, len(data.train))).split(chunk):
        parts = network.decompose(data.train.batch(ids).images.to(classes.device))
        lengths.append(parts.scores.unflatten(1, (network.depth, -1)).norm(dim=2))  # (N, S)
    mean = torch.cat(lengths).mean(0).repeat_interleave(network.channels)
    network.fusion.weight.copy_(parts.weights_for(classes) * mean)
    network.fusion.bias.copy_(parts.bias_for(classes))
    network.fused.fill_(True)


def looks(network: RACNNNetwork, data: ImageData, images: int = 256) -> Mapping[str, float]:
    """What is told of an epoch: accuracy and sureness by scale, and how large the boxes are."""
    if not len(data.validation):
        return {}
    batch = data.validation.batch(torch.arange(min(images, len(data.validation)))).to(network.fused.device)
    parts = network.decompose(batch.images)
    right = (parts.by_scale.argmax(2) == batch.labels).float().mean(1)
    sure = (
        parts.by_scale.softmax(2)
        .gather(2, batch.labels[None, :, None].expand(len(right), -1, 1))
        .mean((1, 2))
    )
    told = {f"accuracy {s + 1}": right[s].item() for s in range(len(right))}
    told |= {f"p(true) {s + 1}": sure[s].item() for s in range(len(right))}
    return told | {
        f"half side {s + 1}": place[:, 2].mean().item() for s, place in enumerate(parts.places) if s
    }


def settled(_: RACNNNetwork, __: ImageData, history: Sequence[Epoch], change: float = 0.002) -> bool:
    """Whether neither half changed much in the last round: the paper's rule to end, on validation."""
    ends = [epoch for epoch in history if epoch.phase == "rank" and epoch.epoch == history[-1].epoch]
    if len(ends) < 2 or not ends[-1].measures:
        return False
    before, after = ends[-2].measures, ends[-1].measures
    told = [name for name in after if name.startswith(("p(true)", "half side"))]
    return all(abs(after[name] - before[name]) < change for name in told)
