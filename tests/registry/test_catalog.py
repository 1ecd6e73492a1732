import pytest
import torch
from torch import nn

import explainkit as ek
from explainkit.errors import UnknownNameError, UnsupportedNetworkError
from explainkit.testing import tiny_dataset


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ek.explainer("camm"), r"'camm'.*Did you mean 'cam'"),
        (lambda: ek.backbone("smal"), r"'smal'.*Did you mean .*'small'"),
        (lambda: ek.dataset("aviarry"), r"'aviarry'.*Did you mean 'aviary'"),
        (lambda: ek.explainer("cam", epoch=3), r"'cam' has no setting 'epoch'. Did you mean 'epochs'\?"),
        (lambda: ek.explainer("cam", zzz=3), "There are: .*backbone.*epochs"),
        (lambda: ek.explainer("cam", preset="smal"), "no preset 'smal'.*small"),
        (lambda: ek.dataset("digits", sizes=8), r"'digits' has no setting 'sizes'. Did you mean 'size'\?"),
        (lambda: ek.backbone("small", width=8), "'small' has no setting 'width'"),
        (lambda: ek.explainer("cam", network=nn.Identity(), hed=None), "Did you mean 'head'"),
    ],
    ids=range(9),
)
def test_an_unknown_name_is_answered_with_the_nearest(call, message):
    with pytest.raises(UnknownNameError, match=message):
        call()


def test_settings_override_the_preset():
    assert ek.explainer("cam", preset="digits").backbone == "tiny"
    assert ek.explainer("cam", preset="digits", backbone="small").backbone == "small"
    assert (
        ek.explainer("cam", preset="digits", backbone="small").epochs
        == ek.explainer("cam", preset="digits").epochs
    )


def test_settings_of_a_backbone_that_are_none_are_not_passed_on():
    assert type(ek.backbone("small", weights=None, until=None)) is type(ek.backbone("small"))
    with pytest.raises(UnknownNameError, match="'small' has no setting 'until'"):
        ek.backbone("small", until="layer1")
    with pytest.raises(ek.InputError, match="folder of a saved explainer; there is none at 'DEFAULT'"):
        ek.backbone("small", weights="DEFAULT")


def test_classes_without_a_network_are_learned_from_the_data():
    with pytest.raises(ek.InputError, match=r"only beside network=…; fit\(dataset\) learns them"):
        ek.explainer("cam", classes=["a"])


def test_what_cannot_be_bound_says_so(install):
    install(
        "mine",
        """
        @hookimpl
        def explainkit_explainers():
            return [Offer("mine", "Counts.", "collections:Counter")]
        """,
    )

    with pytest.raises(
        UnsupportedNetworkError, match="'mine' cannot explain a network that it did not train"
    ):
        ek.explainer("mine", network=nn.Identity())


def test_a_setting_goes_through_while_binding():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )

    explainer = ek.explainer("cam", network=network, classes=["a", "b"], size=(8, 8))

    assert explainer.classes == ("a", "b") and explainer.explain(torch.rand(1, 3, 8, 8)).check_additivity()


@pytest.mark.parametrize(
    "settings", [{"epochs": "x"}, {"epochs": 1.5}, {"lr": "a"}, {"lr": float("nan")}, {"backbone": 3}]
)
def test_a_setting_of_the_wrong_kind_is_refused_before_anything_is_done(settings):
    with pytest.raises(ek.InputError, match=next(iter(settings))):
        ek.explainer("cam", **settings)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"epochs": -2}, "epochs"), ({"batch_size": 0}, "batch_size"), ({"precision": "x"}, "bf16-mixed")],
)
def test_a_plan_that_cannot_be_run_is_refused_in_words(settings, word):
    with pytest.raises(ek.InputError, match=word):
        ek.explainer("cam", preset="tiny").__class__(**{"backbone": "tiny", **settings}).phases()


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ek.InputError, match="device"):
        ek.explainer("cam", preset="tiny").fit(tiny_dataset(), device="cudaa")


def test_a_setting_that_has_no_default_is_asked_for():
    with pytest.raises(ek.InputError, match="path=…"):
        ek.dataset("folder")
