"""Units of different pooling side by side: each contribution goes where its own unit's pooling says."""

from types import SimpleNamespace

import pytest
import torch
from explanation_cases import REFERENCE, drawn, make_explanations, make_units
from hypothesis import given, settings
from hypothesis import strategies as st

import explainkit as ek
from explainkit.errors import FormatError, InputError
from explainkit.explanations.files import units_from_json, units_to_json
from explainkit.explanations.serialization import as_json
from explainkit.explanations.spatial import distribute, distribute_sum, paste, resize
from explainkit.questions.region_swap import _RegionSwapSearch
from explainkit.rendering import html

MIXED = ("mean", "max", "none", "coupled", "max")


def mixed_maps(number=4):
    """Maps of units pooled as MIXED says; one of them is zero in one image."""
    maps = drawn(number, 5, 4, 4, seed=3)
    maps[:, 2] = 0
    maps[0, 4] = 0
    return maps


def make_mixed(**fields):
    return make_explanations(**{"units": make_units(pooling=MIXED), "maps": mixed_maps()} | fields)


def literal_share(unit_map, pooling):
    """One map (h, w) as shares of its contribution, cell by cell."""
    share = torch.zeros_like(unit_map)
    cells = [(row, column) for row in range(unit_map.shape[0]) for column in range(unit_map.shape[1])]
    if pooling == "none" or not unit_map.any():
        return share
    if pooling == "max":
        share[max(cells, key=lambda cell: unit_map[cell].item())] = 1
        return share
    for cell in cells:
        share[cell] = unit_map[cell] / sum(unit_map[other] for other in cells)
    return share


def literal_saliency(contributions, maps, poolings):
    """Contributions distributed one by one."""
    saliency = torch.zeros(len(maps), *maps.shape[2:], dtype=maps.dtype)
    for n in range(len(maps)):
        for k, pooling in enumerate(poolings):
            saliency[n] += contributions[n, k] * literal_share(maps[n, k], pooling)
    return saliency


@given(
    st.lists(st.sampled_from(["mean", "sum", "max", "coupled", "none"]), min_size=1, max_size=6),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_saliency_distributes_each_contribution_by_its_own_pooling(poolings, seed):
    maps = drawn(2, len(poolings), 3, 4, seed=seed)
    maps[:, [k for k, pooling in enumerate(poolings) if pooling == "none"]] = 0
    contributions = drawn(2, len(poolings), seed=seed + 1, signed=True)
    expected = literal_saliency(contributions, maps, poolings)

    torch.testing.assert_close(distribute_sum(contributions, maps, tuple(poolings)), expected)
    torch.testing.assert_close(distribute(contributions, maps, tuple(poolings)).sum(1), expected)
    by_group = torch.stack([contributions, 2 * contributions], 1)
    torch.testing.assert_close(
        distribute_sum(by_group, maps, tuple(poolings)), torch.stack([expected, 2 * expected], 1)
    )


def test_the_saliency_of_explanations_is_resized_once_and_units_without_a_place_are_nonspatial():
    explanations = make_mixed()

    expected = literal_saliency(explanations.contributions, explanations.maps, MIXED)

    torch.testing.assert_close(explanations.saliency((4, 4)), expected)
    torch.testing.assert_close(explanations.saliency(), resize(expected, (16, 16)))
    nonspatial = explanations.contributions[:, 2].clone()
    nonspatial[0] += explanations.contributions[0, 4]
    torch.testing.assert_close(explanations.nonspatial, nonspatial)


def test_in_boxes_too_each_group_has_its_own_poolings():
    group = torch.tensor([0, 1, 0, 1, 1])
    boxes = torch.tensor([[[0.0, 0, 16, 16], [3, 2, 9, 13]]]).double().expand(4, -1, -1)
    explanations = make_mixed(units=make_units(pooling=MIXED, group=group), boxes=boxes)

    grids = [
        literal_saliency(explanations.contributions * (group == g), explanations.maps, MIXED) for g in (0, 1)
    ]

    expected = paste(torch.stack(grids, 1), boxes, (16, 16), (16, 16))
    torch.testing.assert_close(explanations.saliency(), expected)
    torch.testing.assert_close(explanations.keep_maps(2).saliency(), expected)


@pytest.mark.parametrize("count", range(6))
def test_kept_maps_are_distributed_as_their_units_are_pooled(count):
    explanations = make_mixed()

    kept = explanations.keep_maps(count)

    torch.testing.assert_close(kept.saliency(), explanations.saliency())
    torch.testing.assert_close(kept.nonspatial, explanations.nonspatial)
    torch.testing.assert_close(kept.keep_maps(1).saliency(), explanations.saliency())
    if kept.map_units is None:
        return
    for n, units in enumerate(kept.map_units.tolist()):
        strongest = explanations.contributions[n : n + 1, units]
        expected = literal_saliency(strongest, explanations.maps[n : n + 1, units], [MIXED[k] for k in units])
        torch.testing.assert_close(kept.saliency((4, 4))[n], expected[0] + kept.remainder_map[n])


def test_k_equal_poolings_are_one():
    units = make_units(pooling=["max"] * 5)

    assert units.pooling == "max" and units.poolings == ("max",) * 5 and units.pooling_of(3) == "max"
    maps, contributions = drawn(2, 5, 4, 4), drawn(2, 5, signed=True, seed=1)
    assert torch.equal(
        distribute_sum(contributions, maps, units.pooling), distribute_sum(contributions, maps, "max")
    )


def test_units_know_the_pooling_of_each():
    units = make_units(pooling=list(MIXED))

    assert units.pooling == units.poolings == MIXED
    assert [units.pooling_of(k) for k in range(5)] == list(MIXED)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        (("mean", "max"), "for 5 units; got 2"),
        (("max",) * 6, "for 5 units; got 6"),
        ((), "for 5 units; got 0"),
        (("mean", "max", "mean", "median", "max"), "'median'"),
        (("mean", "max", "mean", ["max"], "max"), "max"),
        ("median", "'median'"),
        (None, "None"),
    ],
)
def test_other_poolings_are_refused(pooling, message):
    with pytest.raises(InputError, match=r"units\.pooling") as error:
        make_units(pooling=pooling)
    assert message in str(error.value)


def test_a_map_of_a_unit_without_a_place_is_refused():
    with pytest.raises(InputError, match=r"maps of zeros .* 'filter 2'"):
        make_mixed(maps=drawn(4, 5, 4, 4))
    map_units = torch.tensor([[0, 1], [3, 2], [4, 1], [1, 0]])
    with pytest.raises(InputError, match=r"maps of zeros .* 'filter 2'"):
        make_mixed(maps=drawn(4, 2, 4, 4), map_units=map_units)


def test_the_evidence_of_a_unit_without_a_place_has_no_map():
    explanations = make_mixed()

    evidence = sorted(explanations[1].evidence, key=lambda item: item.unit)

    assert [item.map is None for item in evidence] == [False, False, True, False, False]


@pytest.mark.parametrize("maps", [None, 0, 2, 5])
def test_files_keep_the_pooling_of_each_unit(tmp_path, maps):
    explanations = make_mixed()

    loaded = ek.Explanations.load(explanations.save(tmp_path / "file", maps=maps, dtype=torch.float64))

    assert loaded.units.pooling == MIXED
    torch.testing.assert_close(loaded.saliency(), explanations.saliency())
    torch.testing.assert_close(loaded.nonspatial, explanations.nonspatial)


def test_the_vocabulary_of_a_file_is_refused_where_poolings_are_wrong():
    facts, tensors = units_to_json(make_units(pooling=MIXED))
    facts = as_json(facts)

    assert units_from_json(facts | {"pooling": list(MIXED)}, tensors).pooling == MIXED
    for wrong in (["mean"], [1, 2, 3, 4, 5], ["mean", "max", [], {}, None]):
        with pytest.raises((InputError, FormatError)):
            units_from_json(facts | {"pooling": wrong}, tensors)


def test_pages_look_closer_at_what_came_from_one_cell(monkeypatch):
    thresholds = []
    monkeypatch.setattr(
        html, "spotlight", lambda image, unit_map, side, threshold: thresholds.append(threshold)
    )
    monkeypatch.setattr(html, "data_uri", lambda picture: "")
    explanation = make_mixed()[1]

    for unit in range(5):
        html._unit_row(explanation, explanation.evidence_of(unit), 1.0)

    assert thresholds == [0.5, 0.85, 0.5, 0.85]


def test_swapped_regions_are_weighed_by_the_pooling_of_each_unit():
    """The reference cancels where scores are sums over cells, and counts where they are not."""
    explanations = make_mixed()
    weights = drawn(4, 5, seed=7, signed=True)
    units = make_units(pooling=MIXED, reference=REFERENCE)
    search = SimpleNamespace(units=units, grid=(4, 4))
    goals = SimpleNamespace(weights=lambda decomposition, foils: weights)
    decomposition = explanations.decomposition.select(torch.arange(4))
    object.__setattr__(decomposition, "maps", explanations.maps)

    evidence = _RegionSwapSearch._evidence_by_cell(search, decomposition, (4, 4), goals, None)

    scores = decomposition.scores.clone()
    for k, pooling in enumerate(MIXED):
        if pooling not in ("mean", "sum"):
            scores[:, k] -= REFERENCE[k]
    torch.testing.assert_close(evidence, literal_saliency(weights * scores, explanations.maps, MIXED))


@pytest.mark.parametrize("count", [1.5, True, None, -1, "2"])
def test_a_number_of_maps_that_is_none_is_refused(count, tmp_path):
    explanations = make_mixed()

    for asked in (explanations, explanations.without_maps()):
        with pytest.raises(InputError, match="whole number of at least 0"):
            asked.keep_maps(count)
        if count is not None:  # all of them
            with pytest.raises(InputError, match="maps as a whole number of at least 0"):
                asked.save(tmp_path / "file", maps=count)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, "float16", None])
def test_maps_are_saved_as_floats_alone(dtype, tmp_path):
    with pytest.raises(InputError, match="dtype of maps as one of torch's float32"):
        make_mixed().save(tmp_path / "file", dtype=dtype)
    assert not list(tmp_path.iterdir())
