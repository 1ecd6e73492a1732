"""What a graph computes is the algebra of explanations, whatever units, poolings and boxes are."""

import torch
from attrs import evolve
from graph_cases import Linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from explainkit.explanations.decomposition import Decomposition, PerImageWeights
from explainkit.explanations.factored_maps import FactoredMaps
from explainkit.explanations.spatial import resize
from explainkit.explanations.units import Units
from explainkit.export.explained_network import MEANING, ExplainedNetwork

EVERYTHING = ("logits", "base", "contributions", "scores", "weights", "maps", "saliency")
IMAGES, CLASSES, UNITS, SIZE = 3, 4, 5, (12, 10)


def drawn(*shape, seed, signed=False):
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values * 2 - 1 if signed else values


class Made(nn.Module):
    """A network of made numbers, whatever the images are."""

    def __init__(self, decomposition):
        super().__init__()
        self.decomposition = decomposition

    def decompose(self, images):
        return self.decomposition


@st.composite
def cases(draw):
    """A decomposition, and its units."""
    seed = draw(st.integers(0, 99))
    scores = drawn(IMAGES, UNITS, seed=seed, signed=True)
    weights = drawn(IMAGES, CLASSES, UNITS, seed=seed + 1, signed=True)
    is_constant = draw(st.booleans())
    if is_constant:
        weights = weights[:1].expand(IMAGES, -1, -1)
    bias = drawn(IMAGES, CLASSES, seed=seed + 2, signed=True)
    bias = bias[0] if draw(st.booleans()) else bias
    maps = drawn(IMAGES, UNITS, 3, 4, seed=seed + 3)
    maps[0, 1] = 0  # has no place
    pooling = draw(
        st.sampled_from(["mean", "sum", "max", "coupled"])
        | st.just(("max", "mean", "sum", "max", "coupled"))
        | st.just(("sum", "none", "max", "max", "mean"))
    )
    if isinstance(pooling, tuple):
        for unit, name in enumerate(pooling):
            maps[:, unit] *= name != "none"
    if draw(st.booleans()):
        attention, features = drawn(IMAGES, 2, 3, 4, seed=seed + 4), drawn(IMAGES, 3, 3, 4, seed=seed + 5)
        maps = FactoredMaps(
            attention=attention, features=features, part=torch.tensor([0, 0, 1, 1, 0]),
            channel=torch.tensor([0, 1, 1, 2, 2]),
        )  # fmt: skip
        pooling = draw(st.sampled_from(["sum", "max", ("max", "sum", "sum", "max", "sum")]))
    group = boxes = None
    if draw(st.booleans()):
        group = torch.tensor([0, 1, 1, 0, 1])
        boxes = torch.tensor([[[0.0, 0, 10, 12], [2, 3, 7, 9]]]).double().expand(IMAGES, -1, -1)
    reference = drawn(UNITS, seed=seed + 6) if draw(st.booleans()) else None
    decomposition = Decomposition(
        logits=torch.einsum("nck,nk->nc", weights, scores) + bias, bias=bias, scores=scores, maps=maps,
        weights=weights[0] if is_constant else PerImageWeights(weights), boxes=boxes,
    )  # fmt: skip
    units = Units(
        kind="filter", names=[f"filter {k}" for k in range(UNITS)], pooling=pooling, group=group,
        reference=reference,
    )  # fmt: skip
    return decomposition, units, weights


def cells(decomposition, n, k):
    maps = decomposition.maps
    if isinstance(maps, FactoredMaps):
        return maps.attention[n, maps.part[k]] * maps.features[n, maps.channel[k]]
    return maps[n, k]


def placed(decomposition, units, contributions):
    """Saliency by a loop over images and units; without boxes."""
    saliency = torch.zeros(IMAGES, *SIZE, dtype=torch.float64)
    for n in range(IMAGES):
        for k in range(UNITS):
            map = cells(decomposition, n, k)
            if not map.any():
                continue
            share = map / map.sum()
            if units.pooling_of(k) == "max":
                share = torch.zeros_like(map)
                share.view(-1)[map.argmax()] = 1
            saliency[n] += resize(contributions[n, k] * share, SIZE)
    return saliency


@given(cases(), st.sampled_from([None, 1, 3, 5]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_outputs_are_those_of_a_literal_loop(case, top, with_targets):
    decomposition, units, table = case
    network = ExplainedNetwork(Made(decomposition), units, EVERYTHING, SIZE, top)
    targets = torch.tensor([3, 0, 2]) if with_targets else None

    columns = network.columns(torch.zeros(IMAGES, 3, *SIZE), targets)

    chosen = decomposition.logits.argmax(1) if targets is None else targets
    assert ("targets" in columns) != with_targets
    contributions = torch.zeros(IMAGES, UNITS, dtype=torch.float64)
    for n in range(IMAGES):
        c = int(chosen[n])
        base = decomposition.bias[c] if decomposition.bias.ndim == 1 else decomposition.bias[n, c]
        for k in range(UNITS):
            reference = 0 if units.reference is None else units.reference[k]
            contributions[n, k] = table[n, c, k] * (decomposition.scores[n, k] - reference)
            base = base + table[n, c, k] * reference
        torch.testing.assert_close(columns["base"][n], base)
    order = torch.arange(UNITS).expand(IMAGES, -1)
    if top is not None:
        order = columns["units"]
        strongest = contributions.abs().sort(1, descending=True).indices[:, :top]
        assert torch.equal(order, strongest)
        rest = contributions.sum(1) - contributions.gather(1, order).sum(1)
        torch.testing.assert_close(columns["remainder"], rest)
    torch.testing.assert_close(columns["contributions"], contributions.gather(1, order))
    torch.testing.assert_close(columns["scores"], decomposition.scores.gather(1, order))
    for n in range(IMAGES):
        for position, k in enumerate(order[n].tolist()):
            torch.testing.assert_close(columns["maps"][n, position], cells(decomposition, n, k))
            torch.testing.assert_close(columns["weights"][n, position], table[n, chosen[n], k])
    if decomposition.boxes is None:
        torch.testing.assert_close(columns["saliency"], placed(decomposition, units, contributions))
    else:
        assert torch.equal(columns["boxes"], decomposition.boxes)
        localized = torch.stack(
            [
                torch.stack([contributions[n, k] * cells(decomposition, n, k).any() for k in range(UNITS)])
                for n in range(IMAGES)
            ]
        )
        torch.testing.assert_close(columns["saliency"].sum((1, 2)), localized.sum(1))


@given(
    st.lists(st.sampled_from(EVERYTHING), min_size=1, unique=True), st.sampled_from([None, 2]), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_what_is_given_is_what_was_asked_for_and_what_it_takes_to_read_it(outputs, top, has_boxes):
    decomposition, units, _ = made_case(has_boxes)
    network = ExplainedNetwork(Made(decomposition), units, outputs, SIZE, top)

    names = list(network.columns(torch.zeros(IMAGES, 3, *SIZE)))

    of_units = {"contributions", "scores", "weights", "maps"} & set(outputs)
    needed = set(outputs)
    needed |= {"targets"} if set(outputs) - {"logits", "scores", "maps"} else set()
    needed |= {"boxes"} if has_boxes and "maps" in outputs else set()
    if top is not None:
        needed |= ({"units"} if of_units else set()) | (
            {"remainder"} if "contributions" in outputs else set()
        )
        needed |= {"targets"} if of_units else set()
    assert set(names) == needed
    assert names == [name for name in MEANING if name in needed]


def made_case(has_boxes):
    boxes = torch.tensor([[[0.0, 0, 10, 12]]]).double().expand(IMAGES, -1, -1) if has_boxes else None
    weights = drawn(CLASSES, UNITS, seed=1, signed=True)
    scores = drawn(IMAGES, UNITS, seed=2)
    decomposition = Decomposition(
        logits=scores @ weights.T, bias=torch.zeros(CLASSES).double(), scores=scores, weights=weights,
        maps=drawn(IMAGES, UNITS, 3, 4, seed=3), boxes=boxes,
    )  # fmt: skip
    names = [f"filter {k}" for k in range(UNITS)]
    return decomposition, Units(kind="filter", names=names, pooling="sum"), weights


def test_units_without_maps_have_no_places():
    decomposition, units, _ = made_case(has_boxes=False)
    network = ExplainedNetwork(Made(evolve(decomposition, maps=None)), units, EVERYTHING, SIZE, None)

    assert not {"maps", "saliency"} & network.columns(torch.zeros(IMAGES, 3, *SIZE)).keys()


def test_the_tuple_is_in_the_order_of_the_names():
    network = ExplainedNetwork(
        Linear(),
        Units(kind="color", names=("red", "green", "blue"), pooling="none"),
        ("contributions", "logits"),
        (8, 8),
        None,
    )
    images = torch.rand(2, 3, 8, 8)

    assert all(
        torch.equal(one, other)
        for one, other in zip(network(images), network.columns(images).values(), strict=True)
    )
