"""What happens between the phases of RA-CNN, and what is measured in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from explainkit.data.types import ImageDataset
from explainkit.training import Epoch
from explainkit_racnn.losses import confidence_in
from explainkit_racnn.model import RACNNNetwork


def begin_alike(network: RACNNNetwork, _: ImageDataset) -> None:
    """Finer scales begin as the coarsest is: what tells birds apart from afar does so from near."""
    for scale in range(1, network.scales):
        network.backbones[scale].load_state_dict(network.backbones[0].state_dict())
        network.heads[scale].load_state_dict(network.heads[0].state_dict())


def fuse(network: RACNNNetwork, dataset: ImageDataset, images: int = 1024, chunk: int = 256) -> None:
    """From now on the logits are those of the head over all scales, which begins as the mean of their own.

    Descriptors lose their lengths, so that weights take them over: the mean of each scale's, on the first
    `images` of the training split. From random weights the head is far from learned in a few epochs.
    """
    network.fused.fill_(False)
    classes = torch.arange(network.fusion.out_features, device=network.fused.device)
    lengths = []
    for ids in torch.arange(min(images, len(dataset.train))).split(chunk):
        decomposition = network.decompose(dataset.train.batch(ids).images.to(network.fusion.weight))
        lengths.append(decomposition.scores.unflatten(1, (network.scales, -1)).norm(dim=2))  # (N, S)
    mean = torch.cat(lengths).mean(0).repeat_interleave(network.channels)
    network.fusion.weight.copy_(decomposition.weights_for(classes) * mean)
    network.fusion.bias.copy_(decomposition.bias_for(classes))
    network.fused.fill_(True)


def scale_metrics(network: RACNNNetwork, dataset: ImageDataset, images: int = 256) -> Mapping[str, float]:
    """What is recorded of an epoch: accuracy and sureness by scale, and how large the boxes are."""
    if not len(dataset.validation):
        return {}
    batch = dataset.validation.batch(torch.arange(min(images, len(dataset.validation)))).to(
        network.fused.device
    )
    outputs = network.outputs(batch.images.to(network.fusion.weight))
    truth = dataset.decision.truth(batch.labels, outputs.by_scale.shape[2])
    is_right = [dataset.decision.holds(logits) == truth for logits in outputs.by_scale]
    accuracy = torch.stack([right.all(1).float().mean() for right in is_right])
    confidence = confidence_in(outputs.by_scale, batch.labels).mean(1)
    metrics = {f"accuracy {s + 1}": value for s, value in enumerate(accuracy.tolist())}
    metrics |= {f"p(true) {s + 1}": value for s, value in enumerate(confidence.tolist())}
    return metrics | {
        f"half side {s + 1}": square[:, 2].mean().item() for s, square in enumerate(outputs.squares) if s
    }


def settled(_: RACNNNetwork, __: ImageDataset, history: Sequence[Epoch], change: float = 0.002) -> bool:
    """Whether neither half changed much in the last round: the paper's rule to end, on validation."""
    ends = [epoch for epoch in history if epoch.phase == "rank" and epoch.epoch == history[-1].epoch]
    if len(ends) < 2 or not ends[-1].val_metrics:
        return False
    before, after = ends[-2].val_metrics, ends[-1].val_metrics
    names = [name for name in after if name.startswith(("p(true)", "half side"))]
    return all(abs(after[name] - before[name]) < change for name in names)
