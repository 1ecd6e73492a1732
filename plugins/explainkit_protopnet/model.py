"""The network: a backbone, prototypes, how similar the most similar patch is to each, one linear layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from explainkit.explanations.decomposition import Decomposition
from explainkit.networks.backbones import Backbone
from explainkit.networks.precision import disable_autocast, full_precision


@frozen(eq=False, kw_only=True)
class ProtoPNetOutputs:
    """What one forward pass gives: for losses, and for the decomposition.

    Attributes
    ----------
    logits : Tensor, (N, C)
    distances : Tensor, (N, P)
        Squared, of the nearest patch to each prototype; exact in float32.
    scores : Tensor, (N, P)
        Their similarity.
    maps : Tensor, (N, P, h, w)
        Similarity at every cell.
    """

    logits: Tensor
    distances: Tensor
    scores: Tensor
    maps: Tensor


class Sources(nn.Module):
    """Where in the training images each prototype was taken from; buffers, so that they are saved.

    Attributes
    ----------
    image : Tensor, (P,), int64
        Id in the training split; -1 before projection.
    cell : Tensor, (P, 2), int64
        Row and column on the network's grid.
    box : Tensor, (P, 4), int64
        x0, y0, x1, y1 in pixels.
    picture : Tensor, (P, 3, H, W), uint8
        The whole image; 0 x 0 before projection.
    moved : Tensor, (P,)
        Squared distance that the last projection moved the prototype by.
    """

    image: Tensor
    cell: Tensor
    box: Tensor
    picture: Tensor
    moved: Tensor

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.register_buffer("image", torch.full((prototypes,), -1))
        self.register_buffer("cell", torch.zeros(prototypes, 2, dtype=torch.long))
        self.register_buffer("box", torch.zeros(prototypes, 4, dtype=torch.long))
        self.register_buffer("picture", torch.zeros(prototypes, 3, 0, 0, dtype=torch.uint8))
        self.register_buffer("moved", torch.zeros(prototypes))

    def keep_prototypes(self, chosen: Tensor) -> None:
        """Forget all prototypes but those of the index `chosen`."""
        for name, value in list(self.named_buffers()):
            setattr(self, name, value[chosen])


class ProtoPNetNetwork(nn.Module):
    """Logits from the similarity of the most similar patch to each prototype (section 2.1 of the paper).

    Parameters
    ----------
    backbone : Backbone
    classes, prototypes_per_class : int
        C, and M prototypes for each of them: P = C M.
    depth : int
        D, the length of a prototype; patches are brought to it by two 1 x 1 convolutions and a sigmoid.
    epsilon : float
        A patch that is the prototype has similarity log(1 / epsilon).
    off_class : float
        What a prototype counts for the classes of others at first; for its own it counts 1.
    start : bool
        Whether to begin as a plain classifier, until `begin_at_patches` ends that.

    Attributes
    ----------
    owner : Tensor, (P,), int64
        The class of each prototype.
    projected : Tensor, (), bool
        Whether prototypes are training patches by now.
    """

    owner: Tensor
    projected: Tensor
    accuracies: Tensor
    unit_mask: Tensor

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        prototypes_per_class: int = 10,
        depth: int = 128,
        epsilon: float = 1e-4,
        off_class: float = -0.5,
        start: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        layers = nn.Conv2d(backbone.channels, depth, 1), nn.Conv2d(depth, depth, 1)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.constant_(layer.bias, 0)  # type: ignore[arg-type]
        self.add_on = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Sigmoid())
        self.prototypes = nn.Parameter(torch.rand(classes * prototypes_per_class, depth))
        self.head = nn.Linear(classes * prototypes_per_class, classes, bias=False)
        self.epsilon = epsilon
        self.register_buffer("owner", torch.arange(classes).repeat_interleave(prototypes_per_class))
        self.register_buffer("projected", torch.tensor(False))
        self.register_buffer("accuracies", torch.full((3,), -1.0))
        self.register_buffer("unit_mask", torch.ones(len(self.owner), dtype=torch.bool))
        self.sources = Sources(len(self.owner))
        self.start = nn.Linear(backbone.channels, classes) if start else None
        with torch.no_grad():
            self.head.weight.copy_(torch.where(self.own.T, 1.0, off_class))

    @property
    def own(self) -> Tensor:
        """Which prototypes are of which class, (P, C), bool."""
        return self.owner[:, None] == torch.arange(self.head.out_features, device=self.owner.device)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the training images; ``None`` before projection."""
        height, width = self.sources.picture.shape[2:]
        return (height, width) if self.projected else None

    def latent(self, images: Tensor) -> Tensor:
        """The patches of images (N, 3, H, W), each a vector in (0, 1): (N, D, h, w), in full precision."""
        return full_precision(self.add_on(self.backbone(images)))

    def outputs(self, images: Tensor) -> ProtoPNetOutputs:
        """Similarities (N, P), where they were found, and the logits."""
        latent = self.latent(images)
        with disable_autocast(latent.device):
            patches = latent.flatten(2).mT  # (N, h w, D)
            rough = squared_distances(patches, self.prototypes)  # (N, P, h w)
            best = rough.argmin(2)
            distances = distances_at(patches, best, self.prototypes)
            scores = similarity(distances, self.epsilon)
            maps = self._maps(rough, best, scores).unflatten(2, latent.shape[2:])
            scores = torch.where(self.unit_mask, scores, 0.0)
            logits = self.head(scores)
        return ProtoPNetOutputs(logits=logits, distances=distances, scores=scores, maps=maps)

    def decompose(self, images: Tensor) -> Decomposition:
        """Similarities (N, P), where they were found, and what each is worth."""
        outputs = self.outputs(images)
        return Decomposition(
            logits=outputs.logits, bias=outputs.logits.new_zeros(outputs.logits.shape[1]),
            scores=outputs.scores, weights=self.head.weight, maps=outputs.maps,
            extras={"distances": outputs.distances},
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, W); at the start, those of a plain classifier."""
        if self.start is not None:
            return self.start(full_precision(self.backbone(images)).mean((2, 3)))
        return self.outputs(images).logits

    def keep_prototypes(self, chosen: Tensor) -> None:
        """Forget all prototypes but those of the index `chosen`."""
        self.prototypes = nn.Parameter(self.prototypes.detach()[chosen])
        weight = self.head.weight.detach()[:, chosen]
        self.head.in_features, self.head.weight = weight.shape[1], nn.Parameter(weight.contiguous())
        self.owner, self.unit_mask = self.owner[chosen], self.unit_mask[chosen]
        self.sources.keep_prototypes(chosen)

    def _maps(self, rough: Tensor, best: Tensor, scores: Tensor) -> Tensor:
        """Similarity at every cell, (N, P, h w), its maximum the score itself, at the best cell."""
        maps = similarity(rough.detach(), self.epsilon)
        maps = torch.minimum(maps, scores.detach()[:, :, None])
        return maps.scatter(2, best[:, :, None], scores[:, :, None])

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shape of what is loaded: pruning leaves fewer prototypes, projection brings pictures."""
        owner = state_dict.get(f"{prefix}owner")
        picture = state_dict.get(f"{prefix}sources.picture")
        if isinstance(owner, Tensor) and isinstance(picture, Tensor):
            if len(owner) != len(self.owner):
                self.keep_prototypes(
                    torch.arange(len(owner), device=self.owner.device).clamp(max=len(self.owner) - 1)
                )
            self.sources.picture = self.sources.picture.new_zeros(len(self.owner), *picture.shape[1:])
        if f"{prefix}start.weight" not in state_dict:
            self.start = None
        super()._load_from_state_dict(state_dict, prefix, *rest)


def similarity(distances: Tensor, epsilon: float) -> Tensor:
    """``log((d + 1) / (d + epsilon))`` of squared distances: section 2.1, the prototype layer."""
    return torch.log1p((1 - epsilon) / (distances + epsilon))


def squared_distances(patches: Tensor, prototypes: Tensor) -> Tensor:
    """From each of the prototypes (P, D) to each of the patches (N, L, D): (N, P, L).

    Both are centered before the square is multiplied out, which takes most of the rounding away.
    """
    center = prototypes.detach().mean(0)
    patches, prototypes = patches - center, prototypes - center
    sizes = patches.square().sum(2)[:, None] + prototypes.square().sum(1)[:, None]
    many = prototypes.expand(patches.shape[0], -1, -1)
    return torch.baddbmm(sizes, many, patches.mT, alpha=-2).clamp(min=0)


def distances_at(patches: Tensor, cells: Tensor, prototypes: Tensor) -> Tensor:
    """From patch ``cells[n, p]`` of (N, L, D) to prototype p, (N, P); exactly 0 where they are equal."""
    nearest = patches.gather(1, cells[:, :, None].expand(-1, -1, patches.shape[2]))  # (N, P, D)
    return (nearest - prototypes).square().sum(2)


def grid_cell(index: Tensor, size: Sequence[int]) -> Tensor:
    """Row and column (..., 2) of cells counted along rows of a grid of `size`."""
    return torch.stack([index // size[1], index % size[1]], -1)
