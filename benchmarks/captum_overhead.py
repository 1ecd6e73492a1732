"""What explainkit adds to Captum: each method against the same calls by hand, side by side.

Usage: python benchmarks/captum_overhead.py [--pairs 200] [--device cpu]

By hand: one forward pass for the prediction, Captum's call with the same settings and inner batches, and the
forward pass of the baseline where a sum is claimed. The network of CAM's small preset, 64 pixels, batches of
32. The figures are the median difference of interleaved pairs with its 95 % bootstrap interval, and what that
is of the time by hand. It should be at most 3 % or 1 ms; methods that take the logits from Captum's own pass
come out below zero.
"""

import argparse
import random
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from captum import attr
from torch import Tensor, nn

import explainkit as ek
from explainkit_captum.perturbation import steps

BATCH_SIZE = 256


def by_hand(network: nn.Module, layer: nn.Module, images: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Captum's call for each method, given the targets."""
    tracked = images.clone().requires_grad_()
    black = torch.zeros_like(images[:1])
    window, stride = steps(images.shape[-2:], None, None)

    def integrated(targets: Tensor) -> Tensor:
        attributions = attr.IntegratedGradients(network).attribute(
            images, target=targets, internal_batch_size=BATCH_SIZE
        )
        with torch.no_grad():
            network(black)
        return attributions

    return {
        "saliency": lambda targets: attr.Saliency(network).attribute(tracked, target=targets),
        "input-x-gradient": lambda targets: attr.InputXGradient(network).attribute(tracked, target=targets),
        "integrated-gradients": integrated,
        "layer-grad-cam": lambda targets: attr.LayerGradCam(network, layer).attribute(
            tracked, target=targets
        ),
        "occlusion": lambda targets: attr.Occlusion(network).attribute(
            images, sliding_window_shapes=(3, *window), strides=(3, *stride), target=targets,
            perturbations_per_eval=BATCH_SIZE // len(images),
        ),
        "guided-backprop": lambda targets: attr.GuidedBackprop(network).attribute(tracked, target=targets),
    }  # fmt: skip


def seconds(call: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compared(
    one: Callable[[], object], other: Callable[[], object], pairs: int, device: str
) -> tuple[float, float, tuple[float, float]]:
    """Median seconds of `one`, and what `other` takes longer in turns with it: median and interval."""
    bare, longer = [], []
    for call in (one, other):
        call()
    for index in range(pairs):
        times = {call: seconds(call, device) for call in ((one, other) if index % 2 else (other, one))}
        bare.append(times[one])
        longer.append(times[other] - times[one])
    chance = random.Random(0)
    drawn = sorted(statistics.median(chance.choices(longer, k=pairs)) for _ in range(1000))
    return statistics.median(bare), statistics.median(longer), (drawn[25], drawn[974])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    network = (
        ek.explainer("cam")
        .build(ek.Task(classes=20))
        .to(memory_format=torch.channels_last)
        .to(options.device)
        .eval()
    )
    images = torch.rand(32, 3, 64, 64, device=options.device)
    print(f"{torch.get_num_threads()} threads, {options.device}, {options.pairs} pairs; milliseconds")
    print(f"{'method':22}{'by hand':>10}{'over':>10}{'95 % interval':>20}{'ratio':>8}")
    for name, captum in by_hand(network, network.backbone, images).items():
        explainer = ek.explainer(f"captum/{name}", network=network, batch_size=BATCH_SIZE)

        def hand(captum: Callable[[Tensor], Tensor] = captum) -> None:
            with torch.no_grad():
                targets = network(images).argmax(1)
            captum(targets)

        def ours(explainer: ek.Explainer = explainer) -> None:
            explainer.explain(images)

        pairs = (
            max(3, options.pairs // 10) if name in ("integrated-gradients", "occlusion") else options.pairs
        )
        bare, over, (low, high) = compared(hand, ours, pairs, options.device)
        limit = max(0.03 * bare, 1e-3)
        verdict = "" if high <= limit else "  too much" if low > limit else "  undecided"
        interval = f"[{low * 1e3:.2f}, {high * 1e3:.2f}]"
        print(f"{name:22}{bare * 1e3:10.1f}{over * 1e3:10.2f}{interval:>20}{1 + over / bare:8.3f}{verdict}")


if __name__ == "__main__":
    main()
