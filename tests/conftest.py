"""What tests of several folders share."""

import os
import shutil
import sys
from contextlib import contextmanager
from functools import partial
from importlib.metadata import distributions
from textwrap import dedent

import pytest

from explainkit import registry
from explainkit.version import __version__

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tests run in several processes: more threads than cores are slow
HOOK_IMPORTS = "from explainkit.registry.hookspecs import Offer, hookimpl\n"


LONGEST = (
    "test_docs.py", "test_distributed.py", "test_conformance.py", "test_isolation.py", "test_checkpoints.py",
    "test_gridvote.py", "test_onnx_graphs.py", "test_page.py", "test_score_edit_method.py", "test_cli.py",
)  # fmt: skip
"""Files that take longest: they are begun first, so that no process is left alone with one at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def double_by_default():
    """A context in which torch makes float64 tensors by default."""
    import torch

    @contextmanager
    def by_default():
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)

    return by_default


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium that logs its network requests and its console."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture
def overheard(browser):
    """A function that returns the URLs requested, and the console's complaints, since it was last called."""
    import json

    def listen():
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        console = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        return [url for url in urls if not url.startswith(("file:", "data:", "chrome"))], console

    listen()
    return listen


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write a distribution whose plugin has these hooks: `install("mine", "@hookimpl …")`.

    explainkit itself is the only other distribution that the registry finds.
    """
    modules_before = set(sys.modules)

    def write(plugin, hooks, distribution=None, requires="", module=None):
        distribution = distribution or f"explainkit-{plugin}"
        module = module or "thirdparty_" + distribution.replace("-", "_")
        (tmp_path / module).mkdir(exist_ok=True)
        (tmp_path / module / "__init__.py").write_text(HOOK_IMPORTS + dedent(hooks))
        return declare(distribution, "1.0", f"{plugin} = {module}", requires)

    def declare(distribution, version, entries, requires=""):
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata + (requires and f"Requires-Dist: {requires}\n"))
        (info / "entry_points.txt").write_text(f"[explainkit]\n{entries}\n")
        return tmp_path / entries.rpartition(" ")[2]

    declare("explainkit-sdk", __version__, "builtins = explainkit.registry.builtins")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "explainkit.registry.discovery.distributions", partial(distributions, path=[str(tmp_path)])
    )
    for name in ("EXPLAINKIT_PLUGINS", "EXPLAINKIT_BLOCK", "EXPLAINKIT_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    registry.clear_cache()
    yield write
    registry.clear_cache()
    for name in set(sys.modules) - modules_before:
        if name.startswith("thirdparty_"):
            del sys.modules[name]
