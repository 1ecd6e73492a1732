"""What explaining costs beside the bare forward pass: ratio and spread.

Usage: python benchmarks/explain_cost.py [NAME …] [--pairs 200] [--batch-size 32] [--device cpu]

Architectures at their small preset on images of 64 pixels, trained for a moment, in eval mode, all maps;
`explain` and the network's forward take turns, and the median ratio is the figure. DESIGN: at most 1.1 in
batches of 32, 1.5 for single images. `senn` is measured without its instability, and with it.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch

import explainkit as ek

SHORT = {
    "cam": {"epochs": 1},
    "ccnn": {"first_epochs": 0, "guided_epochs": 1, "last_epochs": 1},
    "ci-gc": {"warm_epochs": 1, "epochs": 2},
    "csg-cnn": {"warm_epochs": 1, "epochs": 1},
    "interp-cnn": {"epochs": 2},
    "ma-cnn": {"trunk_epochs": 1, "heads_epochs": 0, "rounds": 0},
    "prototype-dnn": {"start_epochs": 0, "epochs": 1},
    "protopnet": {"start_epochs": 1, "warm_epochs": 0, "joint_epochs": 1},
    "ra-cnn": {"warm_epochs": 1},
    "region-cnn": {"warm_epochs": 1, "epochs": 1},
    "senn": {"learn_epochs": 0, "settle_epochs": 1},
}


def seconds(call: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratios(model: ek.Explainer, images: torch.Tensor, pairs: int, device: str) -> tuple[list[float], float]:
    """`explain` over forward, sorted, and the median forward in milliseconds."""

    def forward() -> None:
        with torch.no_grad():
            model.network(images)

    def explain() -> None:
        model.explain(images)

    for _ in range(5):
        forward(), explain()
    found, bare = [], []
    for index in range(pairs):
        order = (forward, explain) if index % 2 else (explain, forward)
        times = {call: seconds(call, device) for call in order}
        found.append(times[explain] / times[forward])
        bare.append(times[forward])
    return sorted(found), statistics.median(bare) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*SHORT])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dataset = ek.dataset("aviary", train=400, validation=40, test=40)
    print(f"{torch.get_num_threads()} threads, {options.pairs} pairs; median, and 10-90 %")
    for name in options.names:
        model = ek.explainer(name, **SHORT.get(name, {})).fit(
            dataset, seed=0, device=options.device, progress=False
        )
        forms = [("", False), (", with instability", True)] if name == "senn" else [("", None)]
        for batch_size in options.batch_sizes:
            images = next(iter(dataset.batches("test", batch_size))).images.to(options.device)
            for label, with_instability in forms:
                if with_instability is not None:
                    model.with_instability = with_instability
                found, bare = ratios(model, images, options.pairs, options.device)
                tenth = max(1, len(found) // 10)
                print(
                    f"{name}{label}, {batch_size} images: explain / forward {statistics.median(found):.3f}, "
                    f"{found[tenth]:.3f} … {found[-tenth - 1]:.3f} (forward {bare:.1f} ms)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
