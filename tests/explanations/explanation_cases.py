"""Explanations of made numbers, whose fields a test may replace."""

import torch

from explainkit.explanations.batch import Explanations
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.provenance import Provenance
from explainkit.explanations.units import Units

CLASSES = ("cardinal", "jay", "wren")


def drawn(*shape, seed=0, signed=False):
    """Random numbers in [0, 1), or in [-1, 1) where `signed`."""
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values * 2 - 1 if signed else values


REFERENCE = drawn(5, seed=9)


def make_units(count=5, **fields):
    """Filters; `fields` replace those of `Units`."""
    return Units(
        **{"kind": "filter", "names": [f"filter {k}" for k in range(count)], "pooling": "mean"} | fields
    )


def make_explanations(number=4, count=5, reference=None, callable_weights=False, **fields):
    """Explanations of `number` images by `count` units, which add up, with every class known."""
    table = drawn(number, 3, count, seed=1, signed=True)
    if not callable_weights:
        table = table[:1].expand(number, -1, -1)
    scores, bias, targets = drawn(number, count), drawn(3, seed=2), torch.arange(number) % 3
    maps = drawn(number, count, 4, 4, seed=3)
    logits = torch.einsum("nck,nk->nc", table, scores) + bias
    weights = table[torch.arange(number), targets]
    base = bias[targets] + (0 if reference is None else (weights * reference).sum(1))
    decomposition = Decomposition(
        logits=logits,
        bias=bias,
        scores=scores,
        maps=maps,
        weights=(lambda rows, targets: table[rows, targets]) if callable_weights else table[0],
    )
    values = {
        "logits": logits,
        "targets": targets,
        "base": base,
        "scores": scores,
        "weights": weights,
        "maps": maps,
        "units": make_units(count, reference=reference),
        "classes": CLASSES,
        "images": drawn(number, 3, 16, 16, seed=4),
        "additivity": "exact",
        "provenance": Provenance(explainer="made", created="2026-01-01T00:00:00+00:00"),
        "decomposition": decomposition,
    }
    return Explanations(**values | fields)


def changed(index, value, name):
    """The field `name` of `make_explanations()` with one value changed."""
    values = getattr(make_explanations(), name).clone()
    values[index] = value
    return values
