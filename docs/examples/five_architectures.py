"""Five architectures and three post-hoc methods on the same birds, on one page, each as its plugin draws it.

python docs/examples/five_architectures.py --models runs/five --out five.html

Trains each at its small settings on aviary, or takes those that an earlier run kept in ``--models``; names
their units; and asks all three questions. About ten minutes on two cores the first time. ``--preset tiny`` is
for looking whether it runs.
"""

import argparse
from pathlib import Path

import torch

import explainkit as ek

ARCHITECTURES = ("cam", "protopnet", "senn", "ccnn", "ra-cnn")
POST_HOC = ("captum/integrated-gradients", "captum/layer-grad-cam", "captum/occlusion")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/five"), help="folder that keeps the models")
    parser.add_argument("--out", type=Path, default=Path("five.html"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--measured", type=int, default=60, help="mixed scenes that the table is measured on")
    parser.add_argument("--train", type=int, default=5000, help="birds to learn from")
    parser.add_argument("--preset", default="small")
    options = parser.parse_args()
    data = ek.dataset("aviary", train=options.train)
    models = [ready(name, data, options) for name in ARCHITECTURES]
    beside = [ek.explainer(name, network=models[0].network, classes=data.classes) for name in POST_HOC]
    batch = data.test.batch(torch.arange(options.images))
    told = ek.compare(
        [*models, *beside], batch, data=data, split="mixed", count=options.measured, bank=data,
        measures=("rho-phi", "residual-r", "part-deletion", "part-insertion", "pointing", "units-to-95"),
    )  # fmt: skip
    print(told.table())
    for name, explanations in told.explanations.items():
        print(f"{name}: {explanations[0].sentence()}")
    print(f"page: {told.save(options.out, title='Five architectures, three post-hoc methods').resolve()}")


def ready(name: str, data: ek.ImageData, options: argparse.Namespace) -> ek.InterpretableExplainer:
    """The architecture `name`, trained and its units named; kept for the next time."""
    folder = options.models / name
    if (folder / "explainer.json").is_file():
        return ek.load(folder)
    print(f"{name}: training on {len(data.train):,} birds …", flush=True)
    model = ek.explainer(name, preset=options.preset).fit(data, seed=0)
    ek.name_units(model, data)
    print(f"{name}: {model.evaluate(data, ['test'])['test']['accuracy']:.1%} of the test birds")
    ek.save(model, folder)
    return model


if __name__ == "__main__":
    main()
