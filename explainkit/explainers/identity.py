"""What explainers and classes are called, and the versions behind an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING

import torch
from torch import nn

from explainkit import registry
from explainkit.errors import InputError
from explainkit.version import __version__

if TYPE_CHECKING:
    from explainkit.explainers.interface import Explainer


@cache
def name_of(kind: type[Explainer]) -> str:
    """The name that an explainer's class is offered under, or where it lives if nothing offers it."""
    target = f"{kind.__module__}:{kind.__qualname__}"
    offers = registry.offers("explainers")
    return next((name for name, offer in offers.items() if offer.target == target), target)


def distinct_names(explainers: Sequence[Explainer]) -> dict[str, Explainer]:
    """Explainers by the names that they are offered under, numbered where they are the same."""
    named: dict[str, Explainer] = {}
    for explainer in explainers:
        name = plain = name_of(type(explainer))
        while name in named:
            name = f"{plain} [{1 + sum(other.partition(' [')[0] == plain for other in named)}]"
        named[name] = explainer
    return named


@cache
def versions_of(kind: type[Explainer]) -> dict[str, str]:
    """Of explainkit, of torch, and of the distribution that brought the class."""
    package = kind.__module__.partition(".")[0]
    distributions = (*_distributions().get(package, []), *kind.libraries)
    versions = {name: version(name) for name in distributions}
    return {"explainkit": __version__, "torch": torch.__version__, **versions}


_distributions = cache(packages_distributions)  # reads every installed distribution, half a second a time


def check_class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names, once they are found to be several names that differ."""
    names = tuple(classes)
    if isinstance(classes, str) or len(set(names)) < len(names):
        raise InputError(f"Expected class names that differ, as a list; got {classes!r}.")
    return names


def count_classes(network: nn.Module, classes: Sequence[str] | None) -> int:
    """How many outputs a network has: as its last linear layer has, or as many as `classes` are named."""
    linear_layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if classes is not None:
        names = check_class_names(classes)
        has_one_logit = len(names) == 2 and linear_layers and linear_layers[-1].out_features == 1
        return 1 if has_one_logit else len(names)
    if not linear_layers:
        raise InputError(
            "Expected classes=[…]: the network has no linear layer that tells how many there are."
        )
    return linear_layers[-1].out_features
