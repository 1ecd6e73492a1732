import pytest
import torch
from torch import nn

import explainkit as ek
from explainkit.networks.backbones import grid_size


@pytest.mark.parametrize("name", ["small", "small-fine", "tiny"])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (33, 47)])
def test_the_grid_is_that_of_the_features(name, size):
    backbone = ek.backbone(name)

    features = backbone.eval()(torch.rand(1, 3, *size))

    assert grid_size(backbone, size) == tuple(features.shape[2:])


def test_the_modes_and_the_statistics_of_a_backbone_are_left_as_they_are():
    backbone = ek.backbone("tiny").train()
    backbone.stem.eval()
    state = {name: value.clone() for name, value in backbone.state_dict().items()}

    grid_size(backbone, (32, 32))

    assert backbone.training and backbone.blocks[0].first.training and not backbone.stem[1].training
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_backbone_is_probed_in_its_own_precision():
    assert grid_size(ek.backbone("tiny").double(), (16, 24)) == (4, 6)


def test_probing_draws_nothing_by_chance():
    backbone = nn.Sequential(nn.Dropout2d(0.5), nn.Conv2d(3, 4, 3, 2, 1))
    torch.manual_seed(0)
    before = torch.get_rng_state()

    assert grid_size(backbone, (8, 8)) == (4, 4)
    assert torch.equal(torch.get_rng_state(), before)
