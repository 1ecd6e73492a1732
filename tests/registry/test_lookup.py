import pytest
from registry_cases import GOOD, offering, row_of

from explainkit import registry
from explainkit.errors import (
    InputError,
    MissingPackageError,
    PluginError,
    UnknownNameError,
)
from explainkit.registry import hookspecs
from explainkit.registry.discovery import HOOKS
from explainkit.registry.hookspecs import Offer


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


def test_a_renderer_that_cannot_be_imported_is_named(install):
    package = install(
        "mine",
        "@hookimpl\ndef explainkit_explainers():\n"
        "    return [Offer('mine', '', 'a:b', 'thirdparty_explainkit_mine.parts:none')]",
    )
    (package / "parts.py").write_text("def draw(explanation, figure): ...\n")

    with pytest.raises(PluginError, match=r"renderer of 'mine' of plugin 'mine'.*AttributeError"):
        registry.renderer_for("mine")


@pytest.mark.parametrize("field", ["target", "renderer"])
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


def test_explainkit_datasets_of_third_parties_stand_beside_ours(install):
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


def test_explainkit_loggers_that_do_not_import_are_named_with_plugin_and_distribution(install):
    install("mine", offering("mine", kind="loggers", target="thirdparty_explainkit_mine.parts:Logger"))

    with pytest.raises(
        PluginError, match=r"logger 'mine' of plugin 'mine' \(explainkit-mine 1.0\).*No module"
    ):
        registry.find("loggers", "mine")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("", "AttributeError"),
        ("raise SystemExit", "SystemExit"),
        ("Thing = 3", "to be callable; got int"),
    ],
)
def test_a_bad_target_is_an_error_only_when_used(install, parts, message):
    package = install("mine", offering("mine", target="thirdparty_explainkit_mine.parts:Thing"))
    (package / "parts.py").write_text(parts)

    assert row_of("mine").status == "ok"
    with pytest.raises(PluginError, match=message):
        registry.find("explainers", "mine")


def test_a_target_may_say_which_package_it_lacks(install):
    package = install("mine", offering("mine", target="thirdparty_explainkit_mine.parts:Thing"))
    (package / "parts.py").write_text(
        "from explainkit import errors\nraise errors.MissingPackageError('timm')"
    )

    with pytest.raises(MissingPackageError):
        registry.find("explainers", "mine")
