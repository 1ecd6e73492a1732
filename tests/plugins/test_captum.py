"""Captum's methods: what Captum says by hand, on anybody's network, which is left as it was."""

import random
import sys
import warnings
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnLasso
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit import registry
from explainkit.errors import BindError, UnknownNameError
from explainkit.metrics.cost import counting
from explainkit.testing import check_explainer
from explainkit_captum.guided import UnguidedWarning
from explainkit_captum.patches import patch_mask, spread
from explainkit_captum.perturbation import steps

SMALL = {
    "gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "kernel-shap": {"n_samples": 20, "patches": 3},
    "layer-gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "lime": {"n_samples": 20, "patches": 3, "alpha": 1e-6},
    "noise-tunnel": {"n_samples": 3},
    "shapley-value-sampling": {"n_samples": 2, "patches": 3},
}
"""Settings that keep the tests quick."""

METHODS = [name.partition("/")[2] for name in registry.offers("explainers") if name.startswith("captum/")]
ONE_PASS = [
    *("saliency", "input-x-gradient", "guided-backprop", "deconvolution", "layer-grad-cam"),
    "layer-gradient-x-activation",
]
COMPLETE = [
    *("integrated-gradients", "gradient-shap", "deep-lift", "deep-lift-shap", "lrp", "kernel-shap"),
    *("shapley-value-sampling", "layer-integrated-gradients", "layer-conductance", "layer-deep-lift"),
    *("layer-deep-lift-shap", "layer-gradient-shap", "layer-lrp"),
]
AT_LEAST = {"layer-gradient-shap": 6}
"""What the network sees at once where `max_batch` is less: samples, and their baselines with them."""


class Plain(nn.Module):
    """Convolutions and a linear layer, all ReLUs modules."""

    def __init__(self, inplace=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace))
        self.deep = nn.Conv2d(8, 12, 3, 2, 1)
        self.rectify = nn.ReLU(inplace)
        self.head = nn.Linear(12, 4)

    def forward(self, images):
        return self.head(self.rectify(self.deep(self.stem(images))).mean((2, 3)))


class Functional(Plain):
    def forward(self, images):
        features = self.stem[1](self.stem[0](images))
        return self.head(torch.relu(self.deep(F.relu(features))).mean((2, 3)))


class Returning(nn.Module):
    """What `form` makes of the logits of another network."""

    def __init__(self, inner, form):
        super().__init__()
        self.inner, self.form = inner, form

    def forward(self, images):
        return self.form(self.inner(images))


FORMS = {
    "a tuple": lambda logits: (logits, logits.mean()),
    "a tuple with maps first": lambda logits: (logits[:, :, None, None], logits),
    "a list": lambda logits: [logits],
    "a mapping": lambda logits: {"loss": logits * 2, "logits": logits},
    "a mapping without the key": lambda logits: OrderedDict(loss=logits.mean(), out=logits, aux=logits * 2),
    "an object": lambda logits: SimpleNamespace(logits=logits, loss=None),
}
NOT_LOGITS = {
    "maps": (lambda logits: logits[:, :, None, None], r"a tensor \(1, 4, 1, 1\)"),
    "one number an image": (lambda logits: logits[:, 0], r"a tensor \(1,\)"),
    "a mapping without logits": (lambda logits: {"loss": logits.mean()}, r"dict of 'loss': a tensor \(\)"),
    "an empty tuple": (lambda logits: (), "tuple of nothing"),
    "a string": (lambda logits: "cat", "str"),
    "an object with other logits": (lambda logits: SimpleNamespace(logits=logits[0]), "with .logits"),
    "classes": (lambda logits: logits.long(), "torch.int64"),
}  # fmt: skip


def made(kind=Plain, seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = kind(**settings).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.bias.data.normal_()
    return network


def bound(name, network, **settings):
    return ek.explainer(f"captum/{name}", network=network, **{**SMALL.get(name, {}), **settings})


def images_of(count=3, size=24, seed=1):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def hooks_of(network):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in kinds)


def by_hand(method, network, images, targets):
    """Captum, called as its documentation says; channels summed, values of patches shared out."""
    layer, whole = network.rectify, images.clone().requires_grad_()
    greys = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(-1, *images.shape[1:])
    mask = torch.arange(9).view(3, 3).repeat_interleave(8, 0).repeat_interleave(8, 1)[None, None]
    cells = torch.arange(36).view(1, 1, 6, 6)

    def alone(made, *given, **settings):
        """Image by image, each from seed 0: what is drawn must not depend on the others."""
        found = []
        for image, target in zip(images, targets, strict=True):
            torch.manual_seed(0), np.random.seed(0)
            found.append(made.attribute(image[None].requires_grad_(), *given, target=int(target), **settings))
        return torch.cat(found)

    def shared(values, areas):
        return values / (areas * values.shape[1])

    torch.manual_seed(0)
    calls = {
        "saliency": lambda: attr.Saliency(network).attribute(whole, target=targets),
        "input-x-gradient": lambda: attr.InputXGradient(network).attribute(whole, target=targets),
        "integrated-gradients": lambda: attr.IntegratedGradients(network).attribute(whole, target=targets),
        "guided-backprop": lambda: attr.GuidedBackprop(network).attribute(whole, target=targets),
        "deconvolution": lambda: attr.Deconvolution(network).attribute(whole, target=targets),
        "deep-lift": lambda: attr.DeepLift(network).attribute(whole, target=targets),
        "deep-lift-shap": lambda: attr.DeepLiftShap(network).attribute(whole, greys, target=targets),
        "lrp": lambda: attr.LRP(network).attribute(whole, target=targets),
        "gradient-shap": lambda: alone(attr.GradientShap(network), greys, n_samples=3, stdevs=0.1),
        "noise-tunnel": lambda: alone(
            attr.NoiseTunnel(attr.Saliency(network)), nt_type="smoothgrad", nt_samples=3, stdevs=0.15
        ),
        "occlusion": lambda: attr.Occlusion(network).attribute(
            images, sliding_window_shapes=(3, 3, 3), strides=(3, 1, 1), target=targets
        ),
        "feature-ablation": lambda: shared(
            attr.FeatureAblation(network).attribute(
                images, feature_mask=grid(24, 8), target=targets
            ), 9
        ),
        "shapley-value-sampling": lambda: shared(
            attr.ShapleyValueSampling(network).attribute(
                images, feature_mask=mask, n_samples=2, target=targets
            ), 64
        ),
        "kernel-shap": lambda: shared(alone(attr.KernelShap(network), feature_mask=mask, n_samples=20), 64),
        "lime": lambda: shared(
            alone(attr.Lime(network, SkLearnLasso(alpha=1e-6)), feature_mask=mask, n_samples=20), 64
        ),
        "layer-grad-cam": lambda: attr.LayerGradCam(network, layer).attribute(whole, target=targets),
        "guided-grad-cam": lambda: attr.GuidedGradCam(network, layer).attribute(whole, target=targets),
        "layer-gradient-x-activation": lambda: attr.LayerGradientXActivation(network, layer).attribute(
            whole, target=targets
        ),
        "layer-feature-ablation": lambda: shared(
            attr.LayerFeatureAblation(network, layer).attribute(images, layer_mask=cells, target=targets), 1
        ),
        "internal-influence": lambda: attr.InternalInfluence(network, layer).attribute(whole, target=targets),
        "layer-conductance": lambda: attr.LayerConductance(network, layer).attribute(whole, target=targets),
        "layer-integrated-gradients": lambda: attr.LayerIntegratedGradients(network, layer).attribute(
            whole, target=targets
        ),
        "layer-gradient-shap": lambda: alone(
            attr.LayerGradientShap(network, layer), greys, n_samples=3, stdevs=0.1
        ),
        "layer-deep-lift": lambda: attr.LayerDeepLift(network, layer).attribute(whole, target=targets),
        "layer-deep-lift-shap": lambda: attr.LayerDeepLiftShap(network, layer).attribute(
            whole, greys, target=targets
        ),
        "layer-lrp": lambda: attr.LayerLRP(network, network.deep).attribute(whole, target=targets),
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return calls[method]().detach().sum(1)


def grid(size, cells):
    """Which square of `cells` x `cells` each pixel is in."""
    place = torch.arange(size) // (size // cells)
    return (place[:, None] * cells + place)[None, None]


def test_every_method_of_captum_that_explains_an_image_classifier_is_offered():
    left_out = {
        "LayerActivation",  # says nothing of a class
        "FeaturePermutation", "LayerFeaturePermutation",  # what is said of an image depends on the others
        "ShapleyValues",  # n! orders
        "LimeBase", "DataLoaderAttribution", "LLMAttribution", "LLMGradientAttribution",
        "RemoteLLMAttribution",
    }  # fmt: skip
    theirs = {
        name
        for name in attr.__all__
        if hasattr(getattr(attr, name), "attribute") and not name.startswith("Neuron")
    } - left_out
    ours = {name.replace("-", "") for name in METHODS}

    assert {name.lower() for name in theirs} == ours


@pytest.mark.parametrize("kind", [Plain, lambda: Plain(inplace=True)], ids=["plain", "inplace"])
@pytest.mark.parametrize("method", METHODS)
def test_it_says_what_captum_says_by_hand(method, kind):
    network, images = made(kind), images_of()

    told = bound(method, network).explain(images)

    expected = by_hand(method, network, images, told.targets)
    assert torch.equal(told.targets, network(images).argmax(1))
    grid = told.saliency(expected.shape[-2:])
    assert torch.allclose(grid, expected, rtol=1e-5, atol=1e-6 * expected.abs().max())
    assert torch.allclose(told.scores.sum(1), expected.sum((1, 2)), rtol=1e-4, atol=1e-5)
    assert (told.scores[:, 0] >= 0).all() and (told.scores[:, 1] <= 0).all()


@pytest.mark.parametrize("method", sorted({*ONE_PASS} - {"layer-gradient-x-activation"}))
def test_gradients_are_those_of_captum_to_the_bit(method):
    network, images = made(), images_of()

    told = bound(method, network).explain(images, [3, 1, 0])

    expected = by_hand(method, network, images, torch.tensor([3, 1, 0]))
    assert torch.equal(told.maps[:, 0] - told.maps[:, 1], expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_it_finds_the_logits_in(method, form):
    network, images = made(), images_of()
    wrapped = Returning(network, FORMS[form]).eval()

    explainer = bound(method, wrapped)

    told, plain = explainer.explain(images, against=1), bound(method, network).explain(images, against=1)
    assert torch.equal(told.logits, network(images)) and torch.equal(explainer.predict(images), told.logits)
    assert torch.equal(told.contributions, plain.contributions)
    assert explainer.classes == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize("output", NOT_LOGITS)
def test_it_refuses_and_says_what_came_out_for(output):
    form, words = NOT_LOGITS[output]

    with pytest.raises(BindError, match=words):
        bound("saliency", Returning(made(), form))


def test_a_network_that_returns_logits_is_kept_as_it_is():
    network = made()

    assert bound("occlusion", network).network is network


def test_classes_are_counted_off_the_logits_not_off_a_linear_layer():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    assert len(bound("saliency", network).classes) == 5
    with pytest.raises(BindError, match="Expected 5 class names, one a logit; got 2"):
        bound("saliency", network, classes=["a", "b"])


@pytest.mark.parametrize("form", [lambda logits: logits, *FORMS.values()])
def test_a_network_for_one_odd_size_is_decided_by_the_first_images(form):
    network = Returning(nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 6)), form)
    images = images_of(size=20)

    explainer = bound("input-x-gradient", network)

    assert explainer.classes == ()
    assert explainer.explain(images, "class 5").targets.tolist() == [5, 5, 5]
    assert torch.equal(explainer.predict(images), network.inner(images))
    with pytest.raises(BindError, match="Expected 6 class names"):
        bound("saliency", network, classes=["a"]).explain(images)


def test_any_network_keeps_every_promise_whatever_it_returns():
    network = Returning(made(), lambda logits: {"logits": logits})

    for method in METHODS:
        check_explainer(bound(method, network, classes=list("abcd")), images_of(4, 16))


@pytest.mark.parametrize("against", [None, 2])
def test_integrated_gradients_add_up_but_for_the_residual(against):
    network, images = made(), images_of()

    rough = bound("integrated-gradients", network, n_steps=5).explain(images, 0, against=against)
    fine = bound("integrated-gradients", network, n_steps=500).explain(images, 0, against=against)

    wanted = network(images)[:, 0] - (0 if against is None else network(images)[:, against])
    empty = network(torch.zeros(1, 3, 24, 24))[0]
    assert torch.allclose(fine.base, (empty[0] - (0 if against is None else empty[against])).expand(3))
    assert torch.allclose(fine.base + fine.contributions.sum(1) + fine.residual, wanted, atol=1e-5)
    assert fine.claim == "approximate" and fine.unit == "logit"
    assert fine.residual.abs().max() < 1e-2 * wanted.abs().max() < rough.residual.abs().max() * 100


def test_integrated_gradients_of_a_linear_network_leave_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))

    told = bound("integrated-gradients", network, baseline=0.5, n_steps=1).explain(
        images_of(size=8), against=1
    )

    told.check()


@pytest.mark.parametrize("method", sorted({*METHODS} - {"lrp", "layer-lrp"}))
def test_a_contrast_is_that_of_a_network_whose_logit_is_the_margin(method):
    network, images = made(), images_of()
    margin = made()
    with torch.no_grad():
        margin.head.weight[0] -= network.head.weight[2]
        margin.head.bias[0] -= network.head.bias[2]

    told, expected = (
        bound(method, network).explain(images, 0, against=2),
        bound(method, margin).explain(images, 0),
    )

    assert torch.allclose(told.contributions, expected.contributions, rtol=1e-4, atol=1e-5)
    assert torch.allclose(told.totals, expected.totals, atol=1e-6)
    with pytest.raises(ek.InputError, match="against="):
        told.contrast(1)


@pytest.mark.parametrize("method", sorted({*METHODS} - {*COMPLETE}))
def test_no_sum_is_claimed_where_there_is_none(method):
    told = bound(method, made()).explain(images_of())

    assert (told.claim, told.unit, told.residual) == ("none", "gradient", None)
    assert not told.base.any()


@pytest.mark.parametrize("method", ["lrp", "layer-lrp"])
def test_relevance_of_a_margin_is_that_of_the_one_class_less_that_of_the_other(method):
    explainer, images = bound(method, made()), images_of()

    told, one, other = (
        explainer.explain(images, 0, against=2),
        *(explainer.explain(images, c) for c in (0, 2)),
    )

    assert torch.allclose(told.saliency(), one.saliency() - other.saliency(), rtol=1e-4, atol=1e-6)


def test_grad_cam_before_pooling_and_one_linear_layer_is_cam():
    network = ek.explainer("cam", backbone="tiny").build(ek.Task(classes=4)).eval()
    images = images_of(size=32)

    cam = ek.explainer("cam", network=network, classes=list("abcd")).explain(images, 1)
    grad = bound("layer-grad-cam", network, layer="backbone").explain(images, 1)

    assert torch.allclose(grad.saliency(), cam.saliency(), atol=1e-5 * cam.saliency().abs().max())


def test_the_default_layer_is_the_last_with_more_than_one_cell():
    network = nn.Sequential(OrderedDict(
        first=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
        head=nn.Linear(4, 2),
    ))  # fmt: skip
    explainer = bound("layer-grad-cam", network)

    told = explainer.explain(images_of(size=9))

    assert explainer.layer == "last" and told.provenance.settings["layer"] == "last"
    assert told.maps.shape == (3, 2, 5, 5) and hooks_of(network) == 0


def test_a_layer_goes_by_dotted_name_or_by_itself():
    network, images = made(), images_of()

    by_name = bound("layer-grad-cam", network, layer="stem.0").explain(images)
    by_itself = bound("layer-grad-cam", Returning(network, FORMS["a tuple"]), layer=network.stem[0]).explain(
        images
    )

    assert torch.equal(by_name.maps, by_itself.maps)
    assert by_itself.provenance.settings["layer"] == "inner.stem.0"


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("stem.9", UnknownNameError, "Did you mean .*'stem.0'"),
        ("nothing like it", UnknownNameError, "There are: 'stem'"),
        ("head", BindError, r"'head' returns \(1, 4\).*'rectify', 'deep'"),
        (nn.Conv2d(3, 3, 1), BindError, "not in it"),
    ],
)
def test_a_layer_is_refused_in_words(layer, error, words):
    network = made()

    with pytest.raises(error, match=words):
        bound("layer-grad-cam", network, layer=layer)

    assert hooks_of(network) == 0


def test_a_layer_is_refused_at_the_first_images_where_nothing_is_known_before():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 20 * 20, 3))
    explainer = bound("layer-grad-cam", network, layer="1")

    for _ in range(2):
        with pytest.raises(BindError, match=r"'1' returns \(1, 800\).*'0'"):
            explainer.explain(images_of(size=20))


def test_a_network_without_grids_has_no_layer_to_take():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 3))

    with pytest.raises(BindError, match="of 2 none does"):
        bound("layer-grad-cam", network).explain(images_of(size=20))


def test_guided_backprop_warns_once_that_it_reaches_no_relu():
    network, images = made(Functional), images_of()
    explainer = bound("guided-backprop", network)

    with pytest.warns(UnguidedWarning, match="no ReLU module.*all 2 ReLUs are functional.*plain gradients"):
        told = explainer.explain(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer.explain(images, max_batch=1)

    plain = bound("saliency", network, abs=False).explain(images)
    assert torch.equal(told.contributions, plain.contributions)


def test_guided_backprop_warns_of_the_relus_that_it_misses():
    class Half(Plain):
        def forward(self, images):
            return self.head(F.relu(self.deep(self.stem(images))).mean((2, 3)))

    with pytest.warns(UnguidedWarning, match="reaches 1 of 2 ReLUs"):
        bound("guided-backprop", made(Half)).explain(images_of())


@pytest.mark.parametrize("method", METHODS)
def test_no_method_warns_of_a_network_that_it_reaches(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bound(method, made(Plain, inplace=True)).explain(images_of(), max_batch=2)


@pytest.mark.parametrize("method", ONE_PASS)
@pytest.mark.parametrize("asked", [{}, {"targets": 2}, {"against": [0, 1, 2, 3]}])
def test_a_method_of_one_pass_sends_each_image_through_once(method, asked):
    network, images = Plain().eval(), torch.rand(4, 3, 32, 32)
    explainer = ek.explainer(f"captum/{method}", network=network)
    explainer.explain(images)

    with counting(network, images[:1]) as counter:
        told = explainer.explain(images, **asked)

    assert (counter.passes.forward, counter.passes.backward) == (4, 4)
    assert torch.equal(told.logits, explainer.predict(images))
    assert torch.equal(told.targets, torch.full((4,), 2) if "targets" in asked else told.logits.argmax(1))


@pytest.mark.parametrize("method", METHODS)
def test_nothing_stays_behind_after_an_exception(method):
    network = made()
    explainer = bound(method, network)
    explainer.explain(images_of())
    network.train()
    network.forward = lambda images: (
        [][0] if images.requires_grad or len(images) > 3 else Plain.forward(network, images)
    )

    explainer.max_batch = 6
    before = [set(vars(module)) for module in network.modules()]
    with pytest.raises((IndexError, BindError)):
        explainer.explain(images_of())

    assert hooks_of(network) == 0
    assert [set(vars(module)) for module in network.modules()] == before
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", ["setting", "call"])
def test_the_network_never_sees_more_than_max_batch(method, by):
    network, images, seen = made(), images_of(7), []
    explainer = bound(method, network, **({"max_batch": 5} if by == "setting" else {}))
    network.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    whole = bound(method, made()).explain(images)

    told = explainer.explain(images, **({"max_batch": 5} if by == "call" else {}))

    assert 3 <= max(seen) <= AT_LEAST.get(method, 5)
    assert torch.allclose(told.contributions, whole.contributions, rtol=1e-4, atol=1e-5)
    assert told.provenance.settings["max_batch"] == 5 and explainer.max_batch == (
        5 if by == "setting" else 256
    )


@pytest.mark.parametrize("method", METHODS)
def test_float64_networks_are_explained_in_float64(method):
    told = bound(method, made().double()).explain(images_of())

    assert told.scores.dtype == told.maps.dtype == told.base.dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_inference_mode_changes_nothing(method):
    network, images = made(), images_of()
    expected = bound(method, network).explain(images)

    with torch.inference_mode():
        told = bound(method, network).explain(images + 0)

    assert torch.equal(told.contributions, expected.contributions)


def test_the_gradients_of_images_and_network_are_not_moved():
    network, images = made(), images_of().requires_grad_()
    network(images).sum().backward()
    before = [images.grad.clone(), *(parameter.grad.clone() for parameter in network.parameters())]

    for method in METHODS:
        bound(method, network).explain(images)

    after = [images.grad, *(parameter.grad for parameter in network.parameters())]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert images.requires_grad and not any(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("baseline", [0.5, (0.1, 0.2, 0.3), torch.rand(3, 24, 24), torch.tensor(0.5)])
@pytest.mark.parametrize(
    "method",
    [
        *("integrated-gradients", "occlusion", "deep-lift", "feature-ablation", "shapley-value-sampling"),
        *("kernel-shap", "lime", "layer-conductance", "layer-integrated-gradients", "layer-deep-lift"),
        "internal-influence",
    ],
)
def test_the_baseline_is_a_number_a_colour_or_an_image(method, baseline, tmp_path):
    network, images = made(), images_of()
    empty = torch.as_tensor(baseline)
    empty = (empty[:, None, None] if empty.ndim == 1 else empty).expand(3, 24, 24)[None]

    told = bound(method, network, baseline=baseline).explain(images)

    same = bound(method, network, baseline=empty).explain(images)
    assert torch.allclose(told.contributions, same.contributions)
    assert torch.allclose(told.base, network(empty)[0][told.targets] * (method in COMPLETE))
    assert len(ek.Explanations.load(told.save(tmp_path / "told.safetensors"))) == 3


def test_occlusion_covers_an_eighth_of_the_image_by_half_steps():
    assert steps((64, 40), None, None) == ((8, 5), (4, 2))
    assert steps((4, 4), None, None) == ((1, 1), (1, 1))
    assert steps((64, 64), 16, None) == ((16, 16), (8, 8))
    assert steps((64, 64), (6, 8), (3, 2)) == ((6, 8), (3, 2))


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("occlusion", {"window": 30}, "window within the image"),
        ("occlusion", {"window": 4, "stride": 5}, "stride within the window"),
        ("integrated-gradients", {"baseline": torch.rand(2, 3, 24, 24)}, "same for all images"),
        ("integrated-gradients", {"method": "simpson"}, "gausslegendre"),
        ("integrated-gradients", {"n_steps": 0}, "n_steps of at least 1"),
        ("saliency", {"max_batch": 0}, "max_batch of at least 1"),
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
        bound(method, made(), **settings).explain(images_of())


def test_settings_change_what_is_said():
    network, images = made(), images_of()

    signed = bound("saliency", network, abs=False).explain(images)
    cut = bound("layer-grad-cam", network, relu_attributions=True).explain(images)

    assert (signed.scores[:, 1] < 0).all()
    assert not cut.scores[:, 1].any()


def test_the_card_cites_and_the_provenance_names_captum():
    for method in METHODS:
        explainer = bound(method, made())
        told = explainer.explain(images_of(1))

        assert "20" in explainer.card.citation and explainer.card.speaks == "pixels"
        assert told.provenance.explainer == f"captum/{method}"
        assert told.provenance.versions["captum"]
        assert told.units.names == ("pixels for", "pixels against")


@pytest.mark.parametrize("method", METHODS)
def test_it_is_drawn_and_told(method, tmp_path):
    told = bound(method, made(), classes=["crow", "<b>tit</b>", "wren", "robin"]).explain(
        images_of(2), against=1
    )

    page = ek.report(told, tmp_path / "page.html").read_text(encoding="utf-8")

    assert told[0].figure().axes and "pixels" in told[0].sentence()
    assert f"captum/{method}" in page and "<b>tit</b>" not in page


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("against", [None, 2])
def test_what_claims_a_sum_shows_what_it_leaves_out(method, against):
    network, images = made(), images_of()

    told = bound(method, network).explain(images, 0, against=against)

    logits = network(images).detach()
    wanted = logits[:, 0] - (0 if against is None else logits[:, against])
    assert told.claim == "approximate" and told.unit == "logit"
    assert torch.allclose(told.base + told.contributions.sum(1) + told.residual, wanted, atol=1e-5)
    if "gradient-shap" not in method and "lrp" not in method:  # by chance; biases keep their share
        assert told.residual.abs().max() < 0.02 * (wanted - told.base).abs().max()


@pytest.mark.parametrize("method", ["deep-lift", "deep-lift-shap", "layer-deep-lift", "layer-deep-lift-shap"])
def test_deep_lift_refuses_a_module_that_is_run_twice(method):
    class Twice(Plain):
        def forward(self, images):
            return self.head(self.rectify(self.deep(self.rectify(self.stem(images)))).mean((2, 3)))

    with pytest.raises(
        BindError, match=r"every nonlinear module to be run once a pass; Twice runs 'rectify'"
    ):
        bound(method, made(Twice)).explain(images_of())


@pytest.mark.parametrize("method", ["deep-lift", "deep-lift-shap", "layer-deep-lift"])
def test_the_residual_shows_the_functions_that_deep_lift_does_not_see(method):
    layer = {"layer": "stem"} if method == "layer-deep-lift" else {}
    seen = bound(method, made(Plain), **layer).explain(images_of(), 0)
    unseen = bound(method, made(Functional), **({"layer": "stem.1"} if layer else {})).explain(images_of(), 0)

    assert torch.allclose(seen.logits, unseen.logits)
    assert seen.residual.abs().max() < 1e-5 < 1e-3 < unseen.residual.abs().max()


class Normed(Plain):
    """With a layer that Captum has no rule for."""

    def __init__(self):
        super().__init__()
        self.normed = nn.GroupNorm(2, 12)

    def forward(self, images):
        return self.head(self.normed(self.rectify(self.deep(self.stem(images)))).mean((2, 3)))


@pytest.mark.parametrize("method", ["lrp", "layer-lrp"])
def test_relevance_refuses_a_layer_without_a_rule(method):
    with pytest.raises(BindError, match=r"Captum has none for GroupNorm \('normed'\)"):
        bound(method, made(Normed)).explain(images_of())


@pytest.mark.parametrize("method", ["lrp", "layer-lrp"])
def test_relevance_refuses_a_layer_that_is_run_twice(method):
    class Twice(Plain):
        def __init__(self):
            super().__init__()
            self.deep = nn.Conv2d(8, 8, 3, 1, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, images):
            return self.head(self.rectify(self.deep(self.deep(self.stem(images)))).mean((2, 3)))

    with pytest.raises(BindError, match="runs 'deep' more often"):
        bound(method, made(Twice)).explain(images_of())


def test_relevance_goes_through_modules_that_only_hand_on():
    class Handing(Plain):
        def __init__(self):
            super().__init__()
            self.same, self.flat = nn.Identity(), nn.Flatten()

        def forward(self, images):
            features = self.same(self.rectify(self.deep(self.stem(images))))
            return self.head(self.flat(features.mean((2, 3))))

    plain, handing = made(Plain), made(Handing)
    handing.load_state_dict(plain.state_dict())

    told, expected = (bound("lrp", network).explain(images_of(), 0) for network in (handing, plain))

    assert torch.allclose(told.saliency(), expected.saliency(), rtol=1e-4, atol=1e-6)
    assert not any(hasattr(module, "rule") for module in handing.modules())


def test_relevance_at_a_layer_wants_one_that_keeps_it():
    with pytest.raises(BindError, match=r"'rectify' is a ReLU\. The last that will do is 'deep'"):
        bound("layer-lrp", made(), layer="rectify").explain(images_of())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_captum_stays_on_the_network_and_no_chance_is_used_up(method):
    network, images = made(), images_of()
    explainer = bound(method, network)
    before = [set(vars(module)) for module in network.modules()]
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())

    explainer.explain(images)

    assert [set(vars(module)) for module in network.modules()] == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]


@pytest.mark.parametrize("method", SMALL)
def test_chance_follows_the_seed_alone(method):
    network, images = made(), images_of()

    first, again = (bound(method, network, seed=3).explain(images) for _ in range(2))
    other = bound(method, network, seed=4).explain(images)

    assert torch.equal(first.contributions, again.contributions)
    assert not torch.allclose(first.saliency(), other.saliency(), rtol=1e-3)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"noise-tunnel"}))
def test_any_method_goes_through_noise(method):
    network, images = made(), images_of()
    options = SMALL.get(method, {})

    told = bound("noise-tunnel", network, method=method, options=options, n_samples=4, stdev=0.1).explain(
        images
    )
    silent = bound("noise-tunnel", network, method=method, options=options, stdev=0.0).explain(images)

    plain = bound(method, network).explain(images)
    assert torch.allclose(silent.saliency(), plain.saliency(), rtol=1e-3, atol=1e-5)
    if method not in ("deconvolution", "internal-influence"):  # here they do not depend on the image
        assert not torch.allclose(told.saliency(), plain.saliency(), rtol=1e-3)
    assert told.claim == "none"


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_says_what_captum_says_by_hand(kind):
    network, image = made(), images_of(1)
    torch.manual_seed(5)
    expected = attr.NoiseTunnel(attr.InputXGradient(network)).attribute(
        image.clone().requires_grad_(), nt_type=kind, nt_samples=6, stdevs=0.2, target=1
    )

    told = bound(
        "noise-tunnel", network, method="input-x-gradient", kind=kind, n_samples=6, stdev=0.2, seed=5
    ).explain(image, 1, max_batch=4)

    assert torch.allclose(told.saliency(), expected.detach().sum(1), rtol=1e-4, atol=1e-7)


def test_patches_are_a_grid_superpixels_or_the_users_own():
    images = torch.zeros(2, 3, 20, 30)
    images[0, :, :10] = 1
    images[1, :, :, :10] = 1
    mine = torch.full((20, 30), 7)
    mine[5:] = 9

    squares, own = patch_mask(images, (2, 3)), patch_mask(images, mine)
    following = patch_mask(images, "superpixels")

    assert squares.shape == (1, 1, 20, 30) and squares.unique().tolist() == list(range(6))
    assert squares[0, 0, 9, 9] == 0 and squares[0, 0, 10, 10] == 4 and squares[0, 0, 19, 29] == 5
    assert own.unique().tolist() == [0, 1] and own[0, 0, 4, 0] == 0 and own[0, 0, 5, 0] == 1
    assert following.shape == (2, 1, 20, 30)
    for image, mask in zip(images, following, strict=True):
        labels = mask.unique()
        assert labels.tolist() == list(range(len(labels))) and len(labels) > 4
        assert all(image[0][mask[0] == label].unique().numel() == 1 for label in labels)


def test_a_patch_shares_what_it_adds_among_its_pixels():
    mask = torch.tensor([[0, 0, 0], [0, 1, 1]])[None, None]
    values = torch.tensor([2.0, -3.0])[mask].expand(1, 3, 2, 3)

    shared = spread(values, mask).sum(1)

    assert torch.allclose(shared, torch.tensor([[0.5, 0.5, 0.5], [0.5, -1.5, -1.5]])[None])


@pytest.mark.parametrize("method", ["feature-ablation", "shapley-value-sampling", "kernel-shap", "lime"])
def test_superpixels_may_differ_in_number_from_image_to_image(method):
    images = images_of(3)
    images[1] = 0.5

    told = bound(method, made(), **{**SMALL.get(method, {}), "patches": "superpixels"}).explain(images)

    alone = bound(method, made(), **{**SMALL.get(method, {}), "patches": "superpixels"}).explain(images[1:2])
    assert torch.allclose(told[[1]].saliency(), alone.saliency(), rtol=1e-3, atol=1e-5)


def test_optional_libraries_are_named_where_they_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)

    with pytest.raises(ek.ExplainKitError, match=r"explainkit-sdk\[surrogates\]"):
        bound("lime", made()).explain(images_of())
    with pytest.raises(ek.ExplainKitError, match=r"explainkit-sdk\[superpixels\]"):
        bound("feature-ablation", made(), patches="superpixels").explain(images_of())


def test_a_network_without_numbers_is_refused_before_anything_is_fitted():
    network = made()
    network.head.bias.data[0] = float("nan")

    with pytest.raises(ek.InputError, match="Expected finite logits"):
        bound("kernel-shap", network).explain(images_of())
