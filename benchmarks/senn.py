"""SENN measured: what its regularizer costs and does, and how well it learns.

Usage: python benchmarks/senn.py [--speed] [--tables] [--mnist] [--stability] [--seeds 0 1 2] [--threads 1]

``--speed``: a training step with the regularizer, in its ways, beside a loop over the Jacobians of all
logits and concepts, on the same network and batch; interleaved, the median of the ratios. ``--stability``:
`small` on aviary for several weights of the regularizer; ``--models`` measures saved ones beside them.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import explainkit as ek
from explainkit.data.types import Batch, ImageDataset
from explainkit_senn.explainer import SENN
from explainkit_senn.model import SENNNetwork
from explainkit_senn.robustness import estimated_jacobian_penalty, jacobian_penalty, local_lipschitz

Term = Callable[[SENNNetwork, Tensor], Tensor]


def by_jacobians(network: SENNNetwork, images: Tensor) -> Tensor:
    """``sum_c |R_c|^2`` by its definition: a backward pass a logit and a concept."""
    inputs = network.preprocess(images).detach().requires_grad_()
    concepts, theta = network.concepts_of(inputs), network.weights_of(inputs)
    logits = torch.einsum("nk,nkc->nc", concepts, theta)
    of_concepts = [
        torch.autograd.grad(one.sum(), inputs, create_graph=True)[0].flatten(1) for one in concepts.unbind(1)
    ]
    total = torch.zeros(len(images))
    for label, logit in enumerate(logits.unbind(1)):
        (slope,) = torch.autograd.grad(logit.sum(), inputs, create_graph=True)
        held = sum(theta[:, k, label, None] * slopes for k, slopes in enumerate(of_concepts))
        total = total + (slope.flatten(1) - held).square().sum(1)
    return total


def penalty_inputs(network: SENNNetwork, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inputs = network.preprocess(images).detach()
    tracked = inputs.clone().requires_grad_()
    return network.weights_of(tracked), network.concepts_of(inputs), tracked


def by_the_product_rule(network: SENNNetwork, images: Tensor) -> Tensor:
    return jacobian_penalty(*penalty_inputs(network, images))


def by_a_probe(network: SENNNetwork, images: Tensor) -> Tensor:
    theta, concepts, inputs = penalty_inputs(network, images)
    signs = torch.randint(0, 2, (len(images), theta.shape[2])).to(theta) * 2 - 1
    return estimated_jacobian_penalty(theta, concepts, inputs, signs)


def gradient(network: SENNNetwork, value: Tensor) -> Tensor:
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    slopes = zip(parameters, gradients, strict=True)
    return torch.cat([(torch.zeros_like(one) if slope is None else slope).flatten() for one, slope in slopes])


def step(network: SENNNetwork, batch: Batch, term: Term | None) -> float:
    """Seconds of a forward pass, its loss with `term`, and the backward pass."""
    start = time.perf_counter()
    outputs = network.outputs(batch.images)
    loss = torch.nn.functional.cross_entropy(outputs.logits, batch.labels) + outputs.scores.abs().mean()
    if outputs.reconstruction is not None:
        loss = loss + (outputs.reconstruction - network.conceptizer_inputs(batch.images)).square().mean()
    if term is not None:
        loss = loss + 1e-3 * term(network, batch.images).mean()
    loss.backward()
    network.zero_grad()
    return time.perf_counter() - start


def speed(pairs: int, batch_size: int, probes: int) -> None:
    print("| network | concepts | classes | way | ms a step | faster than Jacobians | cosine | gap |")
    print("|---|---|---|---|---|---|---|---|")
    for preset, size, classes in (("mnist", 28, 10), ("small", 64, 20)):
        torch.manual_seed(0)
        model = ek.explainer("senn", preset=preset, robustness_fraction=0.0, with_instability=True)
        assert isinstance(model, SENN)
        network = model.build(ek.Task(classes=classes, size=size))
        network.fold_batch_norms()
        network.train()
        batch = Batch(
            images=torch.rand(batch_size, 3, size, size), labels=torch.arange(batch_size) % classes,
            ids=torch.arange(batch_size),
        )  # fmt: skip
        ways: dict[str, Term | None] = {
            "Jacobians": by_jacobians, "product rule": by_the_product_rule, "one probe": by_a_probe,
            "no regularizer": None,
        }  # fmt: skip
        for term in ways.values():
            step(network, batch, term)
        times = {name: [] for name in ways}
        for _ in range(pairs):
            for name, term in ways.items():
                times[name].append(step(network, batch, term))
        literal = gradient(network, by_jacobians(network, batch.images).mean())
        slopes = {
            "product rule": gradient(network, by_the_product_rule(network, batch.images).mean()),
            "one probe": sum(
                gradient(network, by_a_probe(network, batch.images).mean()) for _ in range(probes)
            ) / probes,
        }  # fmt: skip
        for name in ways:
            ratios = torch.tensor(times["Jacobians"]) / torch.tensor(times[name])
            cells = ["", ""]
            if name in slopes:
                cosine = torch.nn.functional.cosine_similarity(slopes[name], literal, dim=0).item()
                gap = ((slopes[name] - literal).norm() / literal.norm()).item()
                cells = [f"{cosine:.6f}", f"{gap:.1e}"]
            print(
                f"| `{preset}` | {model.concepts} | {classes} | {name} | "
                f"{1e3 * torch.tensor(times[name]).median():.0f} | {ratios.median():.1f} | "
                f"{cells[0]} | {cells[1]} |",
                flush=True,
            )


def accuracies(name: str, preset: str, seeds: Sequence[int]) -> None:
    """Test accuracy of a preset; a seed is of the split and of the training."""
    accuracies_by_seed = []
    for seed in seeds:
        dataset = ek.dataset(name, seed=seed)
        start = time.perf_counter()
        model = ek.explainer("senn", preset=preset, with_instability=True).fit(
            dataset, seed=seed, device="cpu", progress=False
        )
        seconds = time.perf_counter() - start
        accuracies_by_seed.append(model.evaluate(dataset, ["test"])["test"]["accuracy"])
        explanations = model.explain(next(dataset.batches("test", 500)))
        print(
            f"| `{name}` | `{preset}` | {seed} | {accuracies_by_seed[-1]:.1%} | "
            f"{explanations.diagnostics['instability'].median():.2f} | {seconds:.0f} |", flush=True,
        )  # fmt: skip
    values = torch.tensor(accuracies_by_seed)
    print(f"| `{name}` | `{preset}` | mean | {values.mean():.1%} ± {values.std(correction=0):.1%} | | |")


def stability_cells(model: SENN, dataset: ImageDataset, images: int, radius: float) -> str:
    """Test accuracy, the certificate, and the measured slope of weights over concepts."""
    accuracy = model.evaluate(dataset, ["test"])["test"]["accuracy"]
    explanations = model.explain(dataset.test.batch(torch.arange(images)))
    network = model.network
    assert isinstance(network, SENNNetwork)
    slopes = []
    for ids in torch.arange(images).split(50):
        targets, rows = explanations.targets[ids], torch.arange(len(ids))

        def theta(inputs: Tensor, rows: Tensor = rows, targets: Tensor = targets) -> Tensor:
            return network.weights_of(inputs)[rows, :, targets]

        inputs = network.preprocess(explanations.images[ids])
        slopes.append(local_lipschitz(theta, network.concepts_of, inputs, radius=radius, steps=10, starts=1))
    instability, slope = explanations.diagnostics["instability"], torch.cat(slopes)
    size = explanations.weights.norm(dim=1)
    return (
        f"{accuracy:.1%} | {instability.median():.3f} | {slope.median():.2f} | "
        f"{(slope / size).median():.3f} | {size.median():.2f}"
    )


def stability(options: argparse.Namespace) -> None:
    dataset = ek.dataset("aviary")
    print("| regularizer | seed | test | instability | slope | slope / size | size of the weights | s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    cells = partial(stability_cells, dataset=dataset, images=options.images, radius=options.radius)
    for path in options.models:
        model = ek.load(path)
        assert isinstance(model, SENN)
        print(f"| {model.robustness:g} ({path.name}) | | {cells(model)} | |", flush=True)
    subset = ek.dataset("aviary", train=options.train) if options.train else dataset
    for weight in options.weights:
        for seed in options.seeds:
            start = time.perf_counter()
            model = ek.explainer(
                "senn",
                robustness=weight,
                learn_epochs=options.learn_epochs,
                settle_epochs=options.settle_epochs,
            )
            assert isinstance(model, SENN)
            model.fit(subset, seed=seed, device="cpu", progress=False)
            seconds = time.perf_counter() - start
            print(f"| {weight:g} | {seed} | {cells(model)} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for part in ("speed", "stability", "mnist", "tables"):
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7, help="steps of each kind that are timed")
    parser.add_argument("--batch-size", type=int, default=32, help="of the steps that are timed")
    parser.add_argument("--probes", type=int, default=200, help="over which the gradient is averaged")
    parser.add_argument(
        "--weights", type=float, nargs="*", default=[0.0, 3e-3, 1e-2], help="of the regularizer"
    )
    parser.add_argument("--train", type=int, help="training images for --stability, all unless given")
    parser.add_argument("--learn-epochs", type=int, default=8)
    parser.add_argument("--settle-epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=200, help="test images whose stability is measured")
    parser.add_argument("--radius", type=float, default=0.01, help="of the ball that is searched")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="saved ones, measured too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.speed:
        speed(options.pairs, options.batch_size, options.probes)
    tables = [("wine", "table"), ("breast-cancer", "table")] if options.tables else []
    tables += [("mnist", "mnist")] if options.mnist else []
    if tables:
        print("| data | preset | seed | test | instability | s |\n|---|---|---|---|---|---|", flush=True)
    for name, preset in tables:
        accuracies(name, preset, options.seeds)
    if options.stability:
        stability(options)


if __name__ == "__main__":
    main()
