"""``explainkit preview``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import options_of, writing_picture


def preview(
    dataset: str,
    /,
    *,
    out: Path = Path("sheet.png"),
    dataset_option: Annotated[list[str] | None, Parameter(name="--dataset-option", negative="")] = None,
) -> None:
    """Draw a sheet of a data set: its own contact sheet, as aviary has one, or images of its classes.

    Parameters
    ----------
    dataset
        Name of a data set.
    out
        The picture.
    dataset_option
        One setting of the data set, as name=value; may be given again.

    Examples
    --------
    explainkit preview aviary --dataset-option size=160 --out sheet.png
    """
    import explainkit as ek
    from explainkit.rendering.figures import class_sheet

    image_dataset = ek.dataset(dataset, **options_of(dataset_option))
    with writing_picture(out):
        contact_sheet = getattr(image_dataset, "contact_sheet", None)  # the data set's own, a PIL image
        if contact_sheet is None:
            class_sheet(image_dataset).savefig(out)
        else:
            contact_sheet().save(out)
    print(f"picture: {out.resolve()}")
