"""Things by name: explainers, backbones and data sets, whoever offers them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, overload

from explainkit import registry
from explainkit.errors import InputError, UnknownNameError, UnsupportedNetworkError

if TYPE_CHECKING:
    from torch import nn

    from explainkit.data.types import ImageDataset
    from explainkit.explainers.interface import Explainer
    from explainkit.explainers.interpretable import InterpretableExplainer
    from explainkit.networks.backbones import Backbone


@overload
def explainer(
    name: str,
    *,
    network: nn.Module,
    classes: Sequence[str] | None = None,
    preset: str | None = None,
    **settings: Any,
) -> Explainer: ...
@overload
def explainer(name: str, *, preset: str | None = None, **settings: Any) -> InterpretableExplainer[Any]: ...
def explainer(
    name: str,
    *,
    preset: str | None = None,
    network: nn.Module | None = None,
    classes: Sequence[str] | None = None,
    **settings: Any,
) -> Explainer:
    """The explainer called `name`, to be fitted, or of a `network` that is trained already.

    Parameters
    ----------
    name : str
        As `explainkit.plugins` lists them: ``"cam"``, ``"captum/integrated-gradients"``.
    preset : str or None
        A named set of settings, ``"small"`` or ``"paper"``; `settings` override it.
    network : nn.Module or None
        What to explain; interpretable architectures check that they can read it.
    classes : sequence of str or None
        Names of the network's classes.
    **settings
        The explainer's own.

    Raises
    ------
    UnknownNameError
        For a name, a preset or a setting that is not there; the message offers the nearest.
    UnsupportedNetworkError
        For a network that the explainer cannot read.
    """
    factory = registry.find("explainers", name)
    values = {**_preset_settings(name, factory, preset), **settings}
    if network is None:
        if classes is not None:
            raise InputError("Expected classes=… only beside network=…; fit(dataset) learns them.")
        if not hasattr(factory, "build"):
            raise InputError(f"Expected network=…: {name!r} explains a network that is trained already.")
        return _call_checked(name, factory, factory, values)
    if not hasattr(factory, "from_network"):
        raise UnsupportedNetworkError(f"{name!r} cannot explain a network that it did not train.")
    return _call_checked(
        name, factory, factory.from_network, {"network": network, "classes": classes, **values}
    )


def backbone(name: str, *, in_channels: int = 3, **settings: Any) -> Backbone:
    """A feature extractor by name: ``"small"``, ``"timm/resnet18"``.

    Parameters
    ----------
    name : str
    in_channels : int
        Of the images; passed on where it is another number than 3, which every backbone takes.
    **settings
        The backbone's own; those that are ``None`` are not passed on, so that its defaults hold. ``weights``
        may be the folder of a saved explainer for any of them: begin with the weights of its backbone.

    Raises
    ------
    UnknownNameError
        For a name that no plugin offers, or a setting that it does not have.
    FormatError, InputError
        For weights of a folder that is damaged, and of a backbone of another form.
    """
    from explainkit.networks.saved import is_saved, load_saved_backbone

    factory = registry.find("backbones", name)
    passed = {setting: value for setting, value in settings.items() if value is not None}
    if in_channels != 3:
        passed["in_channels"] = in_channels
    weights, folder = passed.get("weights"), None
    if is_saved(weights):
        folder = passed.pop("weights")
    elif weights is not None and "weights" not in _keywords(factory):
        raise InputError(
            f"Expected weights of {name!r} as the folder of a saved explainer; there is none at {weights!r}."
        )
    network: Backbone = _call_checked(name, factory, factory, passed)
    if folder is not None:
        load_saved_backbone(network, folder, name)
    return network


def dataset(name: str, **settings: Any) -> ImageDataset:
    """A data set by name: ``"aviary"``, ``"digits"``.

    Raises
    ------
    UnknownNameError
        For a name that no plugin offers, or a setting that it does not have.
    """
    factory = registry.find("datasets", name)
    return _call_checked(name, factory, factory, settings)


def _preset_settings(name: str, factory: Callable[..., Any], preset: str | None) -> Mapping[str, Any]:
    if preset is None:
        return {}
    presets: Mapping[str, Mapping[str, Any]] = getattr(factory, "presets", {})
    if preset not in presets:
        raise UnknownNameError(
            f"{name!r} has no preset {preset!r}. There are: {', '.join(presets) or 'none'}."
        )
    return presets[preset]


def _call_checked(
    name: str, factory: Callable[..., Any], call: Callable[..., Any], settings: Mapping[str, Any]
) -> Any:
    """`call` with `settings`, once each is known to be a setting."""
    keywords = [*_keywords(call), *(_keywords(factory) if call is not factory else [])]
    parameters = inspect.signature(call).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_any or call is not factory:
        for setting in settings:
            if setting not in keywords:
                close = get_close_matches(setting, keywords, n=1)
                names = ", ".join(keywords) or "none"
                hint = f"Did you mean {close[0]!r}?" if close else f"There are: {names}."
                raise UnknownNameError(f"{name!r} has no setting {setting!r}. {hint}")
    missing = [
        keyword
        for keyword in _keywords(call)
        if keyword not in settings and parameters[keyword].default is inspect.Parameter.empty
    ]
    if missing and "network" not in missing:
        raise InputError(f"{name!r} needs {', '.join(f'{setting}=…' for setting in missing)}.")
    return call(**settings)


def _keywords(call: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, p in inspect.signature(call).parameters.items() if p.kind in kinds]
