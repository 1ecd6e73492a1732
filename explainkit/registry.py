"""What the installed plugins offer, by name.

Set EXPLAINKIT_STRICT_PLUGINS=1 to make a broken plugin an error instead of a warning.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import invalidate_caches
from itertools import combinations, product
from threading import RLock
from typing import Any

from attrs import evolve, field, frozen

from explainkit.discovery import KINDS, Key, Loaded, PluginRow, declared, load, names, resolve, told
from explainkit.errors import PluginError, PluginWarning, UnknownNameError
from explainkit.hookspecs import Offer

__all__ = ["KINDS", "PluginRow", "find", "forget", "offer", "offers", "plugins", "renderer_for"]


def plugins(load: bool = True) -> list[PluginRow]:
    """Every installed plugin, ours first; with `load=False` from metadata alone, importing none."""
    return list(_catalogue().rows) if load else [row for row, _ in declared()]


def offers(kind: str) -> dict[str, Offer]:
    """Everything of one `kind` (one of `KINDS`) by name, importing no target."""
    _check(kind)
    return {name: found for (of, name), (found, _) in sorted(_catalogue().offers.items()) if of == kind}


def offer(kind: str, name: str) -> Offer:
    """What answers to `name`; for ``timm/resnet18`` that may be the offer of ``timm/*``.

    Raises
    ------
    UnknownNameError
        If nothing does; the message has the nearest names.
    PluginError
        If the plugin that would is broken, or two plugins offer it.
    """
    return _answer(kind, name)[0]


def find(kind: str, name: str) -> Callable[..., Any]:
    """What the offer of `name` targets, imported now. Raises as `offer` does, and where the import fails."""
    found, row = _answer(kind, name)
    thing = resolve(found.target, f"{kind[:-1]} {name!r}", row)
    return partial(thing, name.removeprefix(found.name[:-1])) if found.name.endswith("/*") else thing


def renderer_for(name: str) -> Callable[..., Any] | None:
    """How the plugin of explainer `name` draws explanations; ``None`` if it has no say or is not there."""
    return _further(name, "renderer")


def sentence_for(name: str) -> Callable[..., Any] | None:
    """How the plugin of explainer `name` puts explanations; ``None`` if it has no say or is not there."""
    return _further(name, "sentence")


def _further(name: str, what: str) -> Callable[..., Any] | None:
    """The target that explainer `name` has beside its own."""
    try:
        found, row = _answer("explainers", name)
    except (UnknownNameError, PluginError):
        return None
    target = getattr(found, what)
    return None if target is None else resolve(target, f"{what} of {name!r}", row)


def forget() -> None:
    """Look for plugins anew at the next call, so that one installed meanwhile is found."""
    global _known
    with _lock:
        _known = None
        invalidate_caches()


def _answer(kind: str, name: str) -> tuple[Offer, PluginRow]:
    _check(kind)
    catalogue = _catalogue()
    for key in ((kind, name), (kind, _family(name))):
        if key in catalogue.contested:
            sides = " and ".join(map(str, catalogue.contested[key]))
            raise PluginError(
                f"Expected one plugin to offer {name!r} under {kind}; got {sides}. Uninstall one."
            )
        if key in catalogue.offers:
            return catalogue.offers[key]
    for row in catalogue.rows:
        if row.name == name.partition("/")[0] and row.status != "ok":
            raise PluginError(f"No {kind[:-1]} {name!r}: plugin {row} {row.status}: {row.cause}")
    raise UnknownNameError(f"No plugin offers {name!r} under {kind}. {_nearest(name, list(offers(kind)))}")


def _family(name: str) -> str:
    """``timm/*`` for ``timm/resnet18``; the name itself where it is in no family."""
    head, _, rest = name.partition("/")
    return f"{head}/*" if rest else name


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise UnknownNameError(f"Plugins offer no {kind!r}. {_nearest(kind, KINDS)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    if close := get_close_matches(name, known, n=3):
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"There are: {', '.join(known)}." if known else "None is installed; see `explainkit plugins`."


@frozen
class _Catalogue:
    """Built once, from plugins that are each in order or not in it."""

    rows: list[PluginRow] = field(factory=list)
    offers: dict[Key, tuple[Offer, PluginRow]] = field(factory=dict)
    contested: dict[Key, list[PluginRow]] = field(factory=dict)


_known: _Catalogue | None = None
_loading = False
_lock = RLock()


def _catalogue() -> _Catalogue:
    global _known, _loading
    with _lock:
        if _loading:
            raise PluginError("the registry was called while plugins are being loaded; call it in a function")
        if _known is not None:
            return _known
        _loading = True
        try:
            loaded = [load(*entry) for entry in declared()]
        finally:
            _loading = False
        found = _settled(loaded)
        faulty = [plugin for plugin in loaded if plugin.fault]
        if faulty and os.environ.get("EXPLAINKIT_STRICT_PLUGINS", "0") not in ("", "0"):
            raise PluginError(_line(faulty[0].row)) from faulty[0].fault
        _known = found
    for plugin in faulty:
        warnings.warn(f"{_line(plugin.row)}; see `explainkit plugins`.", PluginWarning, stacklevel=3)
    return found


def _line(row: PluginRow) -> str:
    return f"Plugin {row} {row.status}: {row.cause}"


def _settled(loaded: Sequence[Loaded]) -> _Catalogue:
    """What holds: our names stay ours, and a name that two strangers give is neither's."""
    ours = [plugin for plugin in loaded if plugin.row.builtin]
    strangers = [plugin for plugin in loaded if not plugin.row.builtin]
    for plugin in strangers:
        _give_way(plugin, ours)
    contested = _contested(strangers)
    for plugin in strangers:
        _withdraw(plugin, contested)
    held = {key: (item, plugin.row) for plugin in loaded for key, item in plugin.offers.items()}
    return _Catalogue([plugin.row for plugin in loaded], held, contested)


def _give_way(plugin: Loaded, ours: Sequence[Loaded]) -> None:
    for owner in ours:
        taken = [name for _, name in sorted(plugin.offers.keys() & owner.offers.keys())]
        if plugin.row.status == "ok" and (taken or plugin.row.name == owner.row.name):
            plugin.fail(PluginError(f"the name {(taken or [owner.row.name])[0]!r} belongs to {owner.row}"))


def _contested(strangers: Sequence[Loaded]) -> dict[Key, list[PluginRow]]:
    """The names that more than one plugin gives, and which plugins do."""
    sides: dict[Key, list[PluginRow]] = {}
    for one, other in combinations(strangers, 2):
        if one.row.name != other.row.name:
            continue  # a plugin's name is before all of its offers'
        for key, rival in product(one.offers, other.offers):
            if _meet(key, rival):
                for contested in (key, rival):
                    known = sides.setdefault(contested, [])
                    known += [row for row in (one.row, other.row) if row not in known]
    return sides


def _meet(one: Key, other: Key) -> bool:
    """Whether a name can be answered by both: they are one, or one is the family of the other."""
    (kind, name), (rival_kind, rival) = one, other
    return kind == rival_kind and (name == rival or name == _family(rival) or rival == _family(name))


def _withdraw(plugin: Loaded, contested: Mapping[Key, Sequence[PluginRow]]) -> None:
    lost = [key for key in plugin.offers if key in contested]
    if lost:
        rivals = [row for row in contested[lost[0]] if row is not plugin.row]
        plugin.fault = PluginError(f"{lost[0][1]!r} is also offered by {' and '.join(map(str, rivals))}")
        plugin.offers = {key: item for key, item in plugin.offers.items() if key not in contested}
        plugin.row = evolve(
            plugin.row, status="blocked", cause=told(plugin.fault), offers=names(plugin.offers)
        )
