"""Do masks and the filter loss make filters of InterpCNN parts? Beside the same network without them.

Usage: python benchmarks/interp_cnn.py [--quick] [--seeds 0 1 2] [--models folder] [--rows "mask alone"]

Trains the networks of all rows for each seed, or loads those that --models has as ROW-SEED, and prints
accuracy, the mutual information of raw maps and places, location instability and part interpretability with
their chance levels, and for how many filters their class is the one that they fire most for. --quick: five
classes, 400 images, the backbone `tiny` and nine epochs, half a minute a network. Otherwise the settings of
`small` on aviary as it is.
"""

import argparse
from pathlib import Path

import torch

import explainkit as ek
from explainkit.metrics import EvalContext, ExplainerOutput
from explainkit.metrics.unit_parts import (
    location_instability,
    part_interpretability,
    unit_maps_of,
    unit_part_interpretability,
)
from explainkit_interpcnn.losses import mutual_information

ROWS = {
    "mask and loss": {},
    "mask and label-aware loss": {"variant": "target"},
    "mask alone": {"filter_weight": 0.0},
    "neither": {"mask": False, "filter_weight": 0.0, "head_scale": 10.0},
}
"""Of all rows the linear layer has the same first weights and rate."""

QUICK = {"epochs": 9, "backbone": "tiny", "batch_size": 32}


def dataset_of(quick):
    """Aviary, whole or small."""
    return (
        ek.dataset("aviary", classes=5, train=400, validation=10, test=120) if quick else ek.dataset("aviary")
    )


def model_of(row, seed, dataset, options):
    """The network of a row, trained or loaded."""
    folder = options.models / f"{row.replace(' ', '-')}-{seed}" if options.models else None
    if folder is not None and folder.exists():
        return ek.load(folder, device="cpu")
    settings = ROWS[row] | (QUICK if options.quick else {})
    model = ek.explainer("interp-cnn", **settings).fit(dataset, seed=seed, device="cpu", progress=False)
    if folder is not None:
        ek.save(model, folder)
    return model


def report(row, seed, model, dataset, images):
    """A few lines about one network."""
    ids = torch.arange(min(images, len(dataset.test)))
    context = EvalContext(explainer=model, dataset=dataset, split="test", ids=ids)
    explanations = model.explain(context.images)
    output = ExplainerOutput(context=context, name=row, full_explanations=explanations)
    with torch.no_grad():
        information = mutual_information(model.network.outputs(context.images[:64]).raw_maps).mean().item()
    accuracy = model.evaluate(dataset)["test"]["accuracy"]
    strongest = model.network.class_activation.argmax(0) == model.network.category
    print(f"{row}, seed {seed}: accuracy {accuracy:.3f}, information {information:.2f} nats, ", end="")
    print(f"class is the strongest for {strongest.float().mean():.2f} of the filters")
    for metric in (location_instability, part_interpretability):
        score = metric(output)
        if score.reason is not None:
            print(f"  {score.name}: {score.reason}")
            continue
        low, high = score.interval
        print(f"  {score.name} {score.mean:.3f} [{low:.3f}, {high:.3f}], {score.note}")
    wider = unit_part_interpretability(unit_maps_of(explanations), context.masks, active_share=0.02)
    print(f"  of the 2 % most active cells {wider.mean:.3f}, chance {wider.mean_chance:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", type=Path, help="folder that networks are kept in")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = dataset_of(options.quick)
    for seed in options.seeds:
        for row in options.rows:
            report(row, seed, model_of(row, seed, dataset, options), dataset, options.images)


if __name__ == "__main__":
    main()
