"""Explaining from several threads at once gives what it gives in turn, and leaves networks as they were."""

import copy
import pickle
import random
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import explainkit as ek
from explainkit.explainers.state import in_place, undisturbed
from explainkit.networks.random_state import kept_random_state
from explainkit.networks.shadows import shadow

NAMES = {
    "cam": {"size": (16, 16)},
    "captum/saliency": {},
    "captum/guided-backprop": {},
    "captum/deep-lift": {},
    "captum/lrp": {},
    "captum/layer-grad-cam": {},
    "captum/gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "captum/kernel-shap": {"n_samples": 16, "patches": 2},
    "captum/lime": {"n_samples": 16, "patches": 2, "alpha": 1e-6},
    "captum/noise-tunnel": {"n_samples": 3, "method": "deconvolution"},
}
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def make_network(seed=0, *, training=False):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3),
        )  # fmt: skip
        network(torch.rand(8, 3, 16, 16)).sum().backward()
    return network.train(training)


def make_explainers(network):
    return [ek.explainer(name, network=network, **options) for name, options in NAMES.items()]


def state(*networks):
    """Modes, tensors, gradients, hooks and attributes, and the random states of the process."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [module for network in networks for module in network.modules()]
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return [
        [module.training for module in modules],
        [sorted(vars(module)) for module in modules],
        [len(getattr(module, kind)) for module in modules for kind in kinds],
        [value.tolist() for network in networks for value in network.state_dict().values()],
        [parameter.grad.tolist() for parameter in parameters],
        [parameter.requires_grad for parameter in parameters],
        list(warnings.filters),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
    ]


def in_threads(calls, count=8, rounds=2):
    """What every call of every thread returned or raised, as (index of the call, result)."""
    results = []

    def work(thread):
        for step in range(rounds * len(calls)):
            index = (step * 3 + thread) % len(calls)
            try:
                results.append((index, calls[index]()))
            except Exception as error:
                results.append((index, error))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture(autouse=True)
def _one_kernel_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that sums have one order
    yield
    torch.set_num_threads(threads)


def assert_equal_to_sequential(networks):
    explainers = [explainer for network in networks for explainer in make_explainers(network)]
    calls = [lambda explainer=explainer: explainer.explain(IMAGES).saliency() for explainer in explainers]
    expected, before = [call() for call in calls], state(*networks)

    results = in_threads(calls)

    assert len(results) == 8 * 2 * len(calls)
    wrong = [
        (type(explainers[index]).__name__, result if isinstance(result, Exception) else "differs")
        for index, result in results
        if isinstance(result, Exception) or not torch.equal(result, expected[index])
    ]
    assert not wrong
    assert state(*networks) == before


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_threads_share_one_network(training):
    assert_equal_to_sequential([make_network(training=training)])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.slow  # which `make soak` does too
def test_threads_use_two_networks():
    assert_equal_to_sequential([make_network(0), make_network(1, training=True)])


class Locked(nn.Sequential):
    """A network that cannot be copied."""

    def __init__(self, *modules):
        super().__init__(*modules)
        self.lock = threading.Lock()


def test_a_network_that_cannot_be_copied_is_explained_in_turns():
    network = Locked(*make_network(training=True)).train()
    assert shadow(network) is None

    assert_equal_to_sequential([network])


class Refusing(nn.Module):
    """A network that raises for images of another size, after all of its layers."""

    def __init__(self, network):
        super().__init__()
        self.inner = network

    def forward(self, images):
        logits = self.inner(images)
        if images.shape[-1] == 16:
            return logits
        raise LookupError("another size")


def test_an_error_in_one_thread_does_not_show_in_others():
    network = make_network(training=True)
    cam = ek.explainer("cam", network=network, size=(16, 16))
    guided = ek.explainer("captum/guided-backprop", network=Refusing(network).train(), size=(16, 16))
    expected, before = [guided.explain(IMAGES).maps, cam.explain(IMAGES).maps], state(network)

    def fail():
        with pytest.raises((LookupError, ek.ExplainKitError)):
            guided.explain(torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)))

    results = in_threads([lambda: guided.explain(IMAGES).maps, lambda: cam.explain(IMAGES).maps, fail])

    assert all(torch.equal(result, expected[index]) for index, result in results if index < 2)
    assert not any(isinstance(result, Exception) for _, result in results)
    assert state(network) == before


def test_predictions_and_evaluation_leave_a_network_in_training_as_it_is():
    network = make_network(training=True)
    saliency, cam = make_explainers(network)[1], make_explainers(network)[0]
    before = state(network)

    results = in_threads([lambda: saliency.predict(IMAGES), lambda: cam.predict(IMAGES)])

    twin = copy.deepcopy(network).eval()
    assert all(torch.equal(result, twin(IMAGES).detach()) for _, result in results)
    assert state(network) == before


class Drawing(nn.Module):
    """A network that draws random numbers in eval mode."""

    def __init__(self):
        super().__init__()
        self.inner = make_network()

    def forward(self, images):
        return self.inner(images) + 0 * torch.rand(1) * np.random.rand() * random.random()


@pytest.mark.parametrize("name", ["captum/saliency", "captum/occlusion", "captum/guided-backprop"])
def test_random_numbers_that_a_network_draws_are_not_the_callers(name):
    network = Drawing()
    before = state(network)

    explainer = ek.explainer(name, network=network)
    results = in_threads([lambda: explainer.explain(IMAGES).maps, lambda: explainer.predict(IMAGES)])

    assert not any(isinstance(result, Exception) for _, result in results)
    assert state(network) == before


class Remembering(nn.Module):
    """A network that keeps what it saw in an attribute, and counts in a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = make_network()
        self.features = None
        self.register_buffer("count", torch.tensor(0))

    def forward(self, images):
        self.count += 1
        self.features = self.inner[:5](images)
        return self.inner[5:](self.features)


@pytest.mark.parametrize("name", ["captum/saliency", "captum/layer-grad-cam", "captum/feature-ablation"])
def test_what_a_network_keeps_of_a_pass_is_not_mixed_up(name):
    network = Remembering()
    explainer = ek.explainer(name, network=network, size=(16, 16))
    batches = [IMAGES, IMAGES.flip(3), IMAGES.flip(2)]
    expected = [explainer.explain(images).maps for images in batches]

    results = in_threads(
        [lambda images=images: explainer.explain(images).maps for images in batches], rounds=4
    )

    assert all(torch.equal(result, expected[index]) for index, result in results)
    assert network.features is None and network.count == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_explainer_can_be_copied_and_pickled_before_and_after_it_explains(name):
    explainer = ek.explainer(name, network=make_network(training=True), **NAMES[name])
    before = [copy.deepcopy(explainer), pickle.loads(pickle.dumps(explainer))]

    expected = explainer.explain(IMAGES).saliency()

    for other in (*before, copy.deepcopy(explainer), pickle.loads(pickle.dumps(explainer))):
        assert torch.equal(other.explain(IMAGES).saliency(), expected)
        assert other.network.training and other.network is not explainer.network


def test_networks_of_a_context_are_the_network_itself_only_where_nothing_changes():
    network = make_network()

    with undisturbed(network) as same, undisturbed(network, isolate=True) as twin:
        assert same is network and twin is not network
    network.train()
    with undisturbed(network) as twin:
        assert twin is not network and not twin[7].training and network[7].training
    with in_place(network) as same:
        assert same is network and not network[7].training
    assert network[7].training


def test_a_random_state_is_put_back_after_an_error():
    before = state()

    with pytest.raises(LookupError), kept_random_state():
        torch.rand(2), np.random.rand(2), random.random()
        raise LookupError

    assert state() == before
