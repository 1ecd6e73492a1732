"""``explainkit compare``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import class_of, image_files, options_of, post_hoc


def compare(
    model: Path,
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    others: Annotated[list[str] | None, Parameter(name="--with", negative="")] = None,
    target: str | None = None,
    foil: str | None = None,
    dataset: str | None = None,
    dataset_option: Annotated[list[str] | None, Parameter(name="--dataset-option", negative="")] = None,
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
    foil
        Explain the margin over this class instead.
    dataset
        Name of the data set that the model learned from: the page then also has class explanations and
        counterfactuals.
    dataset_option
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
    from explainkit.explanations.serialization import write

    first = ek.load(model, device=device)
    files = image_files(images)
    comparison = ek.compare(
        [first, *post_hoc(first, others)], first.read_images(files), class_of(target), foils=class_of(foil),
        distractors=None if dataset is None else ek.dataset(dataset, **options_of(dataset_option)),
    )  # fmt: skip
    print(comparison.table())
    if json is not None:
        write(json, comparison.to_json().encode())
    print(f"page: {comparison.save(out).resolve()}")
