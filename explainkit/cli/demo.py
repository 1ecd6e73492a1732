"""``explainkit demo``."""

from pathlib import Path


def demo(*, out: Path = Path("runs/demo"), seed: int = 0) -> None:
    """Train CAM on scikit-learn's handwritten digits, explain some, and write a page that shows why.

    Parameters
    ----------
    out
        Folder for the model, the explanations and the page.
    seed
        Of training.

    Examples
    --------
    explainkit demo --out runs/demo
    """
    import torch

    import explainkit as ek
    from explainkit.rendering.html import Fact

    data = ek.dataset("digits")
    model = ek.explainer("cam", preset="digits").fit(data, seed=seed)
    accuracy = model.evaluate(data, ["test"])["test"]["accuracy"]
    ek.save(model, out / "model")
    batch = data.test.batch(torch.arange(12))
    told = model.explain(batch).check()
    largest = max(abs(item.residual or 0.0) for item in told)
    told.save(out / "told.safetensors")
    facts = [
        Fact(name="accuracy", value=f"{accuracy:.1%}", note=f"{len(data.test)} held-out digits"),
        Fact(name="training", value=f"{sum(epoch.seconds for epoch in model.history):.0f} s"),
        Fact(name="largest residual", value=f"{largest:.1e}", note="of a logit"),
    ]
    labels = [data.classes[label] for label in batch.labels.tolist()]
    page = ek.report(told, out / "why.html", title="Why these digits?", labels=labels, facts=facts)
    for item in list(told)[:3]:
        print(item.sentence())
    print(f"accuracy on held-out digits: {accuracy:.1%}")
    print(f"page: {page.resolve()}")
