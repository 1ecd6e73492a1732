"""``explainkit evaluate``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import post_hoc, settings_of


def evaluate(
    model: Path,
    /,
    *,
    data: str = "aviary",
    data_set: Annotated[list[str] | None, Parameter(name="--data-set", negative="")] = None,
    others: Annotated[list[str] | None, Parameter(name="--with", negative="")] = None,
    images: int = 50,
    seed: int = 0,
    json: Path | None = None,
    device: str = "cpu",
) -> None:
    """Tell a saved model's accuracy, and measure its explanations beside trivial ones.

    Parameters
    ----------
    model
        Folder of a saved explainer.
    data
        Name of a data set.
    data_set
        One setting of the data set, as name=value; may be given again.
    others
        Explainers to measure beside it, such as captum/occlusion; none unless given.
    images
        How many images the explanations are measured on.
    seed
        Of the random rows, of ties and of the intervals.
    json
        Also write all numbers to this file.
    device
        cpu, cuda …

    Examples
    --------
    explainkit evaluate model --data aviary --images 200 --with captum/integrated-gradients
    """
    import explainkit as ek
    from explainkit.errors import InputError
    from explainkit.files import write
    from explainkit.metrics import measure

    if images < 1:
        raise InputError(f"Expected at least one image to measure on; got {images}.")

    explainer = ek.load(model, device=device)
    known = ek.dataset(data, **settings_of(data_set))
    for split, scores in explainer.evaluate(known, [s for s in known.splits if s != "train"]).items():
        print(f"{split}: accuracy {scores['accuracy']:.1%}, cross-entropy {scores['loss']:.3f}")
    table = measure([explainer, *post_hoc(explainer, others or [])], known, images=images, seed=seed)
    print(table.table())
    if json is not None:
        write(json, table.to_json().encode())
