"""Explanations whose maps are products of factors, and the same with the maps built, by loops."""

import torch
from attrs import evolve
from explanation_cases import drawn, make_explanations, make_units
from hypothesis import strategies as st

from explainkit.explanations.factored_maps import FactoredMaps

POOLINGS = ("mean", "sum", "max", "coupled", "none")


def make_factored(number, parts, channels, part, channel, grid=(4, 3), seed=0):
    """Factors with cells, planes and images of zeros among them; the last part is zero everywhere."""
    attention, features = (
        drawn(number, parts, *grid, seed=seed),
        drawn(number, channels, *grid, seed=seed + 1),
    )
    attention, features = attention * (attention > 0.3), features * (features > 0.3)
    attention[:, -1] = 0
    features[:1, :1] = 0
    return FactoredMaps(
        attention=attention, features=features, part=torch.tensor(part, dtype=torch.long),
        channel=torch.tensor(channel, dtype=torch.long),
    )  # fmt: skip


def built(maps):
    """The maps of all units, one by one."""
    dense = torch.zeros(maps.shape, dtype=maps.dtype)
    for n in range(dense.shape[0]):
        for k in range(dense.shape[1]):
            dense[n, k] = maps.attention[n, maps.part[k]] * maps.features[n, maps.channel[k]]
    return dense


@st.composite
def factored_and_dense(draw, least=1):
    """Explanations by factored maps of any poolings, and the same by the maps that `built` makes."""
    number, parts, channels = draw(st.integers(least, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 4))
    count = draw(st.integers(1, 7))
    pooling = draw(
        st.sampled_from(POOLINGS[:-1])
        | st.tuples(*[st.sampled_from(POOLINGS) for _ in range(count)]).filter(
            lambda names: set(names) != {"none"}
        )
    )
    part = draw(st.lists(st.integers(0, parts - 1), min_size=count, max_size=count))
    if not isinstance(pooling, str):
        part = [parts - 1 if name == "none" else index for name, index in zip(pooling, part, strict=True)]
    channel = draw(st.lists(st.integers(0, channels - 1), min_size=count, max_size=count))
    grid = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    maps = make_factored(number, parts, channels, part, channel, grid, draw(st.integers(0, 99)))
    fields = {}
    group = None
    if draw(st.booleans()):
        group = torch.arange(count) % 2
        fields["boxes"] = torch.tensor([[[0.0, 0, 16, 16], [2, 4, 11, 9]]]).double().expand(number, -1, -1)
    units = make_units(count, pooling=pooling, group=group)
    return tuple(with_maps(kind, number, count, units, **fields) for kind in (maps, built(maps)))


def with_maps(maps, number, count, units, **fields):
    """Explanations that have `maps`, and a decomposition that has them too."""
    explanations = make_explanations(number, count, units=units, maps=maps, **fields)
    decomposition = evolve(explanations.decomposition, maps=maps, boxes=explanations.boxes)
    return evolve(explanations, decomposition=decomposition)
