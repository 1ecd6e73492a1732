import pytest
import torch
from torch import nn

import explainkit as ek
from explainkit.networks.backbones import SmallBackbone
from explainkit.networks.normalization import ChannelScale, batch_mixing_module, fold_batch_norm

BUILT_IN = ["small", "small-fine", "tiny", "local"]
STATED = {"small": (8, 96), "small-fine": (4, 96), "tiny": (4, 32), "local": (4, 96)}


def backbone(name):
    """In double precision and all positive, so that no ReLU hides what a cell can see."""
    torch.manual_seed(0)
    made = ek.backbone(name).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()
    return made


def seen_by(made, row, column, side):
    """Which rows and columns of pixels can change a cell, by the gradient."""
    images = torch.full((1, 3, side, side), 0.8, dtype=torch.float64, requires_grad=True)
    features = made(images)
    features[0, :, row, column].sum().backward()
    touched = images.grad[0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_cell_sees_what_the_receptive_field_says(name):
    made = backbone(name)
    side = made.receptive_field + 4 * made.stride

    top, bottom = seen_by(made, side // made.stride // 2, side // made.stride // 2, side)[0]

    assert bottom - top == made.receptive_field


@pytest.mark.parametrize("name", BUILT_IN)
def test_neighboring_cells_see_a_stride_apart(name):
    made = backbone(name)
    side = made.receptive_field + 6 * made.stride
    middle = side // made.stride // 2

    here, below = seen_by(made, middle, middle, side), seen_by(made, middle + 1, middle, side)

    assert below[0][0] - here[0][0] == made.stride and below[1] == here[1]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (33, 47), (128, 64)])
def test_the_grid_and_its_channels_are_as_stated(name, size):
    made = ek.backbone(name).eval()

    features = made(torch.rand(2, 3, *size))

    grid = [-(-side // made.stride) for side in size]
    assert features.shape == (2, made.channels, *grid) and (features >= 0).all()
    assert (made.stride, made.channels) == STATED[name]


def test_widths_and_strides_are_settings():
    made = SmallBackbone(widths=(8, 8, 16, 16), strides=(1, 2, 2, 1))

    assert made.channels == 16 and made.stride == 8
    assert made(torch.rand(1, 3, 32, 32)).shape == (1, 16, 4, 4)


def test_a_stride_without_a_width_is_refused():
    with pytest.raises(ek.InputError, match=r"one stride a width"):
        SmallBackbone(widths=(8, 8), strides=(1, 2, 2))


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_last_rectifier_is_a_module_that_hooks_reach(name):
    assert isinstance(ek.backbone(name).blocks[-1].rectify, nn.ReLU)


def test_gray_images_in_the_middle_of_the_range_are_zero_inside():
    seen = []
    made = ek.backbone("tiny")
    made.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    made(torch.full((1, 3, 32, 32), 0.5))

    assert seen[0].abs().max() == 0


def used(network):
    """`network` as if it had seen data, in double precision."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -1, 2)
                nn.init.normal_(module.bias)
    return network.double().eval()


def loose():
    """Batch norms that follow no convolution in a sequence."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.Flatten(),
        nn.Linear(4 * 36, 5), nn.BatchNorm1d(5),
    )  # fmt: skip


@pytest.mark.parametrize("make", [*(lambda name=name: ek.backbone(name) for name in BUILT_IN), loose])
def test_batch_norms_at_rest_leave_the_function_as_it_was(make):
    torch.manual_seed(0)
    network = used(make())
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    before = network(images)

    assert batch_mixing_module(network) is not None
    assert fold_batch_norm(network) is network and batch_mixing_module(network) is None

    torch.testing.assert_close(network(images), before, rtol=1e-10, atol=1e-10)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("make", [lambda: ek.backbone("tiny"), loose])
def test_with_batch_norms_at_rest_no_image_changes_another_in_training(make):
    torch.manual_seed(0)
    network = fold_batch_norm(used(make())).train()
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)

    among, other = network(images)[:1], network(torch.cat([images[:1], images[1:] * 0.3]))[:1]

    torch.testing.assert_close(among, other, rtol=1e-12, atol=1e-12)
    assert all(module.training for module in network.modules())


def test_a_batch_norm_that_follows_a_convolution_goes_into_it():
    network = fold_batch_norm(used(ek.backbone("tiny")))

    assert not any(isinstance(module, ChannelScale) for module in network.modules())
    assert network.stem[0].bias is not None


def test_what_does_not_learn_does_not_learn_at_rest_either():
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).requires_grad_(False)

    assert not any(parameter.requires_grad for parameter in fold_batch_norm(frozen).parameters())


def test_a_batch_norm_without_statistics_has_no_rest():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))

    assert batch_mixing_module(fold_batch_norm(network)) == "1"
    with pytest.raises(ek.InputError, match="keeps its statistics"):
        ChannelScale(network[1])


def test_what_normalizes_each_image_alone_mixes_none():
    assert (
        batch_mixing_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)))
        is None
    )
