"""``explainkit compare``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import class_of, image_files, post_hoc, settings_of


def compare(
    model: Path,
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    others: Annotated[list[str] | None, Parameter(name="--with", negative="")] = None,
    target: str | None = None,
    against: str | None = None,
    data: str | None = None,
    data_set: Annotated[list[str] | None, Parameter(name="--data-set", negative="")] = None,
    out: Path = Path("compare.html"),
    json: Path | None = None,
    device: str = "cpu",
) -> None:
    """Put a saved model's own explanations beside post-hoc ones, on one page with a table.

    Parameters
    ----------
    model
        Folder of a saved explainer.
    images
        Image files, and folders of them.
    others
        Explainers to put beside it, six usual ones of captum/… unless given; a folder is another saved model.
    target
        Class to explain, by name or index; the model's prediction unless given.
    against
        Explain the margin over this class instead.
    data
        Name of the data set that the model learned from: the page then tells too what the classes are to it,
        and what would change its mind.
    data_set
        One setting of the data set, as name=value; may be given again.
    out
        The page.
    json
        Also write all numbers to this file.
    device
        cpu, cuda …

    Examples
    --------
    explainkit compare model photo.jpg --with captum/occlusion --with captum/saliency --out compare.html
    """
    import explainkit as ek
    from explainkit.files import write

    first = ek.load(model, device=device)
    files = image_files(images)
    told = ek.compare(
        [first, *post_hoc(first, others)], first.read(files), class_of(target), against=class_of(against),
        bank=None if data is None else ek.dataset(data, **settings_of(data_set)),
    )  # fmt: skip
    print(told.table())
    if json is not None:
        write(json, told.to_json().encode())
    print(f"page: {told.save(out).resolve()}")
