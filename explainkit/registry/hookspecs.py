"""What a plugin can offer: the whole surface, on one page.

A plugin is a module that an entry point of the group ``explainkit`` names. It implements the hooks it needs:

    from explainkit import Offer, hookimpl

    @hookimpl
    def explainkit_explainers():
        return [Offer("mine", "My network, explained by its parts", "explainkit_mine.explainer:Mine")]

Hook modules are imported whenever plugins are listed, so they import nothing heavy: a target is a string.
"""

import re

import pluggy
from attrs import Attribute, field, frozen, validators

from explainkit.errors import InputError

hookspec = pluggy.HookspecMarker("explainkit")
hookimpl = pluggy.HookimplMarker("explainkit")

_WORD = r"[a-z0-9]+(-[a-z0-9]+)*"
_NAME = re.compile(rf"{_WORD}(/({_WORD}|\*))?")
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _is_name(_: object, __: object, value: str) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        forms = "'plugin', 'plugin/name' or 'plugin/*', in lower case with hyphens"
        raise InputError(f"Expected an offer's name as {forms}; got {value!r}.")


def _is_target(_: object, attribute: "Attribute[str]", value: str) -> None:
    if not isinstance(value, str) or not _TARGET.fullmatch(value):
        raise InputError(
            f"Expected an offer's {attribute.name} as 'package.module:attribute'; got {value!r}."
        )


@frozen
class Offer:
    """One thing that a plugin offers, light enough to list without importing it.

    Attributes
    ----------
    name : str
        ``plugin``, ``plugin/name``, or ``plugin/*`` for an open family, whose target gets the rest of the
        name as its first argument: ``timm/resnet18`` is what the target of ``timm/*`` makes of "resnet18".
    summary : str
        One line for listings.
    target : str
        ``package.module:attribute`` of something callable, imported at first use.
    renderer : str or None
        The same of a ``draw(explanation, figure)``, for explainers; ``None`` for the generic drawing.
    """

    name: str = field(validator=_is_name)
    summary: str
    target: str = field(validator=_is_target)
    renderer: str | None = field(default=None, validator=validators.optional(_is_target))


@hookspec
def explainkit_explainers() -> list[Offer]:
    """Explainers: targets are subclasses of `Explainer`, or factories of them."""
    return []


@hookspec
def explainkit_backbones() -> list[Offer]:
    """Feature extractors: targets are factories of a `Backbone`."""
    return []


@hookspec
def explainkit_datasets() -> list[Offer]:
    """Data sets: targets are factories of `ImageDataset`."""
    return []


@hookspec
def explainkit_metrics() -> list[Offer]:
    """Measures of explanations: targets are functions that return one value an image."""
    return []


@hookspec
def explainkit_loggers() -> list[Offer]:
    """Loggers of training: targets make a `Logger` from the folder to write to."""
    return []


@hookspec
def explainkit_commands() -> list[Offer]:
    """Commands of ``explainkit``: targets are functions with annotated parameters, as Cyclopts reads them."""
    return []


@hookspec
def explainkit_counterfactual_methods() -> list[Offer]:
    """Ways to find what would change a decision: targets are subclasses of `CounterfactualMethod`."""
    return []
