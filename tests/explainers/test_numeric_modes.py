"""Half precision, autocast and torch's default dtype, for architectures that explain themselves."""

import copy

import pytest
import torch
from torch import nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError
from explainkit.networks.default_dtype import float32_by_default
from explainkit.testing import architectures, fitted_example, tiny_dataset, tiny_images

ARCHITECTURES = architectures()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_in_half_precision_is_refused_in_words(name, dtype):
    model = copy.deepcopy(fitted_example(name))
    model.network.to(dtype)
    calls = [
        lambda: model.explain(tiny_images()),
        lambda: model.predict(tiny_images()),
        lambda: model.evaluate(tiny_dataset(), ["test"]),
        lambda: model.counterfactual(tiny_images(), distractors=tiny_dataset()),
        lambda: model.explain_class(tiny_dataset().batches("test", 8)),
    ]

    for call in calls:
        with pytest.raises(UnsupportedNetworkError, match=rf"got {dtype}.*network\.float\(\)"):
            call()


def test_cam_refuses_to_be_made_of_a_half_network():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).half()

    with pytest.raises(UnsupportedNetworkError, match=r"got torch\.float16"):
        ek.explainer("cam", network=network, size=(16, 16))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_default_dtype_changes_nothing(name, double_by_default):
    model, images = fitted_example(name), tiny_images()
    expected = model.explain(images)

    with double_by_default():
        explanations = model.explain(images)
        saliency, logits = explanations.saliency(), model.predict(images)

    assert torch.equal(explanations.contributions, expected.contributions)
    assert torch.equal(saliency, expected.saliency()) and torch.equal(logits, expected.logits)


def test_the_default_dtype_changes_nothing_for_cam_of_a_network(double_by_default):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "size": (32, 32)}
    expected = ek.explainer("cam", network=network, **options).explain(tiny_images())

    with double_by_default():
        explanations = ek.explainer("cam", network=network, **options).explain(tiny_images())

    assert torch.equal(explanations.contributions, expected.contributions)


def test_tensors_without_a_dtype_are_float32_and_others_stay(double_by_default):
    with double_by_default(), float32_by_default():
        torch.manual_seed(0)
        drawn = torch.rand(3)
        by_default = [torch.zeros(2), torch.tensor([0.5]), torch.full((1,), 0.1), torch.arange(3) / 2, drawn]
        doubles = [
            torch.zeros(2, dtype=torch.float64),
            torch.tensor(1).double(),
            torch.tensor(1).to(torch.float64),
        ]
        doubles += [doubles[0] + 1, torch.as_tensor(torch.ones(1).double().numpy())]

    assert {values.dtype for values in by_default} == {torch.float32}
    assert {values.dtype for values in doubles} == {torch.float64}
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))
