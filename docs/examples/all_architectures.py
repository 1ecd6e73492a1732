"""All architectures and three post-hoc methods on the same birds, on one page, each as its plugin draws it.

python docs/examples/all_architectures.py --models runs/all --out all.html

Trains each at its small settings on aviary, or takes those that an earlier run kept in ``--models``; names
their units; and asks all three questions. More than an hour on two cores the first time. ``--names`` takes
some of them, ``--preset tiny`` is for looking whether it runs.
"""

import argparse
from pathlib import Path

import torch

import explainkit as ek

ARCHITECTURES = (
    "cam", "ra-cnn", "ma-cnn", "ci-gc", "region-cnn", "prototype-dnn", "senn", "protopnet", "interp-cnn",
    "csg-cnn", "ccnn",
)  # fmt: skip
POST_HOC = ("captum/integrated-gradients", "captum/layer-grad-cam", "captum/occlusion")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/all"), help="folder that keeps the models")
    parser.add_argument("--names", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES, metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("all.html"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--measured", type=int, default=60, help="mixed scenes that the table is measured on")
    parser.add_argument("--train", type=int, default=5000, help="birds to learn from")
    parser.add_argument("--preset", default="small")
    options = parser.parse_args()
    dataset = ek.dataset("aviary", train=options.train)
    models = [load_or_train(name, dataset, options) for name in options.names]
    explained = models[0].network
    post_hoc = [ek.explainer(name, network=explained, classes=dataset.classes) for name in POST_HOC]
    batch = dataset.test.batch(torch.arange(options.images))
    comparison = ek.compare(
        [*models, *post_hoc],
        batch,
        dataset=dataset,
        split="mixed",
        count=options.measured,
        distractors=dataset,
        metric_names=(
            "shapley-correlation",
            "within-class-correlation",
            "part-deletion",
            "part-insertion",
            "pointing",
            "units-to-95-percent",
        ),
    )
    print(comparison.table())
    for name, explanations in comparison.explanations.items():
        print(f"{name}: {explanations[0].sentence()}")
    page = comparison.save(options.out, title=f"{len(models)} architectures, three post-hoc methods")
    print(f"page: {page.resolve()}")


def load_or_train(
    name: str, dataset: ek.ImageDataset, options: argparse.Namespace
) -> ek.InterpretableExplainer:
    """The architecture `name`, trained and its units named; kept for the next time."""
    folder = options.models / name
    if (folder / "explainer.json").is_file():
        return ek.load(folder)
    print(f"{name}: training on {len(dataset.train):,} birds …", flush=True)
    model = ek.explainer(name, preset=options.preset).fit(dataset, seed=0)
    ek.name_units(model, dataset)
    print(f"{name}: {model.evaluate(dataset, ['test'])['test']['accuracy']:.1%} of the test birds")
    ek.save(model, folder)
    return model


if __name__ == "__main__":
    main()
