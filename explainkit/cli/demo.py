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


def demo(*, out: Path = Path("runs/demo"), images: int = 6, measured: int = 60, seed: int = 0) -> None:
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
    model = _trained("cam", data, out, seed)
    accuracy = model.evaluate(data, ["test"])["test"]["accuracy"]
    batch = data.test.batch(torch.arange(images))
    told = ek.compare(
        [model, *post_hoc(model, None)], batch, data=data, split="mixed", count=measured, measures=MEASURES,
        seed=seed,
    )  # fmt: skip
    largest = max(abs(item.residual or 0.0) for item in told.explanations["cam"].check())
    facts = [
        Fact(name="accuracy", value=f"{accuracy:.1%}", note=f"of cam on {len(data.test):,} test birds"),
        Fact(name="training", value=f"{sum(epoch.seconds for epoch in model.history):.0f} s", note="of cam"),
        Fact(name="largest residual", value=f"{largest:.0e}", note="of cam, in logits"),
    ]
    page = told.save(out / "why.html", title="Why these birds?", facts=facts)
    print(told.metrics.table())
    for item in list(told.explanations["cam"])[:3]:
        print(item.sentence())
    print(f"accuracy on {len(data.test):,} test birds: {accuracy:.1%}")
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
    ek.save(model, folder)
    print(f"{name}: trained in {time.perf_counter() - started:.0f} s")
    return model
