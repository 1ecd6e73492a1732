"""What explaining costs beside the bare forward pass: ratio and spread.

Usage: python benchmarks/explain_cost.py [--pairs 50] [--device cpu]

The network of CAM's small preset, 64 pixels, batches of 32; `explain` and the network's forward take turns,
and the median ratio is the figure. It should be at most 1.1.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import explainkit as ek


def seconds(call: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    factory = ek.explainer("cam")
    network = (
        factory.build(ek.Task(classes=20)).to(memory_format=torch.channels_last).to(options.device).eval()
    )
    model = type(factory).from_network(network, classes=[f"class {c}" for c in range(20)], size=(64, 64))
    images = torch.rand(32, 3, 64, 64, device=options.device)

    def forward() -> None:
        with torch.no_grad():
            network(images)

    def explain() -> None:
        model.explain(images)

    for _ in range(5):
        forward(), explain()
    ratios, bare = [], []
    for index in range(options.pairs):
        order = (forward, explain) if index % 2 else (explain, forward)
        times = {call: seconds(call, options.device) for call in order}
        ratios.append(times[explain] / times[forward])
        bare.append(times[forward])
    ratios.sort()
    tenth = max(1, len(ratios) // 10)
    print(
        f"explain / forward: median {statistics.median(ratios):.3f}, "
        f"10-90 % {ratios[tenth]:.3f} … {ratios[-tenth - 1]:.3f}, {options.pairs} pairs "
        f"(forward {statistics.median(bare) * 1e3:.1f} ms, {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
