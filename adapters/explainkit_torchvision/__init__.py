"""torchvision's networks as backbones: ``explainkit.backbone("torchvision/resnet18")``."""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_backbones() -> list[Offer]:
    """An open family: every classifier of torchvision that pools once, at its end."""
    return [
        Offer(
            "torchvision/*",
            "Any torchvision classifier that ends in global average pooling",
            "explainkit_torchvision.backbones:torchvision_backbone",
        )
    ]
