"""Networks of one logit, of its twin of two, and of several labels."""

import torch
from torch import nn
from toys import Cells, Toy, noise

LABELS = ("red", "green", "blue")


def backbone_and_head(outputs, seed=0):
    torch.manual_seed(seed)
    features = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(6, outputs)).eval()


def twins():
    """A network of one logit z, and one of two, 0 and z."""
    two = backbone_and_head(2)
    with torch.no_grad():
        two[4].weight *= 20
        two[4].weight[0], two[4].bias[0] = 0, 0
        images = noise(24)
        # between two of the images: none is at 0, where rounding decides
        two[4].bias[1] -= two(images)[:, 1].quantile(0.5)
    one = nn.Sequential(*two[:4], nn.Linear(6, 1)).eval()
    with torch.no_grad():
        one[4].weight.copy_(two[4].weight[1:])
        one[4].bias.copy_(two[4].bias[1:])
    return one, two, images


def toy_twins():
    """The same for `Toy`."""
    two, one = Cells(classes=2, seed=3), Cells(classes=1, seed=3)
    images = noise(40, seed=3)
    with torch.no_grad():
        two.head.weight[0], two.head.bias[0] = 0, 0
        two.head.bias[1] -= two(images)[:, 1].quantile(0.5)
        one.cells.load_state_dict(two.cells.state_dict())
        one.head.weight.copy_(two.head.weight[1:])
        one.head.bias.copy_(two.head.bias[1:])
    single = Toy.from_network(one.eval(), classes=["healthy", "ill"], decision="sigmoid")
    return single, Toy.from_network(two.eval(), classes=["healthy", "ill"]), images


def three_labels(**settings):
    network = Cells(classes=3, seed=1)
    with torch.no_grad():
        network.head.bias -= network(noise(40)).quantile(0.5, 0)
    return Toy.from_network(network.eval(), classes=LABELS, decision="sigmoid", **settings)
