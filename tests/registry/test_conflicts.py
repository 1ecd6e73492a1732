"""Names that two plugins offer, versions that do not fit, and what the environment chooses."""

import sys
import threading
import warnings

import attrs
import pytest
from registry_cases import offering, row_of

from explainkit import registry
from explainkit.errors import (
    PluginError,
    PluginWarning,
)


@pytest.mark.parametrize(
    ("plugin", "hooks"),
    [
        ("digits", offering("digits", kind="datasets")),
        ("plugins", offering("plugins", kind="commands")),
        ("builtins", offering("builtins/mine")),
        ("builtins", offering("mine")),
    ],
)
def test_a_third_party_plugin_never_replaces_what_is_ours(install, plugin, hooks):
    install(plugin, hooks, distribution="aaa")

    with pytest.warns(
        PluginWarning, match=r"belongs to 'builtins' \(explainkit-sdk|expected explainers named"
    ):
        rows = registry.plugins()

    assert [row.status for row in rows if row.distribution == "aaa"] == ["failed"]
    assert registry.offer("datasets", "digits").target == "explainkit.data.datasets.digits:digits"
    assert "mine" not in registry.offers("explainers")


def test_a_name_that_two_plugins_offer_is_neithers(install):
    install("mine", offering("mine", "mine/a"), distribution="first")
    install("mine", offering("mine", "mine/b"), distribution="second")

    with pytest.warns(PluginWarning) as caught:
        rows = [row for row in registry.plugins() if row.name == "mine"]

    assert len(caught) == 2
    assert [row.status for row in rows] == ["blocked", "blocked"]
    assert rows[0].cause == "'mine' is also offered by 'mine' (second 1.0)"
    assert list(registry.offers("explainers")) == ["mine/a", "mine/b"]
    with pytest.raises(PluginError, match=r"\(first 1.0\) and 'mine' \(second 1.0\)"):
        registry.find("explainers", "mine")
    assert registry.find("explainers", "mine/a")


def test_a_family_and_a_member_of_it_clash(install):
    install("mine", offering("mine/*", "mine"), distribution="first")
    install("mine", offering("mine/b"), distribution="second")

    with pytest.warns(PluginWarning):
        registry.plugins()

    assert list(registry.offers("explainers")) == ["mine"]
    for name in ("mine/b", "mine/c"):
        with pytest.raises(PluginError, match="Uninstall one"):
            registry.find("explainers", name)


def test_a_clash_is_an_error_when_strict(install, monkeypatch):
    install("mine", offering("mine"), distribution="first")
    install("mine", offering("mine"), distribution="second")
    monkeypatch.setenv("EXPLAINKIT_STRICT_PLUGINS", "1")

    with pytest.raises(PluginError, match="is also offered by"):
        registry.plugins()


@pytest.mark.parametrize(
    ("requires", "status"),
    [
        ("explainkit-sdk>=0.1", "ok"),
        ("explainkit_sdk[timm]>=0", "ok"),
        ("explainkit-sdk>=99; extra == 'test'", "ok"),
        ("explainkit-sdkx>=99", "ok"),
        ("ExplainKit.SDK>=99", "incompatible"),
        ("explainkit-sdk>>99", "failed"),
    ],
)
def test_a_plugin_says_which_explainkit_it_needs(install, requires, status):
    install("mine", "raise ImportError" if status != "ok" else "", requires=requires)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        row = registry.plugins()[-1]

    assert (row.distribution, row.status) == ("explainkit-mine", status)
    assert len(caught) == (status != "ok")
    assert (
        row.cause is None
        or "needs explainkit-sdk >=99; this is" in row.cause
        or "cannot be read" in row.cause
    )


@pytest.mark.parametrize(
    ("variable", "value", "loaded"),
    [
        ("EXPLAINKIT_PLUGINS", "", set()),
        ("EXPLAINKIT_PLUGINS", "one, not-there", {"one"}),
        ("EXPLAINKIT_PLUGINS", "Explainkit_Two", {"two"}),
        ("EXPLAINKIT_BLOCK", "one", {"two"}),
        ("EXPLAINKIT_BLOCK", "explainkit-two,", {"one"}),
        ("EXPLAINKIT_BLOCK", "", {"one", "two"}),
    ],
)
def test_the_environment_chooses(install, monkeypatch, variable, value, loaded):
    install("one", offering("one"))
    install("two", offering("two"))
    monkeypatch.setenv(variable, value)

    assert registry.offers("explainers").keys() == loaded
    assert row_of("builtins").status == "ok"
    assert {row.name for row in registry.plugins() if row.status == "blocked"} == {"one", "two"} - loaded
    for name in {"one", "two"} - loaded:
        with pytest.raises(PluginError, match=variable):
            registry.find("explainers", name)


def test_metadata_alone_imports_nothing(install):
    install("mine", "raise SystemExit")

    rows = registry.plugins(load=False)

    assert [(row.name, row.status) for row in rows] == [("builtins", "unloaded"), ("mine", "unloaded")]
    assert "thirdparty_explainkit_mine" not in sys.modules


def test_a_plugin_is_a_module(install):
    package = install("mine", "class Hooks: ...")
    entries = package.parent / "explainkit_mine-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[explainkit]\nmine = thirdparty_explainkit_mine:Hooks\n")

    with pytest.warns(PluginWarning, match="expected the entry point to name a module; got type"):
        registry.plugins()


def test_entry_points_that_cannot_be_read_are_a_row(install):
    package = install("mine", "")
    entries = package.parent / "explainkit_mine-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[explainkit]\nno equals sign\n")

    with pytest.warns(PluginWarning, match=r"\(explainkit-mine .*failed: its metadata"):
        rows = registry.plugins()

    assert [(row.distribution, row.status) for row in rows][1:] == [("explainkit-mine", "failed")]


def test_a_plugin_installed_meanwhile_is_found_after_forgetting(install):
    assert "mine" not in registry.offers("explainers")
    install("mine", offering("mine"))
    assert "mine" not in registry.offers("explainers")

    registry.clear_cache()

    assert "mine" in registry.offers("explainers")


def test_threads_that_ask_at_once_load_once(install):
    package = install("mine", "import time\ntime.sleep(0.1)\n" + offering("mine"))
    (package / "count.txt").write_text("")
    source = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text(f"open({str(package / 'count.txt')!r}, 'a').write('x')\n{source}")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(registry.offers("explainers"))) for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all("mine" in answer for answer in answers) and len(answers) == 4
    assert (package / "count.txt").read_text() == "x"


def test_rows_are_values(install):
    [row] = registry.plugins()

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        row.status = "failed"
    assert row.builtin and {"aviary", "cub", "wine"} <= set(row.offers["datasets"])
