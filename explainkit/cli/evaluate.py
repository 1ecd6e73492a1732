"""``explainkit evaluate``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import options_of, post_hoc


def evaluate(
    model: Path,
    /,
    *,
    dataset: str = "aviary",
    dataset_option: Annotated[list[str] | None, Parameter(name="--dataset-option", negative="")] = None,
    others: Annotated[list[str] | None, Parameter(name="--with", negative="")] = None,
    images: int = 50,
    seed: int = 0,
    curve: Annotated[bool, Parameter(negative="")] = False,
    json: Path | None = None,
    device: str = "cpu",
) -> None:
    """Print a saved model's accuracy, and evaluate its explanations beside trivial ones.

    Parameters
    ----------
    model
        Folder of a saved explainer.
    dataset
        Name of a data set.
    dataset_option
        One setting of the data set, as name=value; may be given again.
    others
        Explainers to measure beside it, such as captum/occlusion; none unless given.
    images
        How many images the explanations are measured on.
    seed
        Of the random rows, of ties and of the intervals.
    curve
        Also print the accuracy as units are switched off one after the other.
    json
        Also write all numbers to this file.
    device
        cpu, cuda …

    Examples
    --------
    explainkit evaluate model --dataset aviary --images 200 --with captum/integrated-gradients
    """
    import explainkit as ek
    from explainkit.errors import InputError
    from explainkit.explanations.serialization import write
    from explainkit.metrics import evaluate_explanations

    if images < 1:
        raise InputError(f"Expected at least one image to measure on; got {images}.")

    explainer = ek.load(model, device=device)
    image_dataset = ek.dataset(dataset, **options_of(dataset_option))
    for split, scores in explainer.evaluate(
        image_dataset, [s for s in image_dataset.splits if s != "train"]
    ).items():
        precision = scores.get("mean_average_precision")
        more = "" if precision is None else f", mean average precision {precision:.1%}"
        print(f"{split}: accuracy {scores['accuracy']:.1%}{more}, cross-entropy {scores['loss']:.3f}")
    table = evaluate_explanations(
        [explainer, *post_hoc(explainer, others or [])], image_dataset, images=images, seed=seed
    )
    print(table.table())
    if curve:
        print(ek.unit_curve(explainer, image_dataset, images=images, seed=seed).table())
    if json is not None:
        write(json, table.to_json().encode())
