"""Reads which plugins are installed, and loads them one by one so that what is broken in one stays there.

Environment
-----------
EXPLAINKIT_PLUGINS : plugins or distributions, with commas; of third-party ones load only these; '' for none
EXPLAINKIT_BLOCK : plugins or distributions not to load
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import Distribution, EntryPoint, distributions
from inspect import isfunction
from pkgutil import resolve_name
from time import perf_counter
from types import ModuleType
from typing import Any, Literal, cast

import pluggy
from attrs import define, evolve, field, frozen

from explainkit.errors import ExplainKitError, PluginError
from explainkit.registry import hookspecs
from explainkit.registry.hookspecs import Offer
from explainkit.version import __version__

GROUP = "explainkit"
HOST = "explainkit-sdk"
KINDS = (
    "explainers", "backbones", "datasets", "metrics", "loggers", "commands", "counterfactual_methods",
)  # fmt: skip
HOOKS = {f"explainkit_{kind}": kind for kind in KINDS}

Key = tuple[str, str]
"""Kind and name of an offer."""


@frozen(kw_only=True)
class PluginRow:
    """One installed plugin, and how it fares.

    Attributes
    ----------
    name, distribution, version : str
        The entry point's name, and the distribution that declares it.
    status : str
        ``blocked`` by the environment, or for names that another plugin offers too; ``incompatible`` with
        this version of explainkit; ``unloaded`` where only metadata was read.
    cause : str or None
        Why, where the status is neither ``ok`` nor ``unloaded``.
    milliseconds : float or None
        What loading took.
    offers : mapping of str to tuple of str
        The names that it offers, by kind.
    """

    name: str
    distribution: str
    version: str
    status: Literal["ok", "failed", "incompatible", "blocked", "unloaded"] = "unloaded"
    cause: str | None = None
    milliseconds: float | None = None
    offers: Mapping[str, tuple[str, ...]] = field(factory=dict)

    def __str__(self) -> str:
        return f"{self.name!r} ({self.distribution} {self.version})"

    @property
    def builtin(self) -> bool:
        """Whether explainkit's own distribution declares it."""
        return _normalize(self.distribution) == HOST


@define
class Loaded:
    """A plugin on its way into the catalog: `fault` is what keeps it, or some of its offers, out."""

    row: PluginRow
    offers: dict[Key, Offer] = field(factory=dict)
    fault: BaseException | None = None

    def fail(self, fault: BaseException) -> None:
        """Withdraw all that it offers."""
        self.fault, self.offers = fault, {}
        self.row = evolve(self.row, status="failed", cause=error_text(fault), offers={})


def declared_plugins() -> list[tuple[PluginRow, EntryPoint]]:
    """What metadata says of each installed plugin, ours first; imports none."""
    by_distribution: dict[str, list[tuple[PluginRow, EntryPoint]]] = {}
    for distribution in distributions():
        entries = _distribution_entries(distribution)
        if entries:
            by_distribution.setdefault(_normalize(entries[0][0].distribution), entries)
    entries = [entry for entries in by_distribution.values() for entry in entries]
    return sorted(entries, key=lambda entry: (not entry[0].builtin, entry[0].name, entry[0].distribution))


def load_plugin(row: PluginRow, entry: EntryPoint) -> Loaded:
    """The plugin with what it offers, or with its fault; never half of it."""
    if row.status in ("failed", "incompatible"):
        return Loaded(row, fault=PluginError(row.cause))
    if row.status == "blocked":
        return Loaded(row)
    started = perf_counter()
    loaded = Loaded(row)
    try:
        loaded.offers = _collect_offers(row, entry.load())
        loaded.row = evolve(row, status="ok", offers=names_by_kind(loaded.offers))
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a third-party plugin must not take the others down, however it ends
        loaded.fail(error)
    loaded.row = evolve(loaded.row, milliseconds=round(1000 * (perf_counter() - started), 1))
    return loaded


def import_target(path: str, what: str, row: PluginRow) -> Callable[..., Any]:
    """The object at ``package.module:attribute`` of a plugin; `what` names it in errors."""
    try:
        target = resolve_name(path)
    except (ExplainKitError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a third-party module
        raise PluginError(
            f"The {what} of plugin {row} cannot be had from {path!r}: {error_text(error)}"
        ) from error
    if not callable(target):
        kind = type(target).__name__
        raise PluginError(f"Expected the {what} of plugin {row} to be callable; got {kind} at {path!r}.")
    return cast(Callable[..., Any], target)


def names_by_kind(offers: Mapping[Key, Offer]) -> dict[str, tuple[str, ...]]:
    """The offered names, by kind."""
    by_kind = {kind: tuple(sorted(name for of, name in offers if of == kind)) for kind in KINDS}
    return {kind: names for kind, names in by_kind.items() if names}


def error_text(error: BaseException) -> str:
    """An error on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _distribution_entries(distribution: Distribution) -> list[tuple[PluginRow, EntryPoint]]:
    """The plugins that one distribution declares; a row for itself if its files cannot be read."""
    folder = getattr(distribution, "_path", None)
    name = getattr(folder, "name", "?")  # until its metadata gives one
    try:
        if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            return []  # parsing all metadata of all distributions would cost more than everything else
        name = distribution.name or name
        unmet = _unmet_requirement(distribution)
        entries = list(distribution.entry_points.select(group=GROUP))
        version = distribution.version or "?"
        return [(_metadata_row(entry.name, name, version, unmet), entry) for entry in entries]
    except MemoryError:
        raise
    except Exception as error:  # third-party metadata
        cause = f"its metadata cannot be read: {error_text(error)}"
        row = PluginRow(name="?", distribution=name, version="?", status="failed", cause=cause)
        return [(row, EntryPoint("?", "", GROUP))]


def _metadata_row(name: str, distribution: str, version: str, unmet: str | None) -> PluginRow:
    row = PluginRow(name=name, distribution=distribution, version=version)
    if cause := _block_cause(row):
        return evolve(row, status="blocked", cause=cause)
    return evolve(row, status="incompatible", cause=unmet) if unmet else row


def _block_cause(row: PluginRow) -> str | None:
    """Which variable of the environment keeps the plugin out."""
    names = {_normalize(row.name), _normalize(row.distribution)}
    if names & _parse_names(os.environ.get("EXPLAINKIT_BLOCK", "")):
        return "named in EXPLAINKIT_BLOCK"
    allowed = os.environ.get("EXPLAINKIT_PLUGINS")
    if allowed is not None and not row.builtin and not names & _parse_names(allowed):
        return "not named in EXPLAINKIT_PLUGINS"
    return None


def _parse_names(names: str) -> set[str]:
    return {_normalize(name.strip()) for name in names.split(",") if name.strip()}


def _normalize(name: str) -> str:
    """A distribution's name as the package index compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _unmet_requirement(distribution: Distribution) -> str | None:
    """The requirement of the distribution that this version of explainkit does not meet."""
    for line in distribution.requires or []:
        if _normalize(re.split(r"[^\w.-]", line, maxsplit=1)[0]) != HOST:
            continue
        from packaging.requirements import Requirement

        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return f"needs {HOST} {requirement.specifier}; this is {__version__}"
    return None


def _collect_offers(row: PluginRow, plugin: object) -> dict[Key, Offer]:
    """All that the hooks of `plugin` return, checked."""
    offers: dict[Key, Offer] = {}
    for hook, returned in _call_hooks(plugin):
        kind = HOOKS[hook]
        if not isinstance(returned, list) or not all(isinstance(item, Offer) for item in returned):
            raise PluginError(f"expected {hook} to return a list of Offer; got {returned!r}")
        for item in returned:
            if not _owns_name(row, item.name):
                raise PluginError(f"expected {kind} named {row.name!r} or '{row.name}/…'; got {item.name!r}")
            if (kind, item.name) in offers:
                raise PluginError(f"offers {item.name!r} twice under {kind}")
            offers[kind, item.name] = item
    return offers


def _call_hooks(plugin: object) -> Iterator[tuple[str, object]]:
    """What each hook that `plugin` implements returns."""
    if not isinstance(plugin, ModuleType):
        raise PluginError(f"expected the entry point to name a module; got {type(plugin).__name__}")
    manager = pluggy.PluginManager(GROUP)  # its own: what one plugin breaks cannot reach another
    manager.add_hookspecs(hookspecs)
    for name, member in vars(plugin).items():
        if isfunction(member):
            _check_hook(name, manager.parse_hookimpl_opts(plugin, name))
    manager.register(plugin)
    for hook in HOOKS:
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            yield hook, implementation.function()


def _check_hook(function: str, marks: Mapping[str, object] | None) -> None:
    """Refuse a hook that explainkit does not have, and one that lacks its marker."""
    if marks is None:
        if function in HOOKS:
            raise PluginError(f"{function} lacks @explainkit.hookimpl")
        return
    hook = str(marks.get("specname") or function)
    if hook not in HOOKS and not marks.get("optionalhook"):
        close = get_close_matches(hook, HOOKS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(HOOKS)}"
        raise PluginError(f"explainkit {__version__} has no hook {hook}; {hint}")


def _owns_name(row: PluginRow, name: str) -> bool:
    """Whether the plugin may offer `name`; names of the core have no plugin name before them."""
    if row.builtin and row.name == "builtins":
        return "/" not in name
    return name.partition("/")[0] == row.name
