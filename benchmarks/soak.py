"""Explaining from many threads at once: calls that differ from sequential ones or fail, and changes of state.

Usage: python benchmarks/soak.py [--threads 8] [--calls 50] [--seed 0]

Three networks with batch norm and dropout, two of them in training mode with gradients, explained by CAM and
by all methods of Captum, which are also made anew, asked for logits, and stopped by a network that fails; and
all architectures, in both modes, asked all questions. A result is compared with that of the same call
before the threads began, bit for bit. Exits with 1 if any call differs or fails, or if modes, gradients,
hooks, buffers, weights, warning filters or random states change.
"""

import argparse
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

import explainkit as ek
from explainkit import registry
from explainkit.testing import architectures, fitted_example, tiny_dataset, tiny_images

OPTIONS = {
    "gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "integrated-gradients": {"n_steps": 8},
    "kernel-shap": {"n_samples": 24, "patches": 3},
    "layer-gradient-shap": {"n_samples": 3, "stdevs": 0.1},
    "lime": {"n_samples": 24, "patches": 3, "alpha": 1e-6},
    "noise-tunnel": {"n_samples": 3, "method": "guided-backprop"},
    "shapley-value-sampling": {"n_samples": 2, "patches": 3},
}
ARCHITECTURES = architectures()
METHODS = [name.partition("/")[2] for name in registry.offers("explainers") if name.startswith("captum/")]


class Failing(nn.Module):
    """A network that raises in its forward pass after some layers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner, self.fails = network, False

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        logits = self.inner(images)
        if self.fails:
            raise LookupError("on the way")
        return logits


def make_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(5):  # statistics of batch norms
            network(torch.rand(16, 3, 24, 24))
    return network


def calls_for(network: nn.Module, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Every kind of call for `network`, by name; each gives a tensor."""
    calls: dict[str, Callable[[], Tensor]] = {}

    def explain(explainer: ek.Explainer) -> Tensor:
        return explainer.explain(images).saliency()

    def make_and_explain(name: str) -> Tensor:
        return explain(ek.explainer(name, network=network))

    def fail(name: str, failing: Failing, explainer: ek.Explainer) -> Tensor:
        try:
            explain(explainer)
        except (LookupError, ek.ExplainKitError):
            return torch.zeros(1)
        raise AssertionError(f"{name} gave an explanation of a network that fails")

    cam = ek.explainer("cam", network=network, size=(24, 24))
    calls["cam"] = partial(explain, cam)
    calls["predict"] = partial(cam.predict, images)
    calls["make cam"] = lambda: explain(ek.explainer("cam", network=network, size=(24, 24)))
    for name in METHODS:
        explainer = ek.explainer(f"captum/{name}", network=network, **OPTIONS.get(name, {}))
        calls[name] = partial(explain, explainer)
    for name in ("captum/guided-backprop", "captum/layer-grad-cam", "captum/saliency"):
        calls[f"make {name}"] = partial(make_and_explain, name)
        failing = Failing(network)
        failing.training = network.training
        explainer = ek.explainer(name, network=failing)
        failing.fails = True
        calls[f"fail {name}"] = partial(fail, name, failing, explainer)
    return calls


def architecture_calls(networks: list[nn.Module]) -> dict[str, Callable[[], Tensor]]:
    """All questions to small examples of the architectures, whose networks are added to `networks`."""
    calls: dict[str, Callable[[], Tensor]] = {}
    dataset, images = tiny_dataset(), tiny_images()

    def explain_class(model: ek.InterpretableExplainer) -> Tensor:
        return model.explain_class(dataset.batches("test", 8)).contributions

    def counterfactual(model: ek.InterpretableExplainer) -> Tensor:
        return model.counterfactual(images[:2], distractors=dataset).success

    def evaluate(model: ek.InterpretableExplainer) -> Tensor:
        return torch.tensor(list(model.evaluate(dataset, ["test"])["test"].values()))

    for name in ARCHITECTURES:
        for is_training in (False, True):
            model = deepcopy(fitted_example(name))
            networks.append(model.network.train(is_training))
            where = f"{name} in {'training' if is_training else 'eval'} mode"
            calls[f"explain {where}"] = lambda model=model: model.explain(images).contributions
            calls[f"predict {where}"] = partial(model.predict, images)
            calls[f"score_ranges {where}"] = partial(model.score_ranges, dataset)
            for ask in (explain_class, counterfactual, evaluate):
                calls[f"{ask.__name__} {where}"] = partial(ask, model)
    return calls


def state_of(networks: list[nn.Module]) -> list[object]:
    """All that must be as it was, in values that can be compared."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state: list[object] = [
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(),  # type: ignore[index]
        list(warnings.filters), torch.get_default_dtype(),
    ]  # fmt: skip
    for network in networks:
        state += [value.tolist() for value in network.state_dict().values()]
        for module in network.modules():
            state += [module.training, sorted(vars(module)), [len(getattr(module, kind)) for kind in kinds]]
        for parameter in network.parameters():
            state += [parameter.requires_grad, None if parameter.grad is None else parameter.grad.tolist()]
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # kernels of several threads may sum in another order
    warnings.simplefilter("ignore")
    networks = [make_network(0).eval(), make_network(1), make_network(2)]
    images = torch.rand(3, 3, 24, 24)
    for network in networks[1:]:
        network.train()
        network(images).sum().backward()
    calls = {
        f"{name} of network {index}": call
        for index, network in enumerate(networks)
        for name, call in calls_for(network, images).items()
    }
    calls |= architecture_calls(networks)
    expected = {name: call() for name, call in calls.items()}
    before = state_of(networks)
    differing: list[str] = []
    failures: list[str] = []

    def work(thread: int) -> None:
        chance = random.Random(1000 * options.seed + thread)
        for _ in range(options.calls):
            name = chance.choice(list(calls))
            try:
                result = calls[name]()
            except Exception as error:  # any failure is counted
                failures.append(f"{name}: {type(error).__name__}: {str(error)[:160]}")
                continue
            if not torch.equal(result, expected[name]):
                differing.append(name)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(options.threads)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    is_changed = state_of(networks) != before
    for line in sorted({*differing}) + sorted({*failures}):
        print(f"  {line}")
    print(
        f"{options.threads} threads, {options.threads * options.calls} calls of {len(calls)} kinds in "
        f"{seconds:.1f} s: {len(differing)} differed, {len(failures)} failed, "
        f"state {'changed' if is_changed else 'unchanged'}"
    )
    sys.exit(bool(differing or failures or is_changed))


if __name__ == "__main__":
    main()
