"""What several commands take alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explainkit.errors import InputError

if TYPE_CHECKING:
    import torch

    from explainkit.explainers.interface import Explainer


USUAL = (
    "captum/guided-backprop", "captum/input-x-gradient", "captum/integrated-gradients",
    "captum/layer-grad-cam", "captum/occlusion", "captum/saliency",
)  # fmt: skip
"""The post-hoc methods that are put beside a model unless others are named, where they are installed."""


def options_of(pairs: Sequence[str] | None) -> dict[str, Any]:
    """``["epochs=3", "backbone=tiny"]`` as settings; values are JSON where they can be, words otherwise.

    Raises
    ------
    InputError
        For a pair without an equals sign.
    """
    settings: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"Expected a setting as name=value; got {pair!r}.")
        try:
            settings[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            settings[name.replace("-", "_")] = value
    return settings


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The image files among `paths`, folders searched in order of name.

    Raises
    ------
    InputError
        For a path that is not there, and where no image is found.
    """
    from explainkit.data.reading import list_images

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += list_images(path)
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"Expected an image or a folder; there is none at {str(path)!r}.")
    if not files:
        raise InputError(f"Expected images; found none in {', '.join(map(str, paths))}.")
    return files


def class_of(text: str | None) -> str | int | None:
    """A class as it was typed: a number is an index, unless it is none."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def scores_of(settings: Sequence[str]) -> dict[int | str, float | Literal["off"]]:
    """The scores that units are set to, each as it was typed: a name or a number, and a number or ``off``.

    Raises
    ------
    InputError
        For what has no such form.
    """
    scores: dict[int | str, float | Literal["off"]] = {}
    for setting in settings:
        name, _, text = setting.rpartition("=")
        try:
            scores[int(name) if name.isdigit() else name] = "off" if text == "off" else float(text)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"Expected --set-unit NAME=NUMBER or NAME=off; got {setting!r}.")
    return scores


def shard_of(text: str) -> tuple[int, int]:
    """Which of how many processes, as it was typed: ``"0/4"``.

    Raises
    ------
    InputError
        For what has no such form.
    """
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise InputError(f"Expected --shard as which of how many, as 0/4 to 3/4; got {text!r}.")
    return int(index), int(count)


def plain(text: str) -> str:
    """Text from plugins and data for the terminal: characters that would steer it are spelled out."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lambda match: repr(match[0])[1:-1], text)


@contextmanager
def writing_picture(path: Path) -> Iterator[None]:
    """A folder for the picture at `path`, which is written within; what fails then names the path.

    Raises
    ------
    InputError
        For a path that cannot be written, and a kind of picture that is unknown.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected a picture's path that can be written; got {str(path)!r}: {error}"
        ) from None


def load_explainer(folder: Path, network: Path | Explainer | None, device: torch.device | str) -> Explainer:
    """The saved explainer in `folder`; a method that learned about a network needs that beside it."""
    import explainkit as ek
    from explainkit.explanations.serialization import read_json

    is_bound = bool(read_json(folder / "explainer.json").get("bound"))
    if isinstance(network, Path) and not is_bound:
        raise InputError(f"Expected no --network: {str(folder)!r} has a network of its own.")
    if network is None or not is_bound:
        return ek.load(folder, device=device)
    explained = ek.load(network, device=device) if isinstance(network, Path) else network
    return ek.load(folder, device=device, network=explained.network)


def post_hoc(model: Explainer, names: Sequence[str] | None) -> list[Explainer]:
    """The explainers to put beside `model`: by name, made from its network; or saved in folders of their own.

    ``None``: the `USUAL` ones.
    """
    import explainkit as ek
    from explainkit.registry import offers

    if names is None:
        names = [name for name in USUAL if name in offers("explainers")]
    return [
        load_explainer(Path(name), model, model.device)
        if (Path(name) / "explainer.json").is_file()
        else ek.explainer(name, network=model.network, classes=model.classes)
        for name in names
    ]
