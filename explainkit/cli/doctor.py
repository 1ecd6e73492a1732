"""``explainkit doctor``."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial

import attrs

from explainkit.cli.plugins import print_table
from explainkit.errors import MissingPackageError
from explainkit.registry.discovery import (
    PluginRow,
    declared_plugins,
    error_text,
    import_target,
    load_plugin,
)

_CHILD = "import sys; from explainkit.cli.doctor import examine; examine(*sys.argv[1:])"
_ROW = '{"name": '


def doctor(*, seconds: float = 60) -> int:
    """Load each plugin, and all that it offers, in a process of its own; the exit status is 1 if any is ill.

    Plugins are examined one at a time; what two of them claim at once is shown by `explainkit plugins`.

    Parameters
    ----------
    seconds
        How long a plugin may take.

    Examples
    --------
    explainkit doctor --seconds 120
    """
    from rich.console import Console

    plugin_rows = [row for row, _ in declared_plugins()]
    with Console(stderr=True).status("Loading each plugin …"), ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(partial(_examine_in_process, seconds=seconds), plugin_rows))
    print_table(rows)
    return int(any(row.status in ("failed", "incompatible") for row in rows))


def examine(name: str, distribution: str) -> None:
    """Print the row of one plugin after loading it with its targets; this runs in the other process."""
    with redirect_stdout(sys.stderr):
        loaded = next(
            load_plugin(*entry) for entry in declared_plugins() if _is_plugin(entry[0], name, distribution)
        )
        for (kind, called), offer in loaded.offers.items():
            try:
                for path in filter(None, (offer.target, offer.renderer)):
                    import_target(path, f"{kind[:-1]} {called!r}", loaded.row)
            except MissingPackageError as error:  # optional, and the message says how to get it
                loaded.row = attrs.evolve(loaded.row, cause=error_text(error))
            except Exception as error:  # a third-party module
                loaded.fail(error)
                break
    print(json.dumps(attrs.asdict(loaded.row)))


def _is_plugin(row: PluginRow, name: str, distribution: str) -> bool:
    return (row.name, row.distribution) == (name, distribution)


def _examine_in_process(row: PluginRow, seconds: float) -> PluginRow:
    if row.status != "unloaded":
        return row
    command = [sys.executable, "-c", _CHILD, row.name, row.distribution]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # the child finds what we find
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",  # a dying process may say anything
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return attrs.evolve(row, status="failed", cause=f"took more than {seconds:g} s")
    rows = [line for line in child.stdout.splitlines() if line.startswith(_ROW)]
    if child.returncode or not rows:
        return attrs.evolve(row, status="failed", cause=_exit_cause(child))
    return PluginRow(**json.loads(rows[-1]))


def _exit_cause(child: "subprocess.CompletedProcess[str]") -> str:
    """How the process died."""
    if child.returncode < 0:
        return f"killed by {signal.Signals(-child.returncode).name}"
    return f"exit status {child.returncode}: {(child.stderr.strip().splitlines() or ['no word'])[-1]}"
