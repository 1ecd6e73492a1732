"""``explainkit preview``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import settings_of


def preview(
    data: str,
    /,
    *,
    out: Path = Path("sheet.png"),
    data_set: Annotated[list[str] | None, Parameter(name="--data-set", negative="")] = None,
) -> None:
    """Draw a sheet of a data set: its classes; for aviary its masks, interventions and captions too.

    Parameters
    ----------
    data
        Name of a data set.
    out
        The picture.
    data_set
        One setting of the data set, as name=value; may be given again.

    Examples
    --------
    explainkit preview aviary --data-set size=160 --out sheet.png
    """
    import explainkit as ek
    from explainkit.data.aviary.dataset import Aviary
    from explainkit.data.aviary.preview import contact_sheet
    from explainkit.errors import InputError
    from explainkit.rendering.figures import class_sheet

    known = ek.dataset(data, **settings_of(data_set))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(known, Aviary):
            contact_sheet(known).save(out)
        else:
            class_sheet(known).savefig(out)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected a picture's path that can be written; got {str(out)!r}: {error}"
        ) from None
    print(f"picture: {out.resolve()}")
