"""torchvision's networks as backbones: ``explainkit.backbone("torchvision/resnet18")``."""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_backbones() -> list[Offer]:
    """An open family: every classifier of torchvision."""
    return [
        Offer(
            "torchvision/*",
            "Any torchvision classifier, cut where its grid of features ends",
            "explainkit_torchvision.backbones:torchvision_backbone",
        )
    ]
