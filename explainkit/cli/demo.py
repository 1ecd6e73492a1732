"""``explainkit demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainkit.data.images import ImageData
    from explainkit.interfaces import InterpretableExplainer

MEASURES = (
    "rho-phi", "residual-r", "part-deletion", "part-insertion", "residual", "pointing", "mass-on-bird",
    "units-to-95", "forward-passes", "backward-passes",
)  # fmt: skip


def demo(*, out: Path = Path("runs/demo"), images: int = 6, measured: int = 40, seed: int = 0) -> None:
    """Train on drawn birds, compare the networks' own explanations with Captum's, and write the page.

    A network that an earlier demo trained is used again.

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

    data = ek.dataset("aviary")
    models = {name: _trained(name, data, out, seed) for name in ("cam", "protopnet")}
    accuracy = {name: model.evaluate(data, ["test"])["test"]["accuracy"] for name, model in models.items()}
    batch = data.test.batch(torch.arange(images))
    told = ek.compare(
        [*models.values(), *post_hoc(models["cam"], None)], batch, data=data, split="mixed", count=measured,
        measures=MEASURES, seed=seed, bank=data,
    )  # fmt: skip
    largest = max(abs(item.residual or 0.0) for name in models for item in told.explanations[name].check())
    facts = [
        Fact(name=f"accuracy of {name}", value=f"{share:.1%}", note=f"on {len(data.test):,} test birds")
        for name, share in accuracy.items()
    ]
    facts.append(Fact(name="largest residual", value=f"{largest:.0e}", note="of either, in logits"))
    page = told.save(out / "why.html", title="Why these birds?", facts=facts)
    print(told.metrics.table())
    for name in models:
        print(f"{name}: {told.explanations[name][0].sentence()}")
        print(f"{name}: {next(iter(told.classes[name])).sentence()}")
        print(f"{name}: {told.changes[name][0].sentence()}")
    shares = ", ".join(f"{name} {share:.1%}" for name, share in accuracy.items())
    print(f"accuracy on {len(data.test):,} test birds: {shares}")
    print(f"page: {page.resolve()}")


def _trained(name: str, data: ImageData, out: Path, seed: int) -> InterpretableExplainer[Any]:
    """The explainer `name`, trained now, or by an earlier demo with this seed and these classes."""
    import explainkit as ek
    from explainkit.errors import ExplainKitError

    folder = out / name
    try:
        known = ek.load(folder)
        if known.classes == data.classes and known.provenance().seed == seed:
            print(f"{name}: trained by an earlier demo, {folder}")
            return known
    except ExplainKitError:
        pass  # none is there, or it is of another version
    started = time.perf_counter()
    print(f"{name}: training on {len(data.train):,} birds …", flush=True)
    model = ek.explainer(name, preset="small").fit(data, seed=seed)
    named = sum(name.told for name in ek.name_units(model, data, images=500))
    print(f"{name}: {named} of {len(model.units or ())} units have a name that holds on other birds")
    ek.save(model, folder)
    print(f"{name}: trained in {time.perf_counter() - started:.0f} s")
    return model
