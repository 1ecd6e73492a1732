"""What a network takes is stated once, and images that do not fit it are refused."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from attrs import evolve
from captum import attr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.transforms import v2

import explainkit as ek
from explainkit.errors import InputError, NormalizationWarning
from explainkit.explainers.inputs import InputSpec
from explainkit.networks.input_scaling import Normalization
from explainkit.testing import fitted_example, tiny_dataset, tiny_images

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def small_network(channels=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()


def normalized(images):
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def dataset_of(channels):
    """`tiny_dataset` with other channels: the first one, or two more of noise."""
    dataset = tiny_dataset()

    def split(values):
        more = torch.randint(0, 90, (*values.images.shape[:1], 2, 32, 32), dtype=torch.uint8)
        images = values.images[:, :1] if channels == 1 else torch.cat([values.images, more], 1)
        return evolve(values, images=images)

    splits = {name: split(values) for name, values in dataset.splits.items()}
    return evolve(dataset, channels=channels, splits=splits)


# normalized once


@pytest.mark.parametrize("name", ["cam", "captum/saliency", "captum/occlusion", "captum/deep-lift"])
def test_mean_and_std_give_the_logits_of_normalized_images(name):
    network, images = small_network(), uniform(4, 3, 16, 16)
    explainer = ek.explainer(name, network=network, mean=MEAN, std=STD, size=16)

    explanations = explainer.explain(images)

    torch.testing.assert_close(explanations.logits, network(normalized(images)))
    torch.testing.assert_close(explainer.predict(images), network(normalized(images)))
    assert torch.equal(explanations.images, images)


def test_attributions_are_those_of_the_network_with_its_normalization():
    network, images = small_network(), uniform(2, 3, 16, 16)
    whole = nn.Sequential(Normalization(MEAN, STD).float(), network)
    targets = whole(images).argmax(1)
    expected = attr.IntegratedGradients(whole).attribute(images, target=targets).sum(1)

    explained = ek.explainer("captum/integrated-gradients", network=network, mean=MEAN, std=STD)

    torch.testing.assert_close(explained.explain(images).saliency(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["captum/lrp", "captum/layer-lrp"])
def test_relevance_passes_the_normalization_unchanged(name):
    network, images = small_network(), uniform(2, 3, 16, 16)
    already = ek.explainer(name, network=network, value_range=None).explain(normalized(images))

    explained = ek.explainer(name, network=network, mean=MEAN, std=STD).explain(images)

    torch.testing.assert_close(explained.saliency(), already.saliency(), rtol=1e-4, atol=1e-6)


def test_normalizing_twice_is_refused_whoever_says_it_first():
    inside = nn.Sequential(v2.Normalize(MEAN, STD), *small_network())
    trained = ek.explainer("cam", preset="tiny", epochs=1).fit(tiny_dataset(), progress=False)
    bound = ek.explainer("cam", network=small_network(), mean=MEAN, std=STD, size=16)

    for network in (inside, trained.network, bound.network):
        with pytest.raises(InputError, match=r"normalized once.*Leave them out"):
            ek.explainer("captum/saliency", network=network, mean=MEAN, std=STD)


def test_post_hoc_methods_learn_what_a_network_takes_from_the_network():
    trained = ek.explainer("cam", preset="tiny", epochs=1).fit(tiny_dataset(), progress=False)
    bound = ek.explainer("cam", network=small_network(), mean=MEAN, std=STD, size=16)

    for model in (trained, bound):
        method = ek.explainer("captum/saliency", network=model.network)
        assert method.input_spec == model.input_spec
        with pytest.raises(InputError, match="normalize"):
            method.explain(uniform(1, 3, 32, 32) * 4 - 2)


@pytest.mark.parametrize("other", [{}, {"mean": MEAN, "std": (0.5, 0.5, 0.5)}, {"value_range": (0, 255)}])
def test_two_specifications_of_one_network_are_not_compared(other):
    network = small_network()
    one = ek.explainer("cam", network=network, mean=MEAN, std=STD, size=32)
    another = ek.explainer("captum/saliency", network=network, **other)

    with pytest.raises(InputError, match="one input specification"):
        ek.compare([one, another], uniform(2, 3, 32, 32))
    with pytest.raises(InputError, match="one input specification"):
        ek.evaluate_explanations([one, another], evolve(tiny_dataset(), classes=one.classes), images=2)


def test_one_specification_of_one_network_is_compared():
    network = small_network()
    explainers = [
        ek.explainer(name, network=network, mean=MEAN, std=STD, size=32)
        for name in ("cam", "captum/saliency")
    ]

    assert not ek.compare(explainers, uniform(2, 3, 32, 32)).failures


# the range


@pytest.mark.parametrize(
    ("settings", "images", "cause"),
    [
        ({}, uniform(1, 3, 16, 16) * 4 - 2, "look normalized: give the explainer mean"),
        ({}, uniform(1, 3, 16, 16) * 255, "look like bytes"),
        ({"mean": MEAN, "std": STD}, uniform(1, 3, 16, 16) * 4 - 2, "since it was given mean and std"),
        ({"value_range": (-1, 1)}, uniform(1, 3, 16, 16) * 4 - 2, r"in \[-1, 1\]"),
    ],
)
@pytest.mark.parametrize("name", ["cam", "captum/saliency"])
def test_images_outside_the_range_are_refused_with_the_likely_cause(name, settings, images, cause):
    explainer = ek.explainer(name, network=small_network(), size=16, **settings)

    for question in (explainer.explain, explainer.predict):
        with pytest.raises(InputError, match=cause):
            question(images)


def test_any_values_are_taken_where_the_range_is_none():
    images = uniform(2, 3, 16, 16) * 40 - 20
    network = small_network()

    explanations = ek.explainer("captum/saliency", network=network, value_range=None).explain(images)

    assert torch.equal(explanations.logits, network(images))
    assert explanations[0].figure() is not None


def test_files_and_batches_are_brought_to_the_range_and_shown_as_they_were():
    network, batch = small_network(), next(iter(tiny_dataset().batches("test", 4)))
    explainer = ek.explainer("captum/saliency", network=network, value_range=(-1, 1))

    explanations = explainer.explain(batch)

    torch.testing.assert_close(explanations.logits, network(batch.images * 2 - 1))
    torch.testing.assert_close(explanations.images, batch.images)
    picture = Image.fromarray((batch.images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    torch.testing.assert_close(explainer.predict([picture])[0], explanations.logits[0])


def test_reading_files_for_a_network_that_nobody_described_warns():
    picture = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    unknown = ek.explainer("captum/saliency", network=small_network())
    stated = ek.explainer("captum/saliency", network=small_network(), value_range=(0, 1))

    with pytest.warns(NormalizationWarning, match=r"mean=… and std=…"):
        unknown.explain([picture])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stated.explain([picture])
        unknown.explain(uniform(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": MEAN}, "both or neither"),
        ({"mean": (0.5,), "std": (0.5,)}, "channels"),
        ({"mean": MEAN, "std": (1, 0, 1)}, "std above 0"),
        ({"mean": ("a", "b", "c"), "std": STD}, "sequence of numbers"),
        ({"value_range": (1, 0)}, "lowest and a highest"),
        ({"value_range": 3}, "sequence of numbers"),
        ({"size": (0, 3)}, "height and width"),
        ({"size": "16"}, "height and width"),
    ],
)
@pytest.mark.parametrize("name", ["cam", "captum/saliency"])
def test_a_specification_that_makes_no_sense_is_refused(name, settings, message):
    with pytest.raises(InputError, match=message):
        ek.explainer(name, network=small_network(), **{"size": 16, **settings})


@given(
    st.floats(-300, 300), st.floats(0.01, 500),
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
)  # fmt: skip
def test_the_way_to_the_range_and_back_changes_nothing(low, width, values):
    spec = InputSpec(value_range=(low, low + width))
    images = torch.tensor(values, dtype=torch.float64)

    torch.testing.assert_close(spec.to_unit(spec.from_unit(images)), images, rtol=1e-6, atol=1e-6)


# channels


@pytest.mark.parametrize(
    ("name", "channels"),
    [("cam", 1), ("cam", 5), ("captum/occlusion", 2), ("captum/deep-lift", 1), ("captum/lime", 5)],
)
def test_images_of_other_channels_are_explained_drawn_and_saved(name, channels, tmp_path):
    images = uniform(2, channels, 16, 16)
    explainer = ek.explainer(name, network=small_network(channels), size=16)

    explanations = explainer.explain(images)

    assert explanations.saliency().shape == (2, 16, 16)
    explanations[0].figure().savefig(tmp_path / "figure.png", dpi=40)
    again = ek.Explanations.load(explanations.save(tmp_path / "explanations"))
    assert again.images.shape == images.shape
    page = ek.report(explanations, tmp_path / "page.html").read_text()
    assert ("first three of 5 channels" in page) == (channels == 5)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("cam", 1),
        ("senn", 5),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ("ccnn", "protopnet", "ra-cnn", "senn")),
        pytest.param("protopnet", 5, marks=pytest.mark.slow),
    ],
)
def test_every_architecture_learns_from_images_of_other_channels(name, channels, tmp_path):
    dataset = dataset_of(channels)
    batch = next(iter(dataset.batches("test", 4)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ek.explainer(name, preset="tiny").fit(dataset, progress=False)
    explanations = model.explain(batch)

    explanations.check_additivity()
    assert explanations.images.shape[1] == channels
    loaded = ek.load(ek.save(model, tmp_path / "model"))
    assert loaded.input_spec.channels == channels
    assert torch.equal(loaded.explain(batch).contributions, explanations.contributions)
    explanations[0].figure().savefig(tmp_path / "figure.png", dpi=40)
    assert model.counterfactual(batch).images.shape == batch.images.shape


def test_pictures_become_gray_for_a_network_of_one_channel():
    color = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    explainer = ek.explainer("captum/saliency", network=small_network(1), value_range=(0, 1))
    gray = torch.from_numpy(np.array(Image.fromarray(color).convert("L"))).float()[None, None] / 255

    for item in (Image.fromarray(color), color, color.astype(np.float32) / 255):
        torch.testing.assert_close(explainer.read_images([item]), gray, rtol=0, atol=0.6 / 255)


@pytest.mark.parametrize("item", [np.zeros((8, 8, 3), np.uint8), Image.new("RGB", (8, 8)), "a.png"])
def test_pictures_are_refused_for_a_network_of_five_channels(item):
    explainer = ek.explainer("captum/saliency", network=small_network(5), value_range=(0, 1))

    with pytest.raises(InputError, match="5"):
        explainer.explain([item])
    stacked = np.random.default_rng(0).random((8, 8, 5))
    assert explainer.explain([stacked]).images.shape == (1, 5, 8, 8)


def test_channels_are_those_of_the_first_convolution():
    with pytest.raises(InputError, match=r"\(N, 1, H, W\)"):
        ek.explainer("captum/saliency", network=small_network(1)).explain(uniform(1, 3, 16, 16))


# travelling


def test_a_specification_is_saved_with_the_model(tmp_path):
    network = small_network()
    model = ek.explainer("cam", network=network, mean=MEAN, std=STD, value_range=(0, 2), size=16)
    images = uniform(2, 3, 16, 16) * 2

    loaded = ek.load(ek.save(model, tmp_path / "model"), network=small_network(seed=1))

    assert loaded.input_spec == model.input_spec
    assert torch.equal(loaded.explain(images).contributions, model.explain(images).contributions)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_an_explainer_with_a_normalization_is_copied_whole(copied):
    explainer = ek.explainer("captum/saliency", network=small_network(), mean=MEAN, std=STD)
    images = uniform(2, 3, 16, 16)

    assert torch.equal(copied(explainer).predict(images), explainer.predict(images))


def test_a_third_party_method_gets_normalized_images_too():
    class Constant(ek.PostHocExplainer):
        card = ek.Card(title="Constant", citation="none", additivity="none", unit_kind="pixels")

        def explain_batch(self, images, targets, foils):
            raise NotImplementedError

    network, images = small_network(), uniform(2, 3, 16, 16)
    explainer = Constant.from_network(network, mean=MEAN, std=STD)

    torch.testing.assert_close(explainer.predict(images), network(normalized(images)))


@pytest.mark.parametrize("name", ["protopnet", "senn"])
def test_networks_of_an_architecture_are_normalized_outside_and_saved(name, tmp_path):
    model, images = fitted_example(name), tiny_images()
    network = copy.deepcopy(model.network)
    del network.input_spec  # as if it had been trained elsewhere
    settings = {"network": network, "classes": model.classes, "mean": MEAN, "std": STD}

    explainer = ek.explainer(name, **settings)
    explanations = explainer.explain(images).check_additivity()

    torch.testing.assert_close(explanations.logits, network(normalized(images)))
    loaded = ek.load(ek.save(explainer, tmp_path / "model"), network=network)
    assert torch.equal(loaded.explain(images).contributions, explanations.contributions)


@pytest.mark.parametrize(
    "name",
    [
        "gradient-shap", "integrated-gradients", "occlusion", "deep-lift-shap", "kernel-shap",
        "layer-gradient-shap", "layer-conductance", "noise-tunnel", "feature-ablation",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value_range", [(0, 255), (-1, 1)])
def test_baselines_and_noise_are_of_the_range(name, value_range):
    """A network on another range is the same function: black is black, and noise as loud."""
    low, high = value_range
    plain = small_network()
    scaled = copy.deepcopy(plain)
    batch = tiny_dataset().test.batch(torch.arange(3))
    mean, std = (
        (-low / (high - low),) * 3,
        (1 / (high - low),) * 3,
    )  # the way back to [0, 1], for the reference
    del mean, std

    class Rescaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = scaled

        def forward(self, images):
            return self.inner((images - low) / (high - low))

    options = {"method": "integrated-gradients"} if name == "noise-tunnel" else {}
    if name == "kernel-shap":
        options = {"patches": 2, "n_samples": 60}
    layer = {"layer": "0"} if name.startswith("layer") else {}
    one = ek.explainer(f"captum/{name}", network=plain, value_range=(0, 1), **layer, **options)
    other_layer = {"layer": "inner.0"} if layer else {}
    other = ek.explainer(
        f"captum/{name}", network=Rescaled().eval(), value_range=value_range, **other_layer, **options
    )

    expected, found = one.explain(batch), other.explain(batch)

    torch.testing.assert_close(found.base, expected.base, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.saliency(), expected.saliency(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [np.int64(16), torch.tensor(16)])
def test_a_size_may_be_any_whole_number(size):
    assert ek.explainer("captum/saliency", network=small_network(), size=size).size == (16, 16)


@pytest.mark.parametrize("settings", [{"size": 16.0}, {"value_range": "0-255"}])
def test_what_is_no_size_or_range_is_refused(settings):
    with pytest.raises(InputError):
        ek.explainer("cam", network=small_network(), **{"size": 16, **settings})


def test_specifications_that_differ_by_rounding_are_one():
    network = small_network()
    one = ek.explainer("cam", network=network, mean=MEAN, std=STD, size=32)
    other = ek.explainer("captum/saliency", network=network, mean=torch.tensor(MEAN), std=torch.tensor(STD))

    assert not ek.compare([one, other], uniform(2, 3, 32, 32)).failures


def test_a_gray_array_may_have_an_axis_for_its_channel():
    explainer = ek.explainer("captum/saliency", network=small_network(1), value_range=(0, 1))
    gray = np.random.default_rng(0).integers(0, 255, (8, 8, 1), np.uint8)

    assert torch.equal(explainer.read_images([gray]), explainer.read_images([gray[..., 0]]))


@pytest.mark.parametrize(
    "name", ["cam", *(f"captum/{name}" for name in (
        "saliency", "noise-tunnel", "lrp", "layer-grad-cam", "occlusion", "deep-lift", "guided-backprop"))]
)  # fmt: skip
@pytest.mark.parametrize("source", ["cam", "captum/saliency", "captum/noise-tunnel"])
def test_the_network_of_an_explainer_is_normalized_once_by_another_explainer(source, name):
    network, images = small_network(), uniform(3, 3, 16, 16)
    first = ek.explainer(source, network=network, mean=MEAN, std=STD, size=16)
    if name == "cam" and source != "cam":
        return  # reads the network itself, not one with something before it

    second = ek.explainer(name, network=first.network, size=16)

    expected = network(normalized(images))
    torch.testing.assert_close(second.predict(images), expected)
    torch.testing.assert_close(second.explain(images).logits, expected)
    assert second.input_spec == first.input_spec
    assert not ek.compare([first, second], images).failures


class Named(nn.Module):
    """A network whose modules have names that explainkit uses for its own."""

    def __init__(self):
        super().__init__()
        self.input_spec, self.decision, self.output_decision = small_network(), nn.Linear(3, 3), nn.ReLU()
        self.input_size = 224

    def forward(self, images):
        return self.output_decision(self.decision(self.input_spec(images)))


def test_attributes_of_a_network_with_our_names_are_its_own():
    network, images = Named().eval(), uniform(2, 3, 16, 16)

    explainer = ek.explainer("captum/saliency", network=network)

    torch.testing.assert_close(explainer.predict(images), network(images))
    assert explainer.size is None and explainer.decision.rule == "softmax"
