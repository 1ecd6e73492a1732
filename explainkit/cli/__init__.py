"""The `explainkit` command.

A command is a file here with one function, and one line in `explainkit.registry.builtins`. Its signature is
its usage, its docstring its help, examples included; what it returns is the exit status, and ``None`` is
success.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from inspect import getdoc
from pkgutil import resolve_name
from textwrap import indent
from typing import TYPE_CHECKING, Any, TextIO

from explainkit.cli.options import plain
from explainkit.errors import ExplainKitError, PluginWarning
from explainkit.registry import builtins
from explainkit.registry.hookspecs import Offer
from explainkit.version import __version__

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS = {offer.name: offer for offer in builtins.explainkit_commands()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for what the user can put right, in one line."""
    from cyclopts import CycloptsError

    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = _app(tokens)(
                tokens, exit_on_error=False, print_error=False, result_action="return_value"
            )
        return status if isinstance(status, int) else 0
    except (ExplainKitError, CycloptsError) as error:
        print(plain(f"explainkit: {error}"), file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone
        return 0
    except OSError as error:
        print(plain(f"explainkit: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _app(tokens: Sequence[str]) -> "App":
    """The command in `tokens`, imported, among the names and summaries of the others."""
    from cyclopts import App

    app = App(name="explainkit", version=__version__, help="Image classifiers that explain themselves.")
    chosen = next((token for token in tokens if not token.startswith("-")), None)
    for name, offer in _offered(chosen, tokens).items():
        if name == chosen:
            function = _command(name)
            app.command(function, name=name, help_epilogue=_examples(function))
        else:
            app.command(App(name=name, help=offer.summary))
    return app


def _offered(chosen: str | None, tokens: Sequence[str]) -> dict[str, Offer]:
    """Our own commands, and those of plugins where one may be meant: ours run however broken a plugin is."""
    if chosen in COMMANDS or "--version" in tokens:
        return COMMANDS
    from explainkit.registry import offers

    return COMMANDS | {name: offer for name, offer in offers("commands").items() if not name.endswith("/*")}


def _command(name: str) -> Callable[..., Any]:
    if name in COMMANDS:
        return resolve_name(COMMANDS[name].target)
    from explainkit.registry import find

    return find("commands", name)


def _examples(function: Callable[..., Any]) -> str:
    """The docstring's examples, which Cyclopts leaves out of its help."""
    examples = (getdoc(function) or "").partition("Examples\n--------\n")[2]
    return examples and "**Examples**\n\n" + indent(examples, "    ")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A broken plugin's warning without the line of code that asked for it."""
    text = plain(f"explainkit: {message}\n") if issubclass(category, PluginWarning) else None
    stream = file or sys.stderr
    stream.write(text or warnings.formatwarning(message, category, filename, lineno, line))
