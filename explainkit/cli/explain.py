"""``explainkit explain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from explainkit.cli.options import (
    class_of,
    image_files,
    load_explainer,
    options_of,
    plain,
    scores_of,
    shard_of,
)

if TYPE_CHECKING:
    from explainkit.data.types import ImageDataset
    from explainkit.pipeline import ExplanationDataset


def explain(
    model: Path,
    images: Annotated[list[Path] | None, Parameter(negative="")] = None,
    /,
    *,
    question: Literal["image", "class", "counterfactual"] = "image",
    target: str | None = None,
    foil: str | None = None,
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    network: Path | None = None,
    set_unit: Annotated[list[str] | None, Parameter(name="--set-unit", negative="")] = None,
    dataset: str | None = None,
    dataset_option: Annotated[list[str] | None, Parameter(name="--dataset-option", negative="")] = None,
    out: Path = Path("why.html"),
    save: Path | None = None,
    out_dataset: Path | None = None,
    top: int = 10,
    sentences: bool = False,
    records: bool = False,
    batch_size: int = 64,
    workers: int = 0,
    shard: str = "0/1",
    device: str = "cpu",
) -> None:
    """Say why a saved model decides as it does, what a class is to it, or what would change its mind.

    On one page, and in words.

    Parameters
    ----------
    model
        Folder of a saved explainer.
    images
        Image files, and folders of them; none for --question class.
    question
        image: why the model decides as it does. class: what the target is to the model, on average over
        --dataset; all classes unless a target is given. counterfactual: what would make each image the
        target, or the runner-up, with regions of the training images of --dataset swapped in.
    target
        Class to explain, by name or index; the prediction, or each label that holds, unless given.
    foil
        Explain the margin over this class instead.
    method
        How to find what would change a decision, as score-edit or region-swap; may be given again. All that
        the model has unless given.
    network
        Folder of the saved explainer whose network a post-hoc method has learned about.
    set_unit
        Set the score of a unit by hand, as NAME=VALUE or NAME=off; may be given again. What is said is then
        what the model would say.
    dataset
        Name of a data set, for the questions that need one.
    dataset_option
        One setting of the data set, as name=value; may be given again.
    out
        The page.
    save
        Also keep the explanations in this safetensors file.
    out_dataset
        Write no page, but Parquet files to this folder, for any number of images: of files, a folder, Parquet
        with image bytes, or the test images of --dataset. A run that was cut off goes on where it was.
    top
        With --out-dataset: how many units of each image are kept; the others are summed.
    sentences
        With --out-dataset: keep sentences too.
    records
        With --out-dataset: keep a JSON line for each decision beside, which explainkit verify checks.
    batch_size
        With --out-dataset: how many images are explained at once.
    workers
        With --out-dataset: processes that decode images.
    shard
        With --out-dataset: which of how many processes this one is, as 0/4 to 3/4.
    device
        cpu, cuda …

    Examples
    --------
    explainkit explain model photo.jpg folder-of-images --out why.html
    explainkit explain model photo.jpg --question counterfactual --dataset folder --dataset-option path=birds
    explainkit explain model --question class --target robin --dataset folder --dataset-option path=birds
    explainkit explain model folder-of-images --out-dataset explanations --workers 4
    """
    import explainkit as ek

    explainer = load_explainer(model, network, device)
    if out_dataset is not None:
        if question != "image" or method or set_unit or save is not None:
            raise ek.InputError(
                "Expected --out-dataset for why the model decides as it does, without --question, --method, "
                "--set-unit and --save."
            )
        source = _source(images, dataset, dataset_option)
        explained = ek.explain_dataset(
            explainer, source, out_dataset, targets=class_of(target), foils=class_of(foil), top=top,
            sentences=sentences, records=records, batch_size=batch_size,
            workers=workers, shard=shard_of(shard),
        )  # fmt: skip
        _summarize(explained)
        return
    is_needed = question == "class" or (question == "counterfactual" and not method)
    chosen, image_dataset = class_of(target), _question_dataset(question, dataset, dataset_option, is_needed)
    if question == "class":
        assert image_dataset is not None
        class_explanations = explainer.explain_class(image_dataset, None if chosen is None else [chosen])
        for item in class_explanations:
            print(plain(item.sentence()))
        print(f"page: {ek.report(class_explanations, out, title='What these classes are').resolve()}")
        return
    if not images:
        raise ek.InputError("Expected image files, or folders of them, to explain; got none.")
    files = image_files(images)
    explanations: Any
    if question == "counterfactual":
        explanations = explainer.counterfactual(files, chosen, method, distractors=image_dataset)
    else:
        explanations = explainer.explain(files, chosen, foils=class_of(foil))
        if set_unit:
            explanations = explanations.intervene(scores_of(set_unit))
        if save is not None:
            explanations.save(save)
    image_index = getattr(explanations, "image_index", None)
    if image_index is not None:
        files = [files[index] for index in image_index.tolist()]
    for file, item in zip(files, explanations, strict=True):
        print(plain(f"{file}: {item.sentence()}"))
    print(f"page: {ek.report(explanations, out).resolve()}")


def _source(images: list[Path] | None, dataset: str | None, settings: Sequence[str] | None) -> Any:
    """What --out-dataset explains: one path as it is, several as files, or a data set's test images."""
    import explainkit as ek

    if dataset is not None and not images:
        return ek.dataset(dataset, **options_of(settings))
    if not images or dataset is not None:
        raise ek.InputError(
            "Expected images to explain, or --dataset NAME; got " + ("both." if images else "none.")
        )
    if len(images) == 1:
        return images[0]
    return images if all(path.suffix.lower() == ".parquet" for path in images) else image_files(images)


def _summarize(explained: ExplanationDataset) -> None:
    """What the folder holds, and how it goes on where it is not complete."""
    from explainkit.explanations.sentences import counted

    failed = len(explained.filter(_failed()))
    print(f"{len(explained):,} rows in {explained.folder.resolve()}")
    if failed:
        print(f"{counted(failed, 'image')} could not be explained; the column error says why")
    if not explained.is_complete:
        print(f"{counted(len(explained.missing), 'file')} still to be written, by other shards")


def _failed() -> Any:
    """The rows with an error."""
    import pyarrow.compute as compute

    return compute.field("error").is_valid()


def _question_dataset(
    question: str, name: str | None, settings: Sequence[str] | None, is_needed: bool
) -> ImageDataset | None:
    """The data set that a question looks at; methods that are named say themselves whether they need it."""
    import explainkit as ek
    from explainkit.errors import InputError

    if question == "image" or (name is None and not is_needed):
        return None
    if name is None:
        raise InputError(
            f"Expected --dataset NAME for --question {question}: it looks at the images that the model "
            "learned from, as 'aviary', or 'folder' with --dataset-option path=…."
        )
    return ek.dataset(name, **options_of(settings))
