"""Maps that are products of factors are what the tensor of them would be, and are never built at once."""

import pickle

import pytest
import torch
from attrs import evolve
from explanation_cases import drawn, make_explanations, make_units
from factored_cases import built, factored_and_dense, make_factored, with_maps
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import explainkit as ek
from explainkit.errors import FormatError, InputError
from explainkit.explanations import factored_maps
from explainkit.explanations.factored_maps import FactoredMaps, concat_maps, dense_maps, map_blocks
from explainkit.explanations.spatial import best_cells, distribute_sum, is_localized
from explainkit.questions.exemplars import _best_cells
from explainkit.questions.unit_maps import _kept, _on_grid

PROPORTIONAL = ["mean", "sum", "coupled"]


def assert_same(one, other):
    """Equal numbers, places, words and files, up to the rounding of sums in another order."""
    for name in ("contributions", "nonspatial", "residual"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    for size in (None, (5, 7)):
        torch.testing.assert_close(one.saliency(size), other.saliency(size))
    assert torch.equal(dense_maps(one.maps), dense_maps(other.maps))
    assert tuple(one.maps.shape) == tuple(other.maps.shape) and one.maps.dtype == other.maps.dtype


def maps_on_grid(explanations, grid, size=2**20):
    """The maps that units are named by, `size` units at a time."""
    units = torch.arange(len(explanations.units))
    parts = [_on_grid(_kept(explanations, part, grid), grid) for part in units.split(size)]
    return torch.cat(parts, 1)


@given(factored_and_dense())
@settings(max_examples=60, deadline=None)
def test_factored_maps_explain_as_the_maps_that_they_stand_for(pair):
    factored, dense = pair

    assert_same(factored, dense)
    assert torch.equal(is_localized(factored.maps), is_localized(dense.maps))
    assert torch.equal(best_cells(factored.maps), best_cells(dense.maps))
    for one, other in zip(_best_cells(factored), _best_cells(dense), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(maps_on_grid(factored, (3, 2)), maps_on_grid(dense, (3, 2)))
    for one, other in zip(factored, dense, strict=True):
        for mine, theirs in zip(one.top(3), other.top(3), strict=True):
            assert mine.unit == theirs.unit and (mine.map is None) == (theirs.map is None)
            assert mine.map is None or torch.equal(mine.map, theirs.map)


@given(factored_and_dense(), st.integers(0, 7), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_kept_maps_are_those_of_the_tensor_and_are_dense(pair, count, fewer):
    kept, expected = (explanations.keep_maps(count) for explanations in pair)

    assert_same(kept, expected)
    assert (kept.map_units is None) == (expected.map_units is None)
    if kept.map_units is not None:
        assert isinstance(kept.maps, torch.Tensor) and torch.equal(kept.map_units, expected.map_units)
        torch.testing.assert_close(kept.remainder_map, expected.remainder_map)
    torch.testing.assert_close(kept.saliency(), pair[0].saliency())
    torch.testing.assert_close(kept.nonspatial, pair[0].nonspatial)
    assert_same(kept.keep_maps(fewer), expected.keep_maps(fewer))
    torch.testing.assert_close(kept.keep_maps(fewer).saliency(), pair[0].saliency())


@given(factored_and_dense(least=2))
@settings(max_examples=40, deadline=None)
def test_they_are_selected_joined_contrasted_and_pickled_as_the_tensor(pair):
    factored, dense = pair

    for change in (
        lambda explanations: explanations[[1, 0]],
        lambda explanations: explanations[1:],
        lambda explanations: explanations[:0],
        lambda explanations: explanations[torch.tensor([True] + [False] * (len(explanations) - 1))],
        lambda explanations: ek.Explanations.concat([explanations[1:], explanations[:1]]),
        lambda explanations: explanations.contrast(2),
        lambda explanations: explanations.intervene({0: 2.5}),
        lambda explanations: explanations.to("cpu"),
        lambda explanations: pickle.loads(pickle.dumps(evolve(explanations, decomposition=None))),
    ):
        changed = change(factored)
        assert isinstance(changed.maps, FactoredMaps)
        assert_same(changed, change(dense))
        if changed.decomposition is not None:
            assert torch.equal(dense_maps(changed.decomposition.maps), dense_maps(changed.maps))
    assert factored.without_maps().maps is None


@given(factored_and_dense(), st.sampled_from([None, 0, 1, 3]))
@settings(max_examples=30, deadline=None)
def test_files_hold_the_factors_where_all_maps_are_kept(tmp_path_factory, pair, maps):
    folder = tmp_path_factory.mktemp("files")

    mine, theirs = (
        ek.Explanations.load(explanations.save(folder / name, maps=maps, dtype=torch.float64))
        for name, explanations in zip(("factored", "dense"), pair, strict=True)
    )

    assert_same(mine, theirs)
    assert mine.units.pooling == pair[0].units.pooling
    if maps is None:
        assert isinstance(mine.maps, FactoredMaps)
        assert torch.equal(ek.Explanations.load(folder / "factored").saliency(), pair[0].saliency())


def test_factors_are_saved_without_rounding_whatever_the_type_of_maps(tmp_path):
    maps = make_factored(2, 3, 2, [0, 1, 1, 0], [0, 1, 0, 1])
    maps = evolve(maps, attention=maps.attention * 1e-9)
    explanations = with_maps(maps, 2, 4, make_units(4, pooling="max"))

    loaded = ek.Explanations.load(explanations.save(tmp_path / "file", maps=None))

    for name in ("attention", "features", "part", "channel"):
        assert torch.equal(getattr(loaded.maps, name), getattr(maps, name))
    assert torch.equal(loaded.nonspatial, explanations.nonspatial)


def test_a_decomposition_carries_factors_through_every_operation():
    maps = make_factored(3, 3, 2, [0, 1, 1, 0, 2], [0, 1, 0, 1, 0])
    decomposition = make_explanations(3, maps=built(maps)).decomposition
    decomposition = evolve(decomposition, maps=evolve(maps, features=maps.features.clone().requires_grad_()))

    selected, cut = decomposition.select(torch.tensor([2, 0])), decomposition.detach()

    assert torch.equal(dense_maps(selected.maps), built(maps)[[2, 0]])
    assert decomposition.maps.dense().requires_grad and not cut.maps.dense().requires_grad
    assert torch.equal(pickle.loads(pickle.dumps(cut)).maps.dense(), built(maps))


def test_pairs_of_images_and_units_are_looked_up_as_in_the_tensor():
    maps = make_factored(3, 3, 2, [0, 1, 1, 0, 2], [0, 1, 0, 1, 0])
    rows, units = torch.tensor([[2], [0]]), torch.tensor([[4, 1, 1], [0, 2, 3]])

    assert torch.equal(maps[rows, units], built(maps)[rows, units])
    assert torch.equal(maps[1, 3], built(maps)[1, 3])
    assert torch.equal(maps.take_units(slice(1, 4)).dense(), built(maps)[:, 1:4])
    assert len(maps) == 3 and maps[:2].shape == (2, 5, 4, 3)


@pytest.mark.parametrize("block", [1, 20, 100, 10**6])
def test_blocks_of_any_size_hold_every_unit_once(monkeypatch, block):
    monkeypatch.setattr(factored_maps, "LARGEST_BLOCK", block)
    maps = make_factored(2, 4, 3, [p for p in range(4) for _ in range(3)], [0, 1, 2] * 4)

    blocks = list(map_blocks(maps))

    assert torch.equal(torch.cat([values for _, values in blocks], 1), built(maps))
    assert torch.equal(torch.cat([torch.arange(12)[units] for units, _ in blocks]), torch.arange(12))
    contributions = drawn(2, 12, signed=True)
    for pooling in (*PROPORTIONAL, "max"):
        torch.testing.assert_close(
            distribute_sum(contributions, maps, pooling), distribute_sum(contributions, built(maps), pooling)
        )


@pytest.mark.parametrize("peak", [0.0, 1e-45, 0.5e-30, 0.999e-30, 1.001e-30, 1e-29, 1e-28, 1.0])
@pytest.mark.parametrize("cells", [1, 9, 100])
def test_a_factored_map_is_a_place_above_the_faintest_peak_alone(peak, cells):
    features = torch.full((1, 2, cells, 1), peak**0.5, dtype=torch.float64)
    features[0, 1, 1:] = 0
    maps = FactoredMaps(
        attention=features[:, :1], features=features, part=torch.tensor([0, 0]), channel=torch.tensor([0, 1])
    )

    assert torch.equal(is_localized(maps), is_localized(built(maps)))
    torch.testing.assert_close(
        distribute_sum(torch.ones(1, 2).double(), maps, "sum"),
        distribute_sum(torch.ones(1, 2).double(), built(maps), "sum"),
    )


def test_parts_with_other_factors_are_joined_as_tensors():
    one, other = (make_factored(2, 3, 2, part, [0, 1, 0]) for part in ([0, 1, 1], [1, 1, 0]))

    joined = concat_maps([one, other])

    assert isinstance(joined, torch.Tensor) and torch.equal(joined, torch.cat([built(one), built(other)]))
    assert torch.equal(concat_maps([one, built(one)]), torch.cat([built(one)] * 2))
    assert isinstance(concat_maps([one, one[:1]]), FactoredMaps)


WRONG = {
    "other_images": (lambda maps: {"attention": maps.attention[:1]}, "attention"),
    "another_grid": (lambda maps: {"attention": maps.attention[..., :2]}, "attention"),
    "no_cells": (
        lambda maps: {"attention": maps.attention[..., :0], "features": maps.features[..., :0]}, "attention",
    ),
    "a_flat_factor": (lambda maps: {"features": maps.features.flatten(2)}, "features"),
    "no_such_part": (lambda maps: {"part": maps.part + 3}, "maps.part in 0"),
    "a_negative_channel": (lambda maps: {"channel": maps.channel - 1}, "maps.channel in 0"),
    "channels_as_floats": (lambda maps: {"channel": maps.channel.double()}, "maps.channel of int64"),
    "too_few_channels": (lambda maps: {"channel": maps.channel[:3]}, "maps.channel of"),
    "too_few_units": (lambda maps: {"part": maps.part[:3], "channel": maps.channel[:3]}, "4, h, w"),
    "another_precision": (lambda maps: {"attention": maps.attention.float()}, "float64"),
    "a_negative_factor": (lambda maps: {"features": maps.features - 2}, "never negative"),
    "a_factor_that_is_not_finite": (lambda maps: {"attention": maps.attention / 0}, "finite"),
    "an_infinite_product": (
        lambda maps: {"attention": maps.attention * 1e200, "features": maps.features * 1e200}, "products",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_factors_that_make_no_maps_are_refused(name):
    change, message = WRONG[name]
    maps = make_factored(2, 3, 2, [0, 1, 1, 0], [0, 1, 0, 1])

    with pytest.raises(InputError, match=message):
        make_explanations(2, 4, maps=evolve(maps, **change(maps)))


def test_factored_maps_of_chosen_units_are_refused():
    maps = make_factored(2, 3, 2, [0, 1], [0, 1])

    with pytest.raises(InputError, match="dense_maps"):
        make_explanations(2, 4, maps=maps, map_units=torch.tensor([[0, 1], [2, 3]]))


def test_a_file_whose_factors_make_no_maps_or_gigantic_ones_is_refused(tmp_path):
    maps = make_factored(2, 3, 2, [0, 1, 1, 0], [0, 1, 0, 1])
    explanations = make_explanations(2, 4, maps=maps, decomposition=None)
    object.__setattr__(maps, "part", maps.part + 3)
    with pytest.raises(FormatError, match=r"maps\.part"):
        ek.Explanations.load(explanations.save(tmp_path / "file", maps=None))

    pairs = FactoredMaps(
        attention=torch.ones(1, 9000, 1, 1), features=torch.ones(1, 9000, 1, 1),
        part=torch.zeros(4, dtype=torch.long), channel=torch.zeros(4, dtype=torch.long),
    )  # fmt: skip
    cells = FactoredMaps(
        attention=torch.ones(1, 1, 100, 100), features=torch.ones(1, 1, 100, 100),
        part=torch.zeros(9000, dtype=torch.long), channel=torch.zeros(9000, dtype=torch.long),
    )  # fmt: skip
    for gigantic, count in ((pairs, 4), (cells, 9000)):
        whole = with_maps(evolve_double(gigantic), 1, count, make_units(count))
        path = whole.save(tmp_path / "gigantic", maps=None)
        with pytest.raises(FormatError, match="can be shown"):
            ek.Explanations.load(path)


def evolve_double(maps):
    return evolve(maps, attention=maps.attention.double(), features=maps.features.double())


class LargestTensor(TorchDispatchMode):
    """The bytes of the largest tensor that any operation gives."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("pooling", ["sum", "max", "mixed"])
def test_no_tensor_of_all_maps_is_ever_made(pooling):
    number, parts, channels, side = 8, 4, 512, 28
    count, generator = parts * channels, torch.Generator().manual_seed(0)
    part, channel = torch.cartesian_prod(torch.arange(parts), torch.arange(channels)).unbind(1)
    maps = FactoredMaps(
        attention=torch.rand(number, parts, side, side, generator=generator).double(),
        features=torch.rand(number, channels, side, side, generator=generator).double().relu(),
        part=part, channel=channel,
    )  # fmt: skip
    names = ("mean", "max", "coupled", "sum")
    units = make_units(
        count, pooling=tuple(names[k % 4] for k in range(count)) if pooling == "mixed" else pooling
    )

    with LargestTensor() as recorded:
        explanations = with_maps(maps, number, count, units)
        explanations.saliency()
        assert not explanations.nonspatial.any()
        explanations.keep_maps(10).saliency()
        explanations[0].top(3)
        explanations[[1, 0]].contrast(0).saliency()
        _best_cells(explanations)
        maps_on_grid(explanations, (7, 7), 256)

    all_maps = number * count * side * side * 8
    assert maps.features.untyped_storage().nbytes() <= recorded.largest <= all_maps / 3


def test_faint_factors_keep_their_places_under_the_callers_autocast():
    maps = make_factored(2, 3, 2, [0, 1, 1, 0], [0, 1, 0, 1])
    maps = evolve(maps, attention=maps.attention.float() * 1e-12, features=maps.features.float())
    expected = is_localized(maps), distribute_sum(torch.ones(2, 4), maps, "sum")

    with torch.autocast("cpu", torch.float16):
        given = is_localized(maps), distribute_sum(torch.ones(2, 4), maps, "sum")

    assert expected[0].any() and torch.equal(given[0], expected[0]) and torch.equal(given[1], expected[1])
