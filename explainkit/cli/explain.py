"""``explainkit explain``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from explainkit.cli.options import class_of, image_files, plain, settings_of

if TYPE_CHECKING:
    from explainkit.data.images import ImageData


def explain(
    model: Path,
    images: Annotated[list[Path] | None, Parameter(negative="")] = None,
    /,
    *,
    question: Literal["why", "class", "what-if"] = "why",
    target: str | None = None,
    against: str | None = None,
    data: str | None = None,
    data_set: Annotated[list[str] | None, Parameter(name="--data-set", negative="")] = None,
    out: Path = Path("why.html"),
    save: Path | None = None,
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
        why: this decision. class: what the target is to the model, on average over --data; all classes unless
        a target is given. what-if: what would make each image the target, or the runner-up, with regions of
        the training images of --data swapped in.
    target
        Class to explain, by name or index; the prediction unless given.
    against
        Explain the margin over this class instead.
    data
        Name of a data set, for the questions that need one.
    data_set
        One setting of the data set, as name=value; may be given again.
    out
        The page.
    save
        Also keep the explanations in this safetensors file.
    device
        cpu, cuda …

    Examples
    --------
    explainkit explain model photo.jpg folder-of-images --out why.html
    explainkit explain model photo.jpg --question what-if --target robin --data folder --data-set path=birds
    explainkit explain model --question class --target robin --data folder --data-set path=birds
    """
    import explainkit as ek

    explainer = ek.load(model, device=device)
    wanted, known = class_of(target), _data_set(question, data, data_set)
    if question == "class":
        assert known is not None
        classes = explainer.explain_class(known, None if wanted is None else [wanted])
        for item in classes:
            print(plain(item.sentence()))
        print(f"page: {ek.report(classes, out, title='What these classes are').resolve()}")
        return
    if not images:
        raise ek.InputError("Expected image files, or folders of them, to explain; got none.")
    files = image_files(images)
    told: Any
    items: Sequence[Any]
    if question == "what-if":
        told = explainer.counterfactual(files, wanted, bank=known)
        items = list(told)
    else:
        told = explainer.explain(files, wanted, against=class_of(against))
        items = list(told)
        if save is not None:
            told.save(save)
    for file, item in zip(files, items, strict=True):
        print(plain(f"{file}: {item.sentence()}"))
    print(f"page: {ek.report(told, out).resolve()}")


def _data_set(question: str, name: str | None, settings: Sequence[str] | None) -> ImageData | None:
    """The data set that a question needs."""
    import explainkit as ek
    from explainkit.errors import InputError

    if question == "why":
        return None
    if name is None:
        raise InputError(
            f"Expected --data NAME for --question {question}: it looks at the images that the model learned "
            "from, as 'aviary', or 'folder' with --data-set path=…."
        )
    return ek.dataset(name, **settings_of(settings))
