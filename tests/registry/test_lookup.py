import sys
import threading
import warnings

import attrs
import pytest

from explainkit import registry
from explainkit.errors import (
    InputError,
    MissingPackageError,
    PluginError,
    PluginWarning,
    UnknownNameError,
)
from explainkit.registry import discovery, hookspecs
from explainkit.registry.discovery import HOOKS
from explainkit.registry.hookspecs import Offer

GOOD = """
@hookimpl
def explainkit_explainers():
    return [Offer("good", "Does nothing", "thirdparty_explainkit_good.parts:Good")]
"""
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


def offering(*names, kind="explainers", target="json:dumps"):
    """A hook that offers `names`."""
    listed = ", ".join(f"Offer({name!r}, 'Something', {target!r})" for name in names)
    return f"@hookimpl\ndef explainkit_{kind}():\n    return [{listed}]\n"


def row_of(plugin):
    [row] = [row for row in registry.plugins() if row.name == plugin]
    return row


def test_the_hooks_are_those_of_the_page():
    specified = [name for name in vars(hookspecs) if name.startswith("explainkit_")]

    assert list(HOOKS) == specified


def test_a_hook_left_out_is_an_empty_list():
    assert all(getattr(hookspecs, hook)() == [] for hook in HOOKS)


@pytest.mark.parametrize(
    "name", ["", "Mine", "my_plugin", "mine/", "/mine", "mine/a/b", "*", "mine*", "-mine", 3]
)
def test_an_offers_name_is_of_one_form(name):
    with pytest.raises(InputError, match="Expected an offer's name"):
        Offer(name, "", "a:b")


@pytest.mark.parametrize("target", ["", "a", "a:", ":b", "a.b", "a:b:c", "a b:c", "../a:b", None])
def test_an_offers_target_is_of_one_form(target):
    with pytest.raises(InputError, match="as 'package"):
        Offer("mine", "", target)


def test_explainkit_explainers_are_found_by_name_with_their_renderer(install):
    package = install("good", GOOD)
    (package / "parts.py").write_text("class Good: ...\ndef draw(explanation, figure): ...\n")

    assert registry.find("explainers", "good").__name__ == "Good"
    assert registry.renderer_for("good") is None
    assert registry.offer("explainers", "good").summary == "Does nothing"


def test_a_renderer_is_looked_up_and_does_without_the_plugin(install):
    package = install(
        "mine",
        "@hookimpl\ndef explainkit_explainers():\n"
        "    return [Offer('mine', '', 'a:b', renderer='thirdparty_explainkit_mine.parts:draw')]",
    )
    (package / "parts.py").write_text("def draw(explanation, figure): ...\n")

    assert registry.renderer_for("mine").__name__ == "draw"
    assert registry.renderer_for("not-installed/any") is None


def test_a_sentence_of_a_plugin_is_looked_up_and_does_without_it(install):
    package = install(
        "mine",
        "@hookimpl\ndef explainkit_explainers():\n"
        "    return [Offer('mine', '', 'a:b', sentence='thirdparty_explainkit_mine.parts:say'),\n"
        "            Offer('mine/plain', '', 'a:b'),\n"
        "            Offer('mine/broken', '', 'a:b', sentence='thirdparty_explainkit_mine.parts:none')]",
    )
    (package / "parts.py").write_text("def say(explanation): return 'so'\n")

    assert registry.sentence_for("mine")(None) == "so"
    assert registry.sentence_for("mine/plain") is None and registry.renderer_for("mine") is None
    assert registry.sentence_for("not-installed/any") is None
    with pytest.raises(PluginError, match=r"sentence of 'mine/broken' of plugin 'mine'.*AttributeError"):
        registry.sentence_for("mine/broken")


@pytest.mark.parametrize("field", ["target", "renderer", "sentence"])
def test_an_offer_names_what_it_has_by_module_and_attribute(field):
    given = {"target": "a:b", field: "a.b"}

    with pytest.raises(InputError, match=f"Expected an offer's {field} as 'package.module:attribute'"):
        Offer("mine", "", **given)


def test_explainkit_backbones_may_be_an_open_family(install):
    install("zoo", offering("zoo", kind="backbones"))
    install("timm", offering("timm/*", kind="backbones", target="operator:concat"), distribution="other")

    assert registry.find("backbones", "timm/resnet18.a1")("!") == "resnet18.a1!"
    assert registry.offer("backbones", "timm/resnet18").name == "timm/*"
    with pytest.raises(UnknownNameError):
        registry.find("backbones", "timm")
    with pytest.raises(UnknownNameError):
        registry.find("backbones", "timm/")


def test_explainkit_datasets_of_a_stranger_stand_beside_ours(install):
    install("mine", offering("mine", "mine/large", kind="datasets"))

    assert {"aviary", "digits", "mine", "mine/large"} <= registry.offers("datasets").keys()


def test_explainkit_metrics_answer_a_misspelling_with_the_nearest(install):
    install("mine", offering("mine/brevity", "mine/clarity", kind="metrics"))

    with pytest.raises(UnknownNameError, match="Did you mean 'mine/brevity'"):
        registry.find("metrics", "brevity")
    with pytest.raises(UnknownNameError, match=r"There are: .*mine/brevity, mine/clarity"):
        registry.find("metrics", "zzz")
    with pytest.raises(UnknownNameError, match="Did you mean 'metrics'"):
        registry.offers("metric")


def test_explainkit_loggers_that_do_not_import_are_told_with_plugin_and_distribution(install):
    install("mine", offering("mine", kind="loggers", target="thirdparty_explainkit_mine.parts:Logger"))

    with pytest.raises(
        PluginError, match=r"logger 'mine' of plugin 'mine' \(explainkit-mine 1.0\).*No module"
    ):
        registry.find("loggers", "mine")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ("", "AttributeError"),
        ("raise SystemExit", "SystemExit"),
        ("Thing = 3", "to be callable; got int"),
    ],
)
def test_a_bad_target_is_an_error_only_when_used(install, parts, told):
    package = install("mine", offering("mine", target="thirdparty_explainkit_mine.parts:Thing"))
    (package / "parts.py").write_text(parts)

    assert row_of("mine").status == "ok"
    with pytest.raises(PluginError, match=told):
        registry.find("explainers", "mine")


def test_a_target_may_say_which_package_it_lacks(install):
    package = install("mine", offering("mine", target="thirdparty_explainkit_mine.parts:Thing"))
    (package / "parts.py").write_text(
        "from explainkit import errors\nraise errors.MissingPackageError('timm')"
    )

    with pytest.raises(MissingPackageError):
        registry.find("explainers", "mine")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_is_a_row_and_a_line_and_nothing_else(install, fault):
    hooks, told = FAULTS[fault]
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
    assert told in rows["bad"].cause and rows["bad"].milliseconds >= 0 and not rows["bad"].offers
    assert rows["good"].status == rows["builtins"].status == "ok"
    assert "good" in offered and "bad" not in offered


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_is_an_error_when_strict(install, monkeypatch, fault):
    install("bad", FAULTS[fault][0])
    monkeypatch.setenv("EXPLAINKIT_STRICT_PLUGINS", "1")

    with pytest.raises(PluginError, match=r"'bad' \(explainkit-bad 1.0\) failed") as raised:
        registry.plugins()

    assert raised.value.__cause__ is not None


def test_what_a_broken_plugin_would_offer_is_told_with_its_fault(install):
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


@pytest.mark.parametrize(
    ("plugin", "hooks"),
    [
        ("digits", offering("digits", kind="datasets")),
        ("plugins", offering("plugins", kind="commands")),
        ("builtins", offering("builtins/mine")),
        ("builtins", offering("mine")),
    ],
)
def test_a_stranger_never_replaces_what_is_ours(install, plugin, hooks):
    install(plugin, hooks, distribution="aaa")

    with pytest.warns(
        PluginWarning, match=r"belongs to 'builtins' \(explainkit-sdk|expected explainers named"
    ):
        rows = registry.plugins()

    assert [row.status for row in rows if row.distribution == "aaa"] == ["failed"]
    assert registry.offer("datasets", "digits").target == "explainkit.data.datasets.digits:digits"
    assert "mine" not in registry.offers("explainers")


def test_a_name_that_two_strangers_offer_is_neithers(install):
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
