import time

import pytest
import torch
from torch import nn

from explainkit.errors import FormatError
from explainkit.explanations.serialization import as_format_error
from explainkit.networks.memory import MemoryLimit, build_for


def network(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 2))


def test_a_network_whose_form_fits_is_made_as_ever():
    made = []

    torch.manual_seed(0)
    built = build_for(lambda: made.append(network()) or made[-1], network().state_dict())

    devices = [value.device.type for item in made for value in item.parameters()]
    assert devices == ["meta"] * 6 + ["cpu"] * 6 and built is made[1]


@pytest.mark.parametrize(
    "change", [lambda state: state.pop("2.bias"), lambda state: state.update(more=torch.ones(1))]
)
def test_a_state_of_other_names_is_refused(change):
    state = network().state_dict()
    change(state)

    with pytest.raises(RuntimeError, match=r"2\.bias|more"):
        build_for(network, state)


def test_a_state_of_other_shapes_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        build_for(network, network(width=9).state_dict())


def reading(width):
    """A network that reads a number as it is built."""
    return nn.Linear(int(torch.ones(1).item()), width)


def test_a_network_that_reads_numbers_as_it_is_built_is_built_and_counted(monkeypatch):
    monkeypatch.setattr("explainkit.networks.memory.ROOM", 2**20)

    assert build_for(lambda: reading(2), reading(2).state_dict()).out_features == 2
    with pytest.raises(FormatError, match="far larger than the file"):
        build_for(lambda: reading(2**30), reading(2).state_dict())


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

    with (
        pytest.raises(FormatError, match="far larger than the file"),
        torch.device("meta"),
        MemoryLimit(1000),
    ):
        make()

    assert time.perf_counter() - started < 10


def test_a_larger_file_may_hold_more():
    with torch.device("meta"), MemoryLimit(2**26):
        torch.zeros(2**26)


def test_views_and_changes_in_place_take_nothing():
    with torch.device("meta"), MemoryLimit(0) as memory_limit:
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
