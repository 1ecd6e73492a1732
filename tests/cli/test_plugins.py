import json
import os
import sys

import pytest

from explainkit import registry
from explainkit.cli import COMMANDS, main
from explainkit.version import __version__

COMMAND = """
@hookimpl
def explainkit_commands():
    return [Offer("mine", "Says hello", "thirdparty_explainkit_mine.hello:hello")]
"""
HELLO = '''
def hello(name: str, *, loud: bool = False):
    """Say hello to somebody.

    Examples
    --------
    explainkit mine Ada --loud
    """
    print("HELLO" if loud else "hello", name)
    return 7
'''


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_the_table_has_each_plugin_with_what_it_offers_or_its_fault(install, capsys):
    install("bad", "raise ValueError('[red]no[/red]')")

    assert main(["plugins"]) == 0

    output = capsys.readouterr()
    assert "explainkit-sdk" in output.out and "datasets: aviary, " in output.out
    assert "ValueError: [red]no[/red]" in output.out and not output.err


def test_json_has_every_field_and_nothing_else(install, capsys):
    install("noisy", "print('hello')")

    assert main(["plugins", "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)
    assert [registry.PluginRow(**row | {"offers": {}}).name for row in rows] == ["builtins", "noisy"]
    assert {"aviary", "cub", "wine"} <= set(rows[0]["offers"]["datasets"])


def test_metadata_alone_on_demand(install, capsys):
    install("bad", "raise SystemExit")

    assert main(["plugins", "--no-load", "--json"]) == 0

    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"unloaded"}
    assert "thirdparty_explainkit_bad" not in sys.modules


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_ends_in_an_example(capsys, command):
    assert main([command, "--help"]) == 0

    output = capsys.readouterr().out
    assert f"explainkit {command}" in output.partition("Examples")[2]


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands_of_plugins_too(install, capsys, argv):
    install("mine", COMMAND)

    assert main(argv) == 0

    output = capsys.readouterr().out
    assert "Says hello" in output and all(offer.summary in output for offer in COMMANDS.values())
    assert "thirdparty_explainkit_mine.hello" not in sys.modules


def test_version(capsys):
    assert main(["--version"]) == 0

    assert capsys.readouterr().out == f"{__version__}\n"


def test_explainkit_commands_are_mounted(install, capsys):
    package = install("mine", COMMAND)
    (package / "hello.py").write_text(HELLO)

    assert main(["mine", "Ada", "--loud"]) == 7

    assert capsys.readouterr().out == "HELLO Ada\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["plugns"], 'Did you mean "plugins"?'),
        (["plugins", "--jsn"], "Did you mean --json?"),
        (["plugins", "more"], "more"),
        (["doctor", "--seconds", "soon"], "soon"),
        (["mine"], "'mine' (explainkit-mine 1.0)"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_status_2(install, capsys, argv, message):
    install("mine", COMMAND)

    assert main(argv) == 2

    out, err = capsys.readouterr()
    assert not out and err.startswith("explainkit: ") and err.count("\n") == 1 and message in err


def test_a_broken_plugin_is_one_line_beside_other_commands(install, capsys, monkeypatch):
    install("bad", "raise ValueError('no')")
    package = install("mine", COMMAND)
    (package / "hello.py").write_text(HELLO)
    monkeypatch.setattr("warnings.filters", [])

    assert main(["mine", "Ada"]) == 7

    output = capsys.readouterr().err
    assert output.startswith("explainkit: Plugin 'bad' (explainkit-bad 1.0) failed: ValueError: no")
    assert output.count("\n") == 1


def test_our_commands_run_however_broken_a_plugin_is(install, monkeypatch):
    install("bad", "raise KeyboardInterrupt")

    assert main(["plugins", "--no-load"]) == 0
    assert main(["--help"]) == 130


def test_strict_is_status_2(install, capsys, monkeypatch):
    install("bad", "raise ValueError('no')")
    monkeypatch.setenv("EXPLAINKIT_STRICT_PLUGINS", "1")

    assert main(["plugins"]) == 2
    assert "explainkit: Plugin 'bad'" in capsys.readouterr().err


def test_doctor_survives_what_kills_a_process(install, capsys, monkeypatch):
    target = "@hookimpl\ndef explainkit_metrics():\n    return [Offer({!r}, '', {!r})]"
    install("fine", "print('hello')\n" + target.format("fine", "json:dumps"))
    install("segfault", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    install("endless", "import time\ntime.sleep(60)")
    install("leaves", "import os\nos._exit(0)")
    install("hollow", target.format("hollow", "json:nothing"))
    monkeypatch.setenv("EXPLAINKIT_BLOCK", "builtins")  # its targets import torch
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))

    assert main(["doctor", "--seconds", "4"]) == 1

    output = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {words[0]: " ".join(words[3:]) for words in output if len(words) > 3}
    assert rows["fine"] == "ok metrics: fine"
    assert rows["segfault"] == "failed killed by SIGSEGV"
    assert rows["endless"] == "failed took more than 4 s"
    assert rows["leaves"].startswith("failed exit status 0")
    assert "cannot be had from 'json:nothing'" in rows["hollow"]
    assert rows["builtins"] == "blocked named in EXPLAINKIT_BLOCK"
