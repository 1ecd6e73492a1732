"""``explainkit plugins``."""

import json as jsonlib
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Annotated

import attrs
from cyclopts import Parameter

from explainkit.cli.options import plain
from explainkit.errors import PluginWarning
from explainkit.registry import PluginRow
from explainkit.registry import plugins as installed

_COLORS = {"ok": "green", "failed": "red", "incompatible": "red", "blocked": "yellow", "unloaded": "dim"}


def plugins(
    *,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    load: Annotated[bool, Parameter(show_default=False)] = True,
) -> None:
    """List what is installed, and what is broken and why.

    Parameters
    ----------
    json
        Every field, as JSON.
    load
        Import the plugins' hook modules, or with --no-load read metadata alone.

    Examples
    --------
    explainkit plugins
    explainkit plugins --json | jq '.[] | select(.status == "failed")'
    """
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # whatever a plugin prints as it is imported
        warnings.simplefilter("ignore", PluginWarning)  # the row says it
        rows = installed(load=load)
    if json:
        print(jsonlib.dumps([attrs.asdict(row) for row in rows], indent=2))
    else:
        print_table(rows)


def print_table(rows: Sequence[PluginRow]) -> None:
    """The rows as a table on standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("plugin", "distribution", "version", "status", box=box.SIMPLE_HEAD)
    table.add_column("offers", overflow="fold")
    for row in rows:
        lines = [f"{kind}: {', '.join(names)}" for kind, names in row.offers.items()]
        offers = "\n".join([*lines, *filter(None, [row.cause])])
        name, distribution, version, offers_text = (
            Text(plain(text))  # from a third party, so no markup
            for text in (row.name, row.distribution, row.version, offers)
        )
        table.add_row(name, distribution, version, Text(row.status, _COLORS[row.status]), offers_text)
    Console().print(table)
