"""What the installed plugins offer, by name.

Set EXPLAINKIT_STRICT_PLUGINS=1 to make a broken plugin an error instead of a warning.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import invalidate_caches
from threading import RLock
from typing import Any

from explainkit.errors import PluginError, PluginWarning, UnknownNameError
from explainkit.registry.conflicts import OfferCatalog, family_of, resolve_conflicts
from explainkit.registry.discovery import (
    KINDS,
    PluginRow,
    declared_plugins,
    import_target,
    load_plugin,
)
from explainkit.registry.hookspecs import Offer

__all__ = ["KINDS", "PluginRow", "clear_cache", "find", "offer", "offers", "plugins", "renderer_for"]


def plugins(load: bool = True) -> list[PluginRow]:
    """Every installed plugin, ours first; with `load=False` from metadata alone, importing none."""
    return list(_catalog().rows) if load else [row for row, _ in declared_plugins()]


def offers(kind: str) -> dict[str, Offer]:
    """Everything of one `kind` (one of `KINDS`) by name, importing no target."""
    _check_kind(kind)
    return {name: offer for (of, name), (offer, _) in sorted(_catalog().offers.items()) if of == kind}


def offer(kind: str, name: str) -> Offer:
    """The offer called `name`; for ``timm/resnet18`` that may be the offer of ``timm/*``.

    Raises
    ------
    UnknownNameError
        If there is none; the message has the nearest names.
    PluginError
        If the plugin that would offer it is broken, or two plugins do.
    """
    return _find_offer(kind, name)[0]


def find(kind: str, name: str) -> Callable[..., Any]:
    """What the offer of `name` targets, imported now. Raises as `offer` does, and where the import fails."""
    offer, row = _find_offer(kind, name)
    target = import_target(offer.target, f"{kind[:-1]} {name!r}", row)
    return partial(target, name.removeprefix(offer.name[:-1])) if offer.name.endswith("/*") else target


def renderer_for(name: str) -> Callable[..., Any] | None:
    """How the plugin of explainer `name` draws explanations; ``None`` where it does not, or is missing."""
    try:
        offer, row = _find_offer("explainers", name)
    except (UnknownNameError, PluginError):
        return None
    return None if offer.renderer is None else import_target(offer.renderer, f"renderer of {name!r}", row)


def clear_cache() -> None:
    """Look for plugins anew at the next call, so that one installed meanwhile is found."""
    global _cached_catalog
    with _lock:
        _cached_catalog = None
        invalidate_caches()


def _find_offer(kind: str, name: str) -> tuple[Offer, PluginRow]:
    _check_kind(kind)
    catalog = _catalog()
    for key in ((kind, name), (kind, family_of(name))):
        if key in catalog.conflicts:
            sides = " and ".join(map(str, catalog.conflicts[key]))
            raise PluginError(
                f"Expected one plugin to offer {name!r} under {kind}; got {sides}. Uninstall one."
            )
        if key in catalog.offers:
            return catalog.offers[key]
    for row in catalog.rows:
        if row.name == name.partition("/")[0] and row.status != "ok":
            raise PluginError(f"No {kind[:-1]} {name!r}: plugin {row} {row.status}: {row.cause}")
    raise UnknownNameError(f"No plugin offers {name!r} under {kind}. {_suggest(name, list(offers(kind)))}")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UnknownNameError(f"Plugins offer no {kind!r}. {_suggest(kind, KINDS)}")


def _suggest(name: str, names: Sequence[str]) -> str:
    if close := get_close_matches(name, names, n=3):
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"There are: {', '.join(names)}." if names else "None is installed; see `explainkit plugins`."


_cached_catalog: OfferCatalog | None = None
_loading = False
_lock = RLock()


def _catalog() -> OfferCatalog:
    """The catalog, built once."""
    global _cached_catalog, _loading
    with _lock:
        if _loading:
            raise PluginError("the registry was called while plugins are being loaded; call it in a function")
        if _cached_catalog is not None:
            return _cached_catalog
        _loading = True
        try:
            loaded = [load_plugin(*entry) for entry in declared_plugins()]
        finally:
            _loading = False
        catalog = resolve_conflicts(loaded)
        faulty = [plugin for plugin in loaded if plugin.fault]
        if faulty and os.environ.get("EXPLAINKIT_STRICT_PLUGINS", "0") not in ("", "0"):
            raise PluginError(_fault_line(faulty[0].row)) from faulty[0].fault
        _cached_catalog = catalog
    for plugin in faulty:
        warnings.warn(f"{_fault_line(plugin.row)}; see `explainkit plugins`.", PluginWarning, stacklevel=3)
    return catalog


def _fault_line(row: PluginRow) -> str:
    return f"Plugin {row} {row.status}: {row.cause}"
