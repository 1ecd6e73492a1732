"""Accuracy of saved models on aviary without their units, and with scores corrected by captions.

Usage: python benchmarks/intervention_curves.py --model FOLDER … [--images 1000] [--threads 1]

Two tables, each with a row a model and order: test accuracy with some shares of all units switched off; and
accuracy on the split ``mixed``, whose birds have a part of another species, with units corrected, for models
whose units have phrases.
"""

import warnings

import torch
from aviary_models import load_models, model_parser, print_header, print_row

import explainkit as ek
from explainkit.explanations.intervention_curve import InterventionCurve

SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def print_curve(title: str, curve: InterventionCurve, *facts: object) -> None:
    """A row of it, and one of the random orders beside it."""
    count = len(curve.accuracy) - 1
    points = [round(share * count) for share in SHARES]
    for item in (curve, curve.baseline):
        assert item is not None
        pairs = zip(item.accuracy[points].tolist(), item.accuracy_std_error[points].tolist(), strict=True)
        cells = [f"{100 * value:.1f} ± {100 * error:.1f}" for value, error in pairs]
        print_row(title, count, item.order_by, *facts, *cells)


def main() -> None:
    options = model_parser(__doc__, images=1000).parse_args()
    warnings.simplefilter("ignore")
    models, dataset = load_models(options)
    shares = [f"{share:.0%}" for share in SHARES]
    print_header("model", "units", "switched off by", *shares)
    for title, model in models.items():
        for order in ("contribution", "accuracy-cost"):
            print_curve(title, ek.unit_curve(model, dataset, images=options.images, order=order))
    print_header("model", "units", "corrected by", "levels", "known", *shares)
    for title, model in models.items():
        if model.units is None or not any(model.units.phrases or ()):
            continue
        for levels in ("mean", "quantile"):
            truth = ek.concept_truth(model, dataset, split="mixed", images=options.images, levels=levels)
            curve = ek.correction_curve(model, dataset, truth, split="mixed", images=options.images)
            known = truth[:, truth.isfinite().any(0)].isfinite().to(torch.float32).mean()
            print_curve(title, curve, levels, f"{known:.0%}")


if __name__ == "__main__":
    main()
