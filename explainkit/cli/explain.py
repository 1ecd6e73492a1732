"""``explainkit explain``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import class_of, image_files, plain


def explain(
    model: Path,
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    target: str | None = None,
    against: str | None = None,
    out: Path = Path("why.html"),
    save: Path | None = None,
    device: str = "cpu",
) -> None:
    """Say why a saved model decides as it does, on one page and in words.

    Parameters
    ----------
    model
        Folder of a saved explainer.
    images
        Image files, and folders of them.
    target
        Class to explain, by name or index; the prediction unless given.
    against
        Explain the margin over this class instead.
    out
        The page.
    save
        Also keep the explanations in this safetensors file.
    device
        cpu, cuda …

    Examples
    --------
    explainkit explain model photo.jpg folder-of-images --out why.html
    """
    import explainkit as ek

    files = image_files(images)
    explainer = ek.load(model, device=device)
    told = explainer.explain(files, class_of(target), against=class_of(against))
    if save is not None:
        told.save(save)
    for file, item in zip(files, told, strict=True):
        print(plain(f"{file}: {item.sentence()}"))
    print(f"page: {ek.report(told, out).resolve()}")
