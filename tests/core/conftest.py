"""Throw-away distributions, in a world where nothing else is installed."""

import sys
from functools import partial
from importlib.metadata import distributions
from textwrap import dedent

import pytest

from explainkit import registry
from explainkit.version import __version__

HEADER = "from explainkit.hookspecs import Offer, hookimpl\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write a distribution whose plugin has these hooks: `install("mine", "@hookimpl …")`."""
    before = set(sys.modules)

    def write(plugin, hooks, distribution=None, requires="", module=None):
        distribution = distribution or f"explainkit-{plugin}"
        module = module or "stranger_" + distribution.replace("-", "_")
        (tmp_path / module).mkdir(exist_ok=True)
        (tmp_path / module / "__init__.py").write_text(HEADER + dedent(hooks))
        return declare(distribution, "1.0", f"{plugin} = {module}", requires)

    def declare(distribution, version, entries, requires=""):
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata + (requires and f"Requires-Dist: {requires}\n"))
        (info / "entry_points.txt").write_text(f"[explainkit]\n{entries}\n")
        return tmp_path / entries.rpartition(" ")[2]

    declare("explainkit-sdk", __version__, "builtins = explainkit.builtins")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("explainkit.discovery.distributions", partial(distributions, path=[str(tmp_path)]))
    for name in ("EXPLAINKIT_PLUGINS", "EXPLAINKIT_BLOCK", "EXPLAINKIT_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    registry.forget()
    yield write
    registry.forget()
    for name in set(sys.modules) - before:
        if name.startswith("stranger_"):
            del sys.modules[name]
