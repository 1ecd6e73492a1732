"""Settings, batches, provenance and drawings of all methods."""

import pytest
import torch
from captum_networks import (
    AT_LEAST,
    METHODS,
    ONE_PASS,
    Returning,
    captum_explainer,
    random_images,
    seeded_network,
    tolerance_of,
)
from plugin_cases import assert_near

import explainkit as ek
from explainkit.metrics.cost import counting
from explainkit.testing import check_explainer

QUICK = ("saliency", "occlusion")


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=() if method in QUICK else pytest.mark.slow) for method in METHODS]
)
def test_any_network_keeps_every_promise_whatever_it_returns(method):
    network = Returning(seeded_network(), lambda logits: {"logits": logits})

    check_explainer(captum_explainer(method, network, classes=list("abcd")), random_images(4, 16))


@pytest.mark.parametrize("method", ONE_PASS)
@pytest.mark.parametrize("arguments", [{}, {"targets": 2}, {"foils": [0, 1, 2, 3]}])
def test_a_method_of_one_pass_sends_each_image_through_once(method, arguments):
    network, images = seeded_network(), random_images(4, 32)
    explainer = ek.explainer(f"captum/{method}", network=network)
    explainer.explain(images)

    with counting(network, images[:1]) as counter:
        explanations = explainer.explain(images, **arguments)

    assert (counter.passes.forward, counter.passes.backward) == (4, 4)
    assert_near(explanations.logits, explainer.predict(images))
    targets = torch.full((4,), 2) if "targets" in arguments else explanations.logits.argmax(1)
    assert torch.equal(explanations.targets, targets)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", ["setting", "call"])
def test_the_network_never_sees_more_than_batch_size(method, by):
    network, images, sizes = seeded_network(), random_images(7), []
    explainer = captum_explainer(method, network, **({"batch_size": 5} if by == "setting" else {}))
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    whole = captum_explainer(method, seeded_network()).explain(images)

    explanations = explainer.explain(images, **({"batch_size": 5} if by == "call" else {}))

    assert 3 <= max(sizes) <= AT_LEAST.get(method, 5)
    assert_near(explanations.contributions, whole.contributions, tolerance_of(method))
    assert explanations.provenance.settings["batch_size"] == 5 and explainer.batch_size == (
        5 if by == "setting" else 256
    )


@pytest.mark.parametrize("method", METHODS)
def test_float64_networks_are_explained_in_float64(method):
    explanations = captum_explainer(method, seeded_network().double()).explain(random_images())

    assert explanations.scores.dtype == explanations.maps.dtype == explanations.base.dtype == torch.float64


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("occlusion", {"window": 30}, "window within the image"),
        ("occlusion", {"window": 4, "stride": 5}, "stride within the window"),
        ("integrated-gradients", {"baseline": torch.rand(2, 3, 24, 24)}, "same for all images"),
        ("integrated-gradients", {"method": "simpson"}, "gausslegendre"),
        ("integrated-gradients", {"n_steps": 0}, "n_steps of at least 1"),
        ("saliency", {"batch_size": 0}, "batch_size of at least 1"),
        ("saliency", {"steps": 3}, "no setting 'steps'"),
        ("deep-lift-shap", {"baselines": [0.5]}, "two baselines or more"),
        ("gradient-shap", {"baselines": torch.rand(3, 24, 24)}, "Expected baselines as numbers"),
        ("gradient-shap", {"baselines": ["black", "white"]}, "numbers or images to compare with"),
        ("deep-lift", {"baseline": float("nan")}, "finite numbers"),
        ("lime", {"patches": 25}, "grid of 1"),
        ("lime", {"patches": 0}, "grid of 1"),
        ("kernel-shap", {"patches": "hexagons"}, "got 'hexagons'"),
        ("kernel-shap", {"patches": torch.zeros(8, 8, dtype=torch.long)}, r"one a pixel; got .*\(8, 8\)"),
        ("lime", {"distance": "taxi"}, "cosine"),
        ("noise-tunnel", {"kind": "mean"}, "smoothgrad"),
        ("noise-tunnel", {"method": "noise-tunnel"}, "got noise-tunnel itself"),
        ("noise-tunnel", {"method": "salience"}, "Did you mean 'captum/saliency'"),
        ("noise-tunnel", {"options": {"steps": 3}}, "no setting 'steps'"),
        ("noise-tunnel", {"n_samples": 0}, "n_samples of at least 1"),
    ],
)
def test_settings_are_refused_in_words(method, settings, words):
    with pytest.raises(ek.ExplainKitError, match=words):
        captum_explainer(method, seeded_network(), **settings).explain(random_images())


def test_settings_change_the_explanation():
    network, images = seeded_network(), random_images()

    signed = captum_explainer("saliency", network, abs=False).explain(images)
    rectified = captum_explainer("layer-grad-cam", network, relu_attributions=True).explain(images)

    assert (signed.scores[:, 1] < 0).all()
    assert not rectified.scores[:, 1].any()


def test_the_card_cites_and_the_provenance_names_captum():
    for method in METHODS:
        explainer = captum_explainer(method, seeded_network())
        explanations = explainer.explain(random_images(1))

        assert "20" in explainer.card.citation and explainer.card.unit_kind == "pixels"
        assert explanations.provenance.explainer == f"captum/{method}"
        assert explanations.provenance.versions["captum"]
        assert explanations.units.names == ("pixels for", "pixels against")


@pytest.mark.parametrize("method", METHODS)
def test_it_is_drawn_and_described(method, tmp_path):
    classes = ["crow", "<b>tit</b>", "wren", "robin"]
    explainer = captum_explainer(method, seeded_network(), classes=classes)
    explanations = explainer.explain(random_images(2), foils=1)

    page = ek.report(explanations, tmp_path / "page.html").read_text(encoding="utf-8")

    assert explanations[0].figure().axes and "pixels" in explanations[0].sentence()
    assert f"captum/{method}" in page and "<b>tit</b>" not in page
