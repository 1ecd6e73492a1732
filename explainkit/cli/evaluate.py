"""``explainkit evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from explainkit.cli.options import options_of, post_hoc, writing_picture

if TYPE_CHECKING:
    from explainkit.metrics import FunnyBirdsTables, MetricTable


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
    own_against_posthoc: Annotated[bool, Parameter(negative="")] = False,
    methods: Annotated[list[str] | None, Parameter(negative="")] = None,
    out: Path | None = None,
    funnybirds: Annotated[bool, Parameter(negative="")] = False,
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
    own_against_posthoc
        Compare the model's own explanation with post-hoc methods on its network instead.
    methods
        Of that comparison, by name, or all; the usual ones unless given.
    out
        Also draw that comparison to this file, such as own.png or own.svg.
    funnybirds
        Measure by FunnyBirds' scores instead, on data such as aviary with the option preset=funny.
    json
        Also write all numbers to this file.
    device
        cpu, cuda …

    Examples
    --------
    explainkit evaluate model --dataset aviary --images 200 --with captum/integrated-gradients

    explainkit evaluate model --own-against-posthoc --methods captum/occlusion --out own.png

    explainkit evaluate model --dataset-option preset=funny --dataset-option classes=50 --funnybirds
    """
    import explainkit as ek
    from explainkit.errors import InputError
    from explainkit.explanations.serialization import write
    from explainkit.metrics.posthoc_comparison import PostHocComparison

    if images < 1:
        raise InputError(f"Expected at least one image to measure on; got {images}.")
    if own_against_posthoc and funnybirds:
        raise InputError("Expected one of --own-against-posthoc and --funnybirds.")
    _check_settings(own_against_posthoc, methods, others, out)

    explainer = ek.load(model, device=device)
    image_dataset = ek.dataset(dataset, **options_of(dataset_option))
    for split, scores in explainer.evaluate(
        image_dataset, [s for s in image_dataset.splits if s != "train"]
    ).items():
        precision = scores.get("mean_average_precision")
        more = "" if precision is None else f", mean average precision {precision:.1%}"
        print(f"{split}: accuracy {scores['accuracy']:.1%}{more}, cross-entropy {scores['loss']:.3f}")
    result: PostHocComparison | MetricTable | FunnyBirdsTables
    if own_against_posthoc:
        result = ek.compare_with_posthoc(
            explainer, image_dataset, methods="all" if methods == ["all"] else methods, images=images,
            seed=seed,
        )  # fmt: skip
        print(result.tables())
    else:
        measure = ek.evaluate_funnybirds if funnybirds else ek.evaluate_explanations
        result = measure(
            [explainer, *post_hoc(explainer, others or [])], image_dataset, images=images, seed=seed
        )
        print(result.table())
    if curve:
        print(ek.unit_curve(explainer, image_dataset, images=images, seed=seed).table())
    if json is not None:
        write(json, result.to_json().encode())
    if out is not None and isinstance(result, PostHocComparison):
        with writing_picture(out):
            result.figure().savefig(out, dpi=150)
        print(f"picture: {out.resolve()}")


def _check_settings(
    own_against_posthoc: bool, methods: list[str] | None, others: list[str] | None, out: Path | None
) -> None:
    """Refuse settings that do not go together, before what takes minutes."""
    from matplotlib.figure import Figure

    from explainkit.errors import InputError
    from explainkit.registry import offer

    for name in methods or ():
        if name != "all":
            offer("explainers", name)  # refuses a name that is not there
    if not own_against_posthoc and (methods or out):
        raise InputError("Expected --methods and --out only with --own-against-posthoc.")
    if own_against_posthoc and others:
        raise InputError("Expected --methods in place of --with beside --own-against-posthoc.")
    kinds = Figure().canvas.get_supported_filetypes()
    if out is not None and out.suffix.removeprefix(".").lower() not in kinds:
        raise InputError(f"Expected --out as a picture, one of .{', .'.join(kinds)}; got {str(out)!r}.")
