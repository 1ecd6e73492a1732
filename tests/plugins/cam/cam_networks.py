"""Small networks that end in global average pooling and one linear layer."""

import torch
import torchvision.models as zoo
from plugin_cases import draw_norm_statistics
from torch import nn

import explainkit as ek
from explainkit_cam.model import CAMNetwork


def small_network(classes=4, seed=0, backbone="tiny", **settings):
    torch.manual_seed(seed)
    network = CAMNetwork(ek.backbone(backbone), classes, **settings)
    draw_norm_statistics(network)
    return network.eval()


def cam(dtype=torch.float32, **settings):
    return ek.explainer("cam", network=small_network(**settings).to(dtype), size=(32, 32))


class Fixed(ek.Backbone):
    """Returns the same features for any image."""

    channels, stride, receptive_field = 6, 4, 4

    def __init__(self, features):
        super().__init__()
        self.register_buffer("features", features)

    def forward(self, images):
        return self.features.expand(len(images), -1, -1, -1)


def explanations_of(features, **settings):
    torch.manual_seed(0)
    return ek.explainer("cam", network=CAMNetwork(Fixed(features), 3), **settings).explain(
        torch.zeros(1, 3, 16, 16), 2
    )


def zoo_network(name, **settings):
    torch.manual_seed(0)
    if name == "googlenet":
        settings["init_weights"] = False
    return getattr(zoo, name)(weights=None, num_classes=7, **settings)


class Small(nn.Module):
    """A GAP network in all its variations."""

    def __init__(self, last=None, pool=None, head=None):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1))
        self.last, self.pool = last or nn.ReLU(), pool or nn.AdaptiveAvgPool2d(1)
        self.head = head or nn.Linear(6, 3)

    def forward(self, images):
        return self.head(self.pool(self.last(self.features(images))).flatten(1))
