import pytest
import torch
from torch import nn

from explainkit.networks.precision import disable_autocast, full_precision, reference_tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_becomes_float32(dtype):
    assert full_precision(torch.ones(1, dtype=dtype)).dtype is torch.float32


def test_full_precision_keeps_what_is_no_less():
    values = torch.ones(1, dtype=torch.float64)

    assert full_precision(values) is values


def test_sums_keep_their_precision_where_autocast_is_disabled():
    head, scores = nn.Linear(3, 2), torch.rand(4, 3)

    with torch.autocast("cpu", torch.bfloat16):
        assert head(scores).dtype is torch.bfloat16
        with disable_autocast(scores.device):
            assert head(scores).dtype is torch.float32
        assert head(scores).dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reference_tensor_has_the_precision_of_the_network(dtype):
    assert reference_tensor(nn.Linear(3, 2).to(dtype)).dtype is dtype


def test_a_network_without_floating_parameters_is_in_the_default_precision():
    reference = reference_tensor(nn.Flatten())

    assert reference.dtype is torch.get_default_dtype() and reference.device.type == "cpu"
