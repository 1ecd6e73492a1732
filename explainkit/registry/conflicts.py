"""The catalog of all offers: built-in names stay built in, and a name that two plugins offer is neither's."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

from attrs import evolve, field, frozen

from explainkit.errors import PluginError
from explainkit.registry.discovery import Key, Loaded, PluginRow, error_text, names_by_kind
from explainkit.registry.hookspecs import Offer


@frozen
class OfferCatalog:
    """What the installed plugins offer.

    Attributes
    ----------
    rows : list of PluginRow
        Each plugin, with its status.
    offers : dict of Key to (Offer, PluginRow)
        By kind and name, with the plugin that offers it.
    conflicts : dict of Key to list of PluginRow
        Names that more than one plugin offers, and which plugins do.
    """

    rows: list[PluginRow] = field(factory=list)
    offers: dict[Key, tuple[Offer, PluginRow]] = field(factory=dict)
    conflicts: dict[Key, list[PluginRow]] = field(factory=dict)


def resolve_conflicts(loaded: Sequence[Loaded]) -> OfferCatalog:
    """The catalog of `loaded` plugins; those that lose offers to a conflict are changed in place."""
    builtin = [plugin for plugin in loaded if plugin.row.builtin]
    third_party = [plugin for plugin in loaded if not plugin.row.builtin]
    for plugin in third_party:
        _reject_builtin_names(plugin, builtin)
    conflicts = _find_conflicts(third_party)
    for plugin in third_party:
        _remove_conflicts(plugin, conflicts)
    offers = {key: (offer, plugin.row) for plugin in loaded for key, offer in plugin.offers.items()}
    return OfferCatalog([plugin.row for plugin in loaded], offers, conflicts)


def family_of(name: str) -> str:
    """``timm/*`` for ``timm/resnet18``; the name itself where it is in no family.

    Examples
    --------
    >>> family_of("timm/resnet18"), family_of("cam")
    ('timm/*', 'cam')
    """
    head, _, rest = name.partition("/")
    return f"{head}/*" if rest else name


def _reject_builtin_names(plugin: Loaded, builtin: Sequence[Loaded]) -> None:
    """Fail a plugin that offers a name of a built-in one, or has its name."""
    for owner in builtin:
        taken = [name for _, name in sorted(plugin.offers.keys() & owner.offers.keys())]
        if plugin.row.status == "ok" and (taken or plugin.row.name == owner.row.name):
            plugin.fail(PluginError(f"the name {(taken or [owner.row.name])[0]!r} belongs to {owner.row}"))


def _find_conflicts(plugins: Sequence[Loaded]) -> dict[Key, list[PluginRow]]:
    """The names that more than one plugin offers, and which plugins do."""
    conflicts: dict[Key, list[PluginRow]] = {}
    for one, other in combinations(plugins, 2):
        if one.row.name != other.row.name:
            continue  # a plugin's name is before all of its offers'
        for key, other_key in product(one.offers, other.offers):
            if _overlap(key, other_key):
                for conflict in (key, other_key):
                    rows = conflicts.setdefault(conflict, [])
                    rows += [row for row in (one.row, other.row) if row not in rows]
    return conflicts


def _overlap(one: Key, other: Key) -> bool:
    """Whether a name can be answered by both: they are one, or one is the family of the other."""
    (kind, name), (other_kind, other_name) = one, other
    names = {name, family_of(name)}
    return kind == other_kind and (other_name in names or name == family_of(other_name))


def _remove_conflicts(plugin: Loaded, conflicts: Mapping[Key, Sequence[PluginRow]]) -> None:
    """Withdraw the offers of a plugin that another one offers too."""
    lost = [key for key in plugin.offers if key in conflicts]
    if lost:
        others = " and ".join(str(row) for row in conflicts[lost[0]] if row is not plugin.row)
        plugin.fault = PluginError(f"{lost[0][1]!r} is also offered by {others}")
        plugin.offers = {key: offer for key, offer in plugin.offers.items() if key not in conflicts}
        plugin.row = evolve(
            plugin.row,
            status="blocked",
            cause=error_text(plugin.fault),
            offers=names_by_kind(plugin.offers),
        )
