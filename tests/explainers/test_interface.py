"""What every explainer does: inputs, explanations, the network left as it was, training, provenance."""

import numpy as np
import pytest
import torch
from attrs import define
from PIL import Image
from torch import nn

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.errors import NotFittedError, UnknownNameError, UnsupportedNetworkError
from explainkit.explainers.state import undisturbed
from explainkit_cam.explainer import CAM

CLASSES = ("blue", "red")


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dataset(count=24, classes=CLASSES):
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    images[labels == 1, 0] += 180
    split = ArraySplit(images=images.byte(), labels=labels)
    return ek.ImageDataset(
        name="colors",
        classes=classes,
        size=(16, 16),
        splits={"train": split, "validation": split, "test": split},
    )


def cam(seed=0):
    return CAM(backbone="tiny", epochs=1, batch_size=8).fit(
        dataset(), seed=seed, device="cpu", progress=False
    )


@pytest.fixture(scope="module")
def fitted():
    return cam()


def state(explainer):
    return {name: value.clone() for name, value in explainer.network.state_dict().items()}


# inputs

NAN = drawn(2, 3, 16, 16)
NAN[1, 2, 3, 4] = float("nan")
REFUSED = {
    "NaN": (NAN, r"finite images; got nan at \(1, 2, 3, 4\)"),
    "infinite": (drawn(1, 3, 16, 16) / 0, "finite images; got inf"),
    "one image": (drawn(3, 16, 16), r"\(3, 16, 16\).*image\[None\]"),
    "a plane": (drawn(16, 16), r"float images of \(N, 3, H, W\); got torch.float32 \(16, 16\)"),
    "a video": (drawn(1, 2, 3, 16, 16), r"got torch.float32 \(1, 2, 3, 16, 16\)"),
    "bytes": (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), r"torch.uint8.*images.float\(\) / 255"),
    "gray": (drawn(1, 1, 16, 16), r"images.expand\(-1, 3, -1, -1\)"),
    "channels last": (drawn(1, 16, 16, 3), r"images.permute\(0, 3, 1, 2\)"),
    "no images": (drawn(0, 3, 16, 16), r"at least one image of at least one pixel; got \(0, 3, 16, 16\)"),
    "no pixels": (drawn(1, 3, 0, 16), "at least one pixel"),
    "an empty list": ([], "at least one image; got an empty list"),
    "not divided": (drawn(1, 3, 16, 16) * 255, r"images in \[0, 1\]; got .*divide by 255"),
    "normalized": (drawn(1, 3, 16, 16) * 4 - 2, "do not normalize them, the network does"),
    "a number": (3, "got int"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_images_are_refused_in_words(fitted, what):
    images, message = REFUSED[what]

    with pytest.raises(ek.InputError, match=f"(?s){message}"):
        fitted.explain(images)


@pytest.mark.parametrize("what", REFUSED)
def test_predictions_refuse_as_explanations_do(fitted, what):
    images, message = REFUSED[what]

    with pytest.raises(ek.InputError, match=f"(?s){message}"):
        fitted.predict(images)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ("rad", UnknownNameError, "Did you mean 'red'"),
        (2, ek.InputError, "0 … 1; got 2"),
        (-1, ek.InputError, "0 … 1; got -1"),
        ([0], ek.InputError, r"\(2,\); got 1"),
        (torch.tensor([0.0, 1.0]), ek.InputError, "integers; got torch.float32"),
        ([0, 1.5], ek.InputError, "class name or index; got 1.5"),
    ],
)
@pytest.mark.parametrize("where", ["targets", "foils"])
def test_targets_are_refused_in_words(fitted, targets, error, message, where):
    with pytest.raises(error, match=message):
        fitted.explain(drawn(2, 3, 16, 16), **{where: targets})


@pytest.mark.parametrize(
    "targets",
    ["red", 1, ["red", 1], torch.tensor([1, 1]), np.array([1, 1]), [np.int64(1), torch.tensor(1)]],
    ids=range(6),
)
def test_targets_go_by_name_or_index(fitted, targets):
    assert fitted.explain(drawn(2, 3, 16, 16), targets).targets.tolist() == [1, 1]


def test_targets_are_the_predictions_by_default(fitted):
    explanations = fitted.explain(drawn(4, 3, 16, 16))

    assert torch.equal(explanations.targets, fitted.predict(drawn(4, 3, 16, 16)).argmax(1))


def test_files_pictures_arrays_and_tensors_are_explained_alike(fitted, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    made = Image.fromarray(array)
    made.save(tmp_path / "a.png")

    one = fitted.explain(tmp_path / "a.png", "red")
    several = fitted.explain([str(tmp_path / "a.png"), made, array], ["red", 1, 1])
    alone = fitted.explain(made, "red"), fitted.explain(array, "red")

    assert one.images.shape == (1, 3, 16, 16)
    for explanations in (*alone, several[:1], several[1:2], several[2:]):
        torch.testing.assert_close(explanations.contributions, one.contributions)


def test_a_batch_is_its_images(fitted):
    batch = next(iter(dataset().batches("test", 4)))

    torch.testing.assert_close(fitted.explain(batch).logits, fitted.explain(batch.images).logits)


@pytest.mark.parametrize("how", ["double", "strided", "channels_last", "expanded", "with gradient"])
def test_images_come_in_any_layout_and_precision(fitted, how):
    images = drawn(4, 3, 16, 16)
    variant = {
        "double": lambda: images.double(),
        "strided": lambda: images.transpose(2, 3).contiguous().transpose(2, 3),
        "channels_last": lambda: images.to(memory_format=torch.channels_last),
        "expanded": lambda: images[:1].expand(4, -1, -1, -1),
        "with gradient": lambda: images.clone().requires_grad_(),
    }[how]()

    explanations = fitted.explain(variant).check_additivity()

    expected = fitted.explain(variant.detach().clone().contiguous().float())
    torch.testing.assert_close(explanations.contributions, expected.contributions, atol=1e-5, rtol=1e-4)
    assert not explanations.contributions.requires_grad and not explanations.images.requires_grad


# explaining


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 99])
def test_any_batch_size_gives_the_same_explanations(fitted, batch_size):
    images = drawn(5, 3, 16, 16)

    explanations, whole = fitted.explain(images, batch_size=batch_size), fitted.explain(images)

    for name in ("logits", "scores", "weights", "maps", "contributions", "images"):
        torch.testing.assert_close(getattr(explanations, name), getattr(whole, name), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(explanations.contrast("red").base, whole.contrast("red").base)
    torch.testing.assert_close(
        fitted.predict(images, batch_size=batch_size), whole.logits, atol=1e-6, rtol=1e-4
    )


def test_a_batch_size_of_zero_is_refused(fitted):
    with pytest.raises(ek.InputError, match="batch_size of at least 1; got 0"):
        fitted.explain(drawn(1, 3, 16, 16), batch_size=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_explanations_made_in_inference_mode_are_usable_outside(fitted, mode):
    with mode():
        explanations = fitted.explain(drawn(2, 3, 16, 16))

    assert not any(
        getattr(explanations, name).is_inference()
        for name in ("logits", "base", "scores", "weights", "maps", "images")
    )
    (explanations.weights.clone().requires_grad_() * explanations.scores).sum().backward()


def test_images_made_in_inference_mode_are_usable(fitted):
    with torch.inference_mode():
        images = drawn(2, 3, 16, 16) * 1

    assert not fitted.explain(images).images.is_inference()


def test_sums_hold_under_autocast(fitted):
    with torch.autocast("cpu", torch.bfloat16):
        explanations = fitted.explain(drawn(4, 3, 16, 16))

    explanations.check_additivity()
    assert explanations.logits.dtype is torch.float32


def test_the_network_is_left_as_it_was():
    explainer = cam()
    before = state(explainer)
    explainer.network.zero_grad()
    explainer.network.train()
    explainer.network.head.eval()
    explainer.network.head.weight.grad = torch.ones_like(explainer.network.head.weight)
    torch.manual_seed(3)
    rng_state = torch.get_rng_state()

    explainer.explain(drawn(2, 3, 16, 16))
    with pytest.raises(ek.InputError):
        explainer.explain(NAN)
    explainer.evaluate(dataset())

    assert explainer.network.training and not explainer.network.head.training
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert all(torch.equal(value, before[name]) for name, value in explainer.network.state_dict().items())
    assert (explainer.network.head.weight.grad == 1).all()
    assert explainer.network.backbone.stem[0].weight.grad is None


@define(eq=False, kw_only=True)
class Careless(ek.PostHocExplainer):
    """Leaves gradients on the network, and draws random numbers."""

    card = ek.Card(title="Careless", citation="made for tests", additivity="none", unit_kind="pixels")

    def explain_batch(self, images, targets, foils):
        torch.rand(1)
        self.network(images).sum().backward()
        raise RuntimeError("on the way")


def test_a_method_that_fails_on_the_way_leaves_no_gradients():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).train()
    network[1].weight.grad = torch.ones_like(network[1].weight)
    rng_state = torch.get_rng_state()

    with torch.inference_mode(), pytest.raises(RuntimeError, match="on the way"):
        Careless.from_network(network).explain(drawn(1, 3, 4, 4))

    assert (network[1].weight.grad == 1).all() and network[1].bias.grad is None
    assert network.training and network[1].training and torch.equal(torch.get_rng_state(), rng_state)


def test_undisturbed_is_in_eval_mode_with_gradients():
    network = nn.Linear(2, 2)

    with torch.inference_mode(), undisturbed(network) as twin:
        assert not twin.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        twin(torch.zeros(1, 2)).sum().backward()

    assert network.training and network.weight.grad is None


# learning


def test_the_same_seed_learns_the_same_and_leaves_random_state_alone():
    torch.manual_seed(1)
    rng_state = torch.get_rng_state()
    one = cam(seed=5)
    assert torch.equal(torch.get_rng_state(), rng_state)
    torch.rand(9)
    two, other = cam(seed=5), cam(seed=6)

    assert all(torch.equal(value, state(two)[name]) for name, value in state(one).items())
    assert not torch.equal(one.network.head.weight, other.network.head.weight)
    assert one.explain(drawn(1, 3, 16, 16)).provenance.seed == 5


def test_fit_returns_itself_with_classes_size_and_history(fitted):
    assert fitted.classes == CLASSES and fitted.size == (16, 16) and len(fitted.history) == 1


def test_evaluation_returns_accuracy_and_loss_of_each_split(fitted):
    results = fitted.evaluate(dataset())

    assert list(results) == ["train", "validation", "test"]
    logits = fitted.predict(dataset().test.batch(torch.arange(24)))
    labels = dataset().test.labels
    assert results["test"]["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert results["test"]["loss"] == pytest.approx(
        nn.functional.cross_entropy(logits, labels).item(), rel=1e-4
    )


def test_data_of_other_classes_is_refused(fitted):
    with pytest.raises(ek.InputError, match=r"2 classes .*blue, red.*colors has 2 \(red, blue"):
        fitted.evaluate(dataset(classes=("red", "blue")))


@pytest.mark.parametrize("call", ["explain", "predict", "network", "save", "evaluate"])
def test_before_fit_every_call_asks_for_it(call, tmp_path):
    explainer = CAM()

    with pytest.raises(NotFittedError, match=r"call fit\(dataset\)"):
        {
            "explain": lambda: explainer.explain(drawn(1, 3, 16, 16)),
            "predict": lambda: explainer.predict(drawn(1, 3, 16, 16)),
            "network": lambda: explainer.network,
            "save": lambda: ek.save(explainer, tmp_path / "model"),
            "evaluate": lambda: explainer.evaluate(dataset()),
        }[call]()


def test_data_without_images_cannot_be_learned():
    with pytest.raises(ek.InputError, match="training images; colors has none"):
        CAM().fit(dataset(count=0))


def test_a_network_of_another_kind_is_refused_by_name():
    with pytest.raises(UnsupportedNetworkError, match=r"decompose\(images\) for CAM; got Identity"):
        super(CAM, CAM()).adopt_network(nn.Identity(), ["a"])


def test_an_explainer_of_a_network_that_is_fitted_anew_is_not_bound():
    torch.manual_seed(0)
    explainer = ek.explainer("cam", network=cam().network, backbone="tiny", epochs=1)

    explainer.fit(dataset(), progress=False)

    assert not explainer.bound


def test_provenance_names_explainer_device_settings_and_versions(fitted):
    provenance = fitted.explain(drawn(1, 3, 16, 16)).provenance

    assert (
        provenance.explainer == "cam"
        and provenance.device == "cpu"
        and provenance.dtype == "float32"
        and provenance.seed == 0
    )
    assert provenance.settings["epochs"] == 1 and {"explainkit", "torch"} <= set(provenance.versions)
    assert len(provenance.model_digest) == 64
    assert provenance.model_digest != cam(seed=1).explain(drawn(1, 3, 16, 16)).provenance.model_digest
