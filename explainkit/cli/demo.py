"""``explainkit demo``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainkit.data.types import ImageDataset
    from explainkit.explainers.interface import Explainer

METRICS = (
    "shapley-correlation",
    "within-class-correlation",
    "part-deletion",
    "part-insertion",
    "residual",
    "pointing",
    "object-mass",
    "units-to-95-percent",
    "forward-passes",
    "backward-passes",
)

SETTINGS: Mapping[str, Mapping[str, Any]] = {"cam": {}, "protopnet": {"start_epochs": 1, "joint_epochs": 3}}
"""Of the networks, beside those of ``small``. The second begins with the backbone of the first."""


def demo(*, out: Path = Path("runs/demo"), images: int = 6, measured: int = 40, seed: int = 0) -> None:
    """Train on drawn birds, compare the networks' own explanations with Captum's, and write the page.

    Ten species and two networks, in a few minutes. A network that an earlier demo trained is used again.

    Parameters
    ----------
    out
        Folder for the models and the page.
    images
        How many pictures the page shows.
    measured
        How many mixed scenes the table is measured on.
    seed
        Of training, and of chance in the table.

    Examples
    --------
    explainkit demo --out runs/demo
    """
    import torch

    import explainkit as ek
    from explainkit.cli.options import post_hoc
    from explainkit.rendering.html import Fact

    dataset = ek.dataset("aviary", classes=10, train=2500)
    models = {name: _trained(name, dataset, out, seed) for name in SETTINGS}
    accuracy = {name: model.evaluate(dataset, ["test"])["test"]["accuracy"] for name, model in models.items()}
    batch = dataset.test.batch(torch.arange(images))
    comparison = ek.compare(
        [*models.values(), *post_hoc(models["cam"], None)],
        batch,
        dataset=dataset,
        split="mixed",
        count=measured,
        metric_names=METRICS,
        seed=seed,
        distractors=dataset,
    )
    largest = max(
        abs(item.residual or 0.0)
        for name in models
        for item in comparison.explanations[name].check_additivity()
    )
    facts = [
        Fact(name=f"accuracy of {name}", value=f"{share:.1%}", note=f"on {len(dataset.test):,} test birds")
        for name, share in accuracy.items()
    ]
    facts.append(Fact(name="largest residual", value=f"{largest:.0e}", note="of either, in logits"))
    page = comparison.save(out / "why.html", title="Why these birds?", facts=facts)
    print(comparison.metrics.table())
    for name in models:
        print(f"{name}: {comparison.explanations[name][0].sentence()}")
        print(f"{name}: {next(iter(comparison.class_explanations[name])).sentence()}")
        print(f"{name}: {comparison.counterfactuals[name][0].sentence()}")
    shares = ", ".join(f"{name} {share:.1%}" for name, share in accuracy.items())
    print(f"accuracy on {len(dataset.test):,} test birds: {shares}")
    print(f"page: {page.resolve()}")


def _trained(name: str, dataset: ImageDataset, out: Path, seed: int) -> Explainer:
    """The explainer `name`, trained now, or by an earlier demo with this seed and these classes."""
    import explainkit as ek
    from explainkit.errors import ExplainKitError

    folder = out / name
    try:
        model = ek.load(folder)
        if model.classes == dataset.classes and model.provenance().seed == seed:
            print(f"{name}: trained by an earlier demo, {folder}")
            return model
    except ExplainKitError:
        pass  # none is there, or it is of another version
    started = time.perf_counter()
    print(f"{name}: training on {len(dataset.train):,} birds …", flush=True)
    weights = None if name == "cam" else str(out / "cam")
    model = ek.explainer(name, weights=weights, **SETTINGS[name]).fit(dataset, seed=seed)
    accepted = sum(unit.accepted for unit in ek.name_units(model, dataset, images=500))
    print(f"{name}: {accepted} of {len(model.units or ())} units have a name that holds on other birds")
    ek.save(model, folder)
    print(f"{name}: trained in {time.perf_counter() - started:.0f} s")
    return model
