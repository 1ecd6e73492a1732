"""Reads what `explainkit.save` wrote: a folder of facts and tensors, and the backbone within."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from explainkit.errors import FormatError, InputError
from explainkit.explanations.serialization import check_schema, read, read_json, unpack

FACTS, TENSORS = "explainer.json", "network.safetensors"
"""The two files of a saved explainer."""

BACKBONE = "network.backbone."
"""Before the names of the tensors of its feature extractor."""


def read_saved(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of the explainer saved in `folder`, as they were written.

    Raises
    ------
    FormatError
        For a folder that is damaged, foreign, or of another schema version.
    """
    facts = read_json(folder / FACTS)
    check_schema(facts, "explainkit.explainer", folder)
    path = folder / TENSORS
    content = read(path)
    if hashlib.sha256(content).hexdigest() != facts.get("digest"):
        raise FormatError(f"{str(path)!r} is not what was saved: its SHA-256 differs from the one on record.")
    return facts, unpack(content, path)[0]


def is_saved(folder: object) -> bool:
    """Whether there is a saved explainer at `folder`."""
    return isinstance(folder, str | Path) and (Path(folder) / FACTS).is_file()


def load_saved_backbone(backbone: nn.Module, folder: str | Path, name: str) -> None:
    """Give `backbone` the weights that the feature extractor of a saved explainer has.

    Parameters
    ----------
    name : str
        Of the backbone: there are those of the same shapes that are others, by their strides.

    Raises
    ------
    FormatError
        As `read_saved`.
    InputError
        Where the explainer has no single feature extractor, or one of another form.
    """
    facts, tensors = read_saved(Path(folder))
    state = {
        name.removeprefix(BACKBONE): value for name, value in tensors.items() if name.startswith(BACKBONE)
    }
    if not state:
        raise InputError(
            f"Expected a saved explainer with one backbone; {facts['explainer']!r} in {str(folder)!r} has "
            "none."
        )
    settings = facts.get("settings") or {}
    if settings.get("backbone", name) != name or shapes(state) != shapes(backbone.state_dict()):
        raise InputError(
            f"Expected a backbone of the form that {str(folder)!r} has, {settings.get('backbone')!r} with "
            f"{settings.get('backbone_settings') or 'its defaults'}; got one of another form."
        )
    backbone.load_state_dict(state)


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of `state`, by name."""
    return {name: tuple(value.shape) for name, value in state.items()}
