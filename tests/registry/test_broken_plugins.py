"""A broken plugin is named, and the others go on."""

import warnings

import pytest
from registry_cases import GOOD, row_of

from explainkit import registry
from explainkit.errors import (
    PluginError,
    PluginWarning,
)
from explainkit.registry import discovery

FAULTS = {
    "import error": ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named"),
    "syntax error": ("def explainkit_explainers(:", "SyntaxError"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "hook argument": (
        """
        @hookimpl
        def explainkit_explainers():
            return [Offer("bad", "", "a:b")]

        @hookimpl
        def explainkit_metrics(color):
            return []
        """,
        "color",
    ),
    "misspelled hook": (
        """
        @hookimpl
        def explainkit_explainers():
            return [Offer("bad", "", "a:b")]

        @hookimpl
        def explainkit_explaners():
            return []
        """,
        "has no hook explainkit_explaners; did you mean explainkit_explainers?",
    ),
    "unknown hook": ("@hookimpl\ndef colors():\n    return []", "there are explainkit_explainers"),
    "no marker": ("def explainkit_explainers():\n    return []", "lacks @explainkit.hookimpl"),
    "hook raises": (
        """
        @hookimpl
        def explainkit_backbones():
            return [Offer("bad", "", "a:b")]

        @hookimpl
        def explainkit_metrics():
            raise RuntimeError("one\\ntwo")
        """,
        "RuntimeError: one two",
    ),
    "nothing returned": ("@hookimpl\ndef explainkit_metrics():\n    pass", "list of Offer; got None"),
    "other things": ("@hookimpl\ndef explainkit_metrics():\n    return ['a']", "list of Offer; got ['a']"),
    "generator": ("@hookimpl\ndef explainkit_metrics():\n    yield Offer('bad', '', 'a:b')", "list of Offer"),
    "another's name": (
        "@hookimpl\ndef explainkit_metrics():\n    return [Offer('good/better', '', 'a:b')]",
        "expected metrics named 'bad' or 'bad/…'; got 'good/better'",
    ),
    "twice": (
        "@hookimpl\ndef explainkit_metrics():\n    return 2 * [Offer('bad', '', 'a:b')]",
        "offers 'bad' twice under metrics",
    ),
    "target": (
        "@hookimpl\ndef explainkit_metrics():\n    return [Offer('bad', '', 'a.b')]",
        "InputError: Expected an offer's target as 'package.module:attribute'; got 'a.b'",
    ),
    "asks while it loads": ("from explainkit import registry\nregistry.plugins()", "while plugins are being"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_is_a_row_and_a_line_and_nothing_else(install, fault):
    hooks, cause = FAULTS[fault]
    install("bad", hooks)
    install("good", GOOD)

    with pytest.warns(PluginWarning) as caught:
        rows = {row.name: row for row in registry.plugins()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        offered = {name for kind in discovery.KINDS for name in registry.offers(kind)}

    [warned] = caught
    assert "'bad' (explainkit-bad 1.0) failed" in str(warned.message) and "\n" not in str(warned.message)
    assert (rows["bad"].status, rows["bad"].distribution, rows["bad"].version) == (
        "failed",
        "explainkit-bad",
        "1.0",
    )
    assert cause in rows["bad"].cause and rows["bad"].milliseconds >= 0 and not rows["bad"].offers
    assert rows["good"].status == rows["builtins"].status == "ok"
    assert "good" in offered and "bad" not in offered


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_is_an_error_when_strict(install, monkeypatch, fault):
    install("bad", FAULTS[fault][0])
    monkeypatch.setenv("EXPLAINKIT_STRICT_PLUGINS", "1")

    with pytest.raises(PluginError, match=r"'bad' \(explainkit-bad 1.0\) failed") as raised:
        registry.plugins()

    assert raised.value.__cause__ is not None


def test_what_a_broken_plugin_would_offer_is_listed_with_its_fault(install):
    install("bad", "import a_module_that_is_not_there")
    with pytest.warns(PluginWarning):
        registry.plugins()

    with pytest.raises(
        PluginError, match=r"No explainer 'bad/one': plugin 'bad' .* failed: ModuleNotFoundError"
    ):
        registry.find("explainers", "bad/one")
    assert registry.renderer_for("bad") is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_not_the_plugins_fault_passes(install, error):
    install("bad", f"raise {error.__name__}")

    with pytest.raises(error):
        registry.plugins()


def test_warnings_made_errors_leave_a_registry_that_works(install):
    install("bad", "raise ValueError")
    with warnings.catch_warnings(), pytest.raises(PluginWarning):
        warnings.simplefilter("error")
        registry.plugins()

    assert row_of("bad").status == "failed"
