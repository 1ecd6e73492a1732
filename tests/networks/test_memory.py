import time

import pytest
import torch
from torch import nn

from explainkit.errors import FormatError
from explainkit.explanations.serialization import as_format_error
from explainkit.networks.memory import MemoryLimit


def test_what_fits_is_made_as_ever():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))

    torch.manual_seed(0)
    with MemoryLimit(1000):
        made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))

    for name, value in plain.state_dict().items():
        assert torch.equal(made.state_dict()[name], value) and value.device.type == "cpu"


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(10**6, 10**6),
        lambda: nn.Conv2d(2**14, 2**14, 3),
        lambda: torch.rand(2**32),
        lambda: torch.eye(10**6),
        lambda: torch.arange(2**40),
        lambda: torch.zeros(1).expand(2**40).clone(),
        lambda: torch.ones(2**20, 1) @ torch.ones(1, 2**20),
        lambda: torch.arange(3).repeat_interleave(2**32),
        lambda: torch.zeros(0).new_zeros(2**40),
        lambda: [torch.zeros(2**25) for _ in range(3)],
        lambda: [nn.Linear(1, 1) for _ in range(10**9)],
    ],
    ids=range(11),
)
def test_what_is_out_of_proportion_is_refused_before_it_is_made(monkeypatch, make):
    monkeypatch.setattr("explainkit.networks.memory.ROOM", 2**26)
    started = time.perf_counter()

    with pytest.raises(FormatError, match="far larger than the file"), MemoryLimit(1000):
        make()

    assert time.perf_counter() - started < 10


def test_a_larger_file_may_hold_more():
    with MemoryLimit(2**26):
        torch.zeros(2**26)


def test_views_and_changes_in_place_take_nothing():
    with MemoryLimit(0) as memory_limit:
        values = torch.zeros(1000, 1000)
        remaining = memory_limit.remaining
        values.T[:500].expand(3, 500, 1000)
        values.add_(1)

    assert memory_limit.remaining == remaining


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), KeyError("a"), OverflowError(), AssertionError(), MemoryError()]
)
def test_what_goes_wrong_with_a_file_is_one_line(error):
    with (
        pytest.raises(FormatError, match=r"^'a' is damaged: \w+Error\(.*\)\.$") as raised,
        as_format_error("'a' is damaged"),
    ):
        raise error

    assert raised.value.__suppress_context__ and "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, NameError])
def test_what_is_not_the_files_fault_passes(error):
    with pytest.raises(error), as_format_error("'a' is damaged"):
        raise error
