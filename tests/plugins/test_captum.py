"""Captum's methods: what Captum says by hand, on anybody's network, which is left as it was."""

import warnings
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.errors import BindError, UnknownNameError
from explainkit.metrics.cost import counting
from explainkit.testing import check_explainer
from explainkit_captum.guided_backprop import UnguidedWarning
from explainkit_captum.occlusion import steps

METHODS = [
    "saliency",
    "input-x-gradient",
    "integrated-gradients",
    "layer-grad-cam",
    "occlusion",
    "guided-backprop",
]


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
    return ek.explainer(f"captum/{name}", network=network, **settings)


def images_of(count=3, size=24, seed=1):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def hooks_of(network):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in kinds)


def by_hand(method, network, images, targets):
    """Captum, called as its documentation says; channels summed."""
    images = images.clone().requires_grad_()
    calls = {
        "saliency": lambda: attr.Saliency(network).attribute(images, target=targets),
        "input-x-gradient": lambda: attr.InputXGradient(network).attribute(images, target=targets),
        "integrated-gradients": lambda: attr.IntegratedGradients(network).attribute(images, target=targets),
        "layer-grad-cam": lambda: attr.LayerGradCam(network, network.rectify).attribute(
            images, target=targets
        ),
        "occlusion": lambda: attr.Occlusion(network).attribute(
            images, sliding_window_shapes=(3, 3, 3), strides=(3, 1, 1), target=targets
        ),
        "guided-backprop": lambda: attr.GuidedBackprop(network).attribute(images, target=targets),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return calls[method]().detach().sum(1)


def test_explainkit_explainers_has_six_methods_of_captum():
    from explainkit import registry

    assert {f"captum/{method}" for method in METHODS} <= registry.offers("explainers").keys()


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


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient", "layer-grad-cam", "guided-backprop"])
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


@pytest.mark.parametrize("method", METHODS)
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


@pytest.mark.parametrize("method", sorted({*METHODS} - {"integrated-gradients"}))
def test_no_sum_is_claimed_where_there_is_none(method):
    told = bound(method, made()).explain(images_of())

    assert (told.claim, told.unit, told.residual) == ("none", "gradient", None)
    assert not told.base.any()


def test_grad_cam_before_pooling_and_one_linear_layer_is_cam():
    network = ek.explainer("cam", backbone="tiny").build(4).eval()
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


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient", "layer-grad-cam", "guided-backprop"])
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

    if method in ("integrated-gradients", "occlusion"):
        explainer.max_batch = 6
    with pytest.raises(IndexError):
        explainer.explain(images_of())

    assert hooks_of(network) == 0
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

    assert max(seen) == 5
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
@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion"])
def test_the_baseline_is_a_number_a_colour_or_an_image(method, baseline, tmp_path):
    network, images = made(), images_of()
    empty = torch.as_tensor(baseline)
    empty = (empty[:, None, None] if empty.ndim == 1 else empty).expand(3, 24, 24)[None]

    told = bound(method, network, baseline=baseline).explain(images)

    same = bound(method, network, baseline=empty).explain(images)
    assert torch.allclose(told.contributions, same.contributions)
    assert torch.allclose(told.base, network(empty)[0][told.targets] * (method == "integrated-gradients"))
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

        assert "arXiv:" in explainer.card.citation and explainer.card.speaks == "pixels"
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
