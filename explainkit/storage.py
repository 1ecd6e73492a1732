"""Files: safetensors and canonical JSON, whole or not at all; no pickle, no import of a name in a file.

A saved explainer is a folder of ``explainer.json`` (what it is) and ``network.safetensors`` (what it
learned). Saved explanations are one safetensors file with one metadata key.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from attrs import asdict, evolve
from torch import Tensor, nn

from explainkit.allowance import Allowance
from explainkit.catalogue import explainer as explainer_by_name
from explainkit.data.reading import LARGEST_SIDE
from explainkit.decomposition import Decomposition, Weigh, pour_total
from explainkit.errors import FormatError, InputError, NotFittedError
from explainkit.explanation import Exemplar, Explanations, Provenance, Units
from explainkit.files import (
    SCHEMA,
    canonical,
    check_schema,
    in_brief,
    new_folder,
    pack,
    read,
    read_json,
    understood,
    unpack,
    write,
)
from explainkit.interfaces import Explainer, InterpretableExplainer, name_of, tensors_digest
from explainkit.rules import check_finite, check_floats, check_shape

LARGEST_WEIGHTS = 4_000_000
"""Weights that differ by image are kept for all classes up to so many; beyond, a file has no contrasts."""

LARGEST_WORK, WORK = 2**24, 16
"""Numbers that it may take to show what a file holds: so many, and so many for each of its bytes."""

EXPLAINER: Mapping[str, type | UnionType] = {
    "explainer": str, "settings": dict, "classes": list, "size": list | None, "seed": int | None,
    "bound": bool, "units": dict,
}  # fmt: skip
EXPLANATIONS: Mapping[str, type | UnionType] = {
    "classes": list, "claim": str, "units": dict, "provenance": dict,
}  # fmt: skip
PROVENANCE: Mapping[str, type | UnionType] = {
    "explainer": str, "created": str, "versions": dict, "settings": dict, "seed": int | None, "device": str,
    "dtype": str, "threads": int, "digest": str,
}  # fmt: skip
UNITS: Mapping[str, type | UnionType] = {
    "kind": str, "names": list, "pooling": str, "phrases": list | None, "exemplars": list | None,
}  # fmt: skip
EXEMPLAR = ("id", "split", "label", "cell", "box")


def save(explainer: Explainer, folder: str | Path) -> Path:
    """Write a fitted explainer to `folder`, whole or not at all, and return it.

    An explainer of this kind that is there already is replaced; any other folder that is not empty is left
    alone.

    Raises
    ------
    InputError
        For a post-hoc explainer, which has learned nothing, and for a folder that cannot be written.
    NotFittedError
        Before `fit`.
    """
    if not isinstance(explainer, InterpretableExplainer):
        raise InputError(f"{explainer.card.title} has learned nothing: save its network, and bind it again.")
    folder = check_folder(folder)
    network, units = explainer.network, explainer.units
    if units is None:
        raise NotFittedError(f"{explainer.card.title} has no units yet: call fit(data).")
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    about, extra = _units_to_json(units)
    weights = pack(tensors | extra, {})
    name = name_of(type(explainer))
    facts = {
        "schema": f"explainkit.explainer/{SCHEMA}",
        "explainer": name,
        "settings": explainer.settings(),
        "classes": explainer.classes,
        "size": explainer.size,
        "seed": explainer._seed,
        "bound": explainer.bound,
        "units": about,
        "versions": explainer.provenance().versions,
        "history": [asdict(epoch) for epoch in explainer.history],
        "digest": hashlib.sha256(weights).hexdigest(),
    }
    with new_folder(folder) as half:
        (half / "network.safetensors").write_bytes(weights)
        (half / "explainer.json").write_text(canonical(facts, indent=1), encoding="utf-8")
    return folder


def check_folder(folder: str | Path) -> Path:
    """`folder`, once it is found to be one that `save` may fill: new, empty, or a saved explainer.

    Raises
    ------
    InputError
        For a folder of something else; for an explainer to be saved, that is better known before training.
    """
    folder = Path(folder)
    if (
        folder.exists()
        and not (folder / "explainer.json").is_file()
        and (folder.is_file() or any(folder.iterdir()))
    ):
        raise InputError(
            f"Expected an empty or new folder, or a saved explainer; {str(folder)!r} is something else."
        )
    return folder


def load(
    folder: str | Path, *, device: torch.device | str = "cpu", network: nn.Module | None = None
) -> InterpretableExplainer[Any]:
    """The explainer that `save` wrote to `folder`, on `device`.

    Parameters
    ----------
    network : nn.Module or None
        For an explainer that was bound to somebody's network: a network of the same form, to take the
        weights.

    Raises
    ------
    FormatError
        For a folder that is damaged, foreign, or of another schema version.
    UnknownNameError
        Where no installed plugin offers the explainer's name.
    """
    folder = Path(folder)
    facts = read_json(folder / "explainer.json")
    check_schema(facts, "explainkit.explainer", folder)
    path = folder / "network.safetensors"
    weights = read(path)
    if hashlib.sha256(weights).hexdigest() != facts.get("digest"):
        raise FormatError(f"{str(path)!r} is not what was saved: its SHA-256 differs from the one on record.")
    tensors, _ = unpack(weights, path)
    with understood(f"{str(folder / 'explainer.json')!r} lacks what a saved explainer has"):
        _check_kinds(facts, EXPLAINER)
        _check_explainer(facts)
        units = _units_from_json(facts["units"], tensors)
    if facts["bound"] and network is None:
        raise InputError(
            f"{str(folder)!r} holds an explainer bound to somebody's network: give one of the same form, "
            "load(folder, network=…)."
        )
    told = f"{str(folder)!r} does not fit the network of {facts['explainer']!r}"
    with understood(told):
        explainer = _restored(facts, tensors, units, network, Allowance(len(weights)))
    explainer._seed = facts.get("seed")
    explainer.network.eval()
    return explainer.to(device)


def _restored(
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    units: Units,
    network: nn.Module | None,
    allowance: Allowance,
) -> InterpretableExplainer[Any]:
    """The explainer that `facts` describe, built anew within `allowance`, or bound to `network`."""
    name, settings, classes = facts["explainer"], _tuples(facts["settings"]), facts["classes"]
    size = facts["size"] and tuple(facts["size"])
    state = {
        key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")
    }
    explainer: Explainer = explainer_by_name(name, **settings)  # refuses what only bind takes, such as a size
    if network is not None:
        explainer = explainer_by_name(name, network=network, classes=classes, **settings)
    if not isinstance(explainer, InterpretableExplainer):
        raise FormatError(f"expected an explainer that learns; got {name!r}")
    with allowance:
        if network is None:
            return explainer.restore(state, classes, size, units)
        explainer.network.load_state_dict(state)
    explainer.units, explainer.size = units, size
    return explainer


def save_explanations(told: Explanations, path: Path, maps: int | None, dtype: torch.dtype) -> Path:
    """`Explanations.save`."""
    if maps is not None and told.maps is not None and told.map_units is None and maps < told.maps.shape[1]:
        told = _strongest_maps(told, maps)
    about, tensors = _units_to_json(told.units)
    for name in ("logits", "targets", "base", "scores", "weights", "boxes", "against", "map_units", "rest"):
        if isinstance(value := getattr(told, name), Tensor):
            tensors[name] = value
    if told.maps is not None:
        tensors |= _narrowed(told.maps, dtype)
    tensors |= {f"note.{name}": value for name, value in told.notes.items()}
    tensors["images"] = _as_bytes(told.images)
    parts = told.decomposition
    if parts is not None and (weights := _all_weights(told, parts)) is not None:
        tensors |= {"decomposition.weights": weights, "decomposition.bias": parts.bias}
    origin = asdict(told.provenance) | {"digest": told.provenance.model_digest}
    facts = {
        "schema": f"explainkit.explanations/{SCHEMA}",
        "classes": told.classes,
        "claim": told.claim,
        "units": about,
        "provenance": origin,
    }
    facts["digest"] = _digest(facts, tensors)
    write(path, pack(tensors, facts))
    return path


def load_explanations(path: Path) -> Explanations:
    """`Explanations.load`."""
    content = read(path)
    tensors, facts = unpack(content, path)
    check_schema(facts, "explainkit.explanations", path)
    if facts.pop("digest", None) != _digest(facts, tensors):
        raise FormatError(f"{str(path)!r} is not what was saved: its SHA-256 differs from the one on record.")
    with understood(f"{str(path)!r} breaks a rule of explanations"):
        told = _explanations(tensors, facts)
        _check_answers(told, len(content))
    return told


def _explanations(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Explanations:
    """What the parts of a file say."""
    _check_kinds(facts, EXPLANATIONS)
    _check_kinds(facts["provenance"], PROVENANCE)
    origin = {name: facts["provenance"][name] for name in PROVENANCE}
    digest = origin.pop("digest")
    logits = tensors["logits"]
    optional = ("boxes", "against", "map_units", "rest")
    return Explanations(
        logits=logits, targets=tensors["targets"], base=tensors["base"], scores=tensors["scores"],
        weights=tensors["weights"], images=_from_bytes(tensors["images"], logits.dtype),
        classes=_words(facts["classes"]), claim=facts["claim"],
        units=_units_from_json(facts["units"], tensors), decomposition=_decomposition(tensors),
        maps=_widened(tensors, logits.dtype),
        provenance=Provenance(**origin, digest=lambda: digest),
        notes={
            name.removeprefix("note."): value for name, value in tensors.items() if name.startswith("note.")
        },
        **{name: tensors.get(name) for name in optional},
    )  # fmt: skip


def _decomposition(tensors: Mapping[str, Tensor]) -> Decomposition | None:
    """All classes, where the file has them."""
    if "decomposition.weights" not in tensors:
        return None
    logits, scores = tensors["logits"], tensors["scores"]
    weights, bias = tensors["decomposition.weights"], tensors["decomposition.bias"]
    every = (*logits.shape, *scores.shape[1:])
    check_shape("decomposition.weights", weights, every if weights.ndim == 3 else every[1:])
    check_shape("decomposition.bias", bias, tuple(logits.shape if bias.ndim == 2 else logits.shape[1:]))
    columns = {"decomposition.weights": weights, "decomposition.bias": bias}
    check_floats(columns)
    check_finite(columns)
    return Decomposition(
        logits=logits, bias=bias, scores=scores, weights=_weigh(weights), boxes=tensors.get("boxes")
    )


def _check_answers(told: Explanations, size: int) -> None:
    """Refuse numbers that overflow when added, and maps that take far more than `size` bytes to be shown.

    Saliency holds a map of the image for each group, and spreads cells over pixels along each side.
    """
    check_finite({"images": told.images, "contributions": told.contributions, "residual": told.residual})
    groups = 0 if told.boxes is None else told.boxes.shape[1]
    if told.of_rows:
        return
    height, width = told.images.shape[2:]
    work = len(told) * groups * (len(told.units) + height * width)
    for grid in (told.maps, told.rest):
        if grid is not None:
            work += grid.shape[-2] * height + grid.shape[-1] * width
    if work > LARGEST_WORK + WORK * size:
        raise InputError(f"expected maps that can be shown; these of {size:,} bytes would take {work:,}")


def _strongest_maps(told: Explanations, count: int) -> Explanations:
    """The same with the maps of the `count` strongest units of each image; the others poured into `rest`."""
    maps = told.maps
    if maps is None:
        return told
    chosen = told.top(count).unit
    index = chosen[:, :, None, None].expand(-1, -1, *maps.shape[2:])
    kept = torch.zeros_like(told.contributions, dtype=torch.bool).scatter(1, chosen, True)
    others = told.contributions.masked_fill(kept, 0)
    if told.boxes is None:
        rest = pour_total(others, maps, told.units.pooling)
    else:  # what lies in boxes is poured over the image, a pixel a cell
        rest = told.saliency() - evolve(told, maps=maps.gather(1, index), map_units=chosen).saliency()
    return evolve(told, maps=maps.gather(1, index), map_units=chosen, rest=rest)


def _all_weights(told: Explanations, parts: Decomposition) -> Tensor | None:
    """Of all classes: (C, K) where constant, (N, C, K) where that is not too large; what contrasts need."""
    if isinstance(parts.weights, Tensor):
        return parts.weights
    (images, classes), units = told.logits.shape, len(told.units)
    if images * classes * units > LARGEST_WEIGHTS:
        return None
    rows = torch.arange(images, device=told.logits.device).repeat_interleave(classes)
    targets = torch.arange(classes, device=told.logits.device).repeat(images)
    return parts.weights(rows, targets).view(images, classes, units)


def _weigh(weights: Tensor) -> Tensor | Weigh:
    return weights if weights.ndim == 2 else lambda rows, targets: weights[rows, targets]


def _narrowed(maps: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Maps in `dtype`, each as shares of its peak, so that its range is no matter."""
    if dtype == maps.dtype:
        return {"maps": maps}
    peak = maps.flatten(2).amax(2)
    scale = peak.where(peak > 0, torch.ones_like(peak))[:, :, None, None]
    flat = (maps / scale).to(dtype).flatten(2)
    best = maps.flatten(2).argmax(2, keepdim=True)  # stays the one best cell, though others round up to it
    flat = flat.clamp(max=1 - torch.finfo(dtype).eps / 2).scatter(2, best, flat.gather(2, best))
    return {"maps": flat.view_as(maps), "maps.peak": peak}


def _widened(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor | None:
    if "maps" not in tensors or "maps.peak" not in tensors:
        return tensors.get("maps")
    maps, peak = tensors["maps"], tensors["maps.peak"]
    check_shape("maps.peak", peak, tuple(maps.shape[:2]))
    check_floats({"maps": maps, "maps.peak": peak})
    return maps.to(dtype) * peak.to(dtype)[:, :, None, None]


def _as_bytes(images: Tensor) -> Tensor:
    """Images that came from bytes as bytes again, others as they are: either way without loss."""
    levels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return levels if torch.equal(levels.to(images.dtype) / 255, images) else images


def _from_bytes(images: Tensor, dtype: torch.dtype) -> Tensor:
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images


def _units_to_json(units: Units) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A vocabulary as JSON, and its tensors."""
    tensors: dict[str, Tensor] = {}
    for name in ("group", "reference", "range", "phrase_scores"):
        if isinstance(value := getattr(units, name), Tensor):
            tensors[f"units.{name}"] = value
    exemplars = None
    if units.exemplars is not None:
        exemplars = []
        for k, found in enumerate(units.exemplars):
            exemplars.append([asdict(item, filter=lambda field, _: field.name != "image") for item in found])
            for i, item in enumerate(found):
                if item.image is not None:
                    tensors[f"units.exemplar.{k}.{i}"] = item.image
    return {
        "kind": units.kind, "names": units.names, "pooling": units.pooling, "phrases": units.phrases,
        "exemplars": exemplars,
    }, tensors  # fmt: skip


def _units_from_json(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Units:
    _check_kinds(facts, UNITS)
    phrases, exemplars = facts["phrases"], None
    if facts["exemplars"] is not None:
        exemplars = tuple(
            tuple(
                Exemplar(
                    **{name: _tuples(item)[name] for name in EXEMPLAR},
                    image=tensors.get(f"units.exemplar.{k}.{i}"),
                )
                for i, item in enumerate(found)
            )
            for k, found in enumerate(facts["exemplars"])
        )
    return Units(
        kind=facts["kind"], names=_words(facts["names"]), pooling=facts["pooling"],
        phrases=None if phrases is None else tuple(phrases), exemplars=exemplars,
        **{name: tensors.get(f"units.{name}") for name in ("group", "reference", "range", "phrase_scores")},
    )  # fmt: skip


def _digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file says."""
    return hashlib.sha256(f"{canonical(facts)}{tensors_digest(tensors)}".encode()).hexdigest()


def _check_kinds(facts: Mapping[str, Any], kinds: Mapping[str, type | UnionType]) -> None:
    """Refuse, as TypeError, a value that is not of its kind."""
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind) or (kind is not bool and isinstance(facts[name], bool)):
            raise TypeError(f"{name} is {in_brief(facts[name], 60)!r}")


def _check_explainer(facts: Mapping[str, Any]) -> None:
    """Refuse, as ValueError, what no explainer was ever saved with."""
    for name, right in {
        "settings": not {"network", "classes", "preset"} & facts["settings"].keys(),
        "classes": len(_words(facts["classes"])) > 0,
        "size": facts["size"] is None or _is_size(facts["size"]),
        "seed": facts["seed"] is None or 0 <= facts["seed"] < 2**63,
    }.items():
        if not right:
            raise ValueError(f"{name} is {in_brief(facts[name], 60)!r}")


def _is_size(found: Sequence[Any]) -> bool:
    """Whether it is height and width of images that somebody could have, or the columns of a table."""
    return len(found) in (1, 2) and all(type(side) is int and 0 < side <= LARGEST_SIDE for side in found)


def _words(found: Any) -> tuple[str, ...]:
    """A list of words, or a TypeError."""
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise TypeError(f"a list of names is {in_brief(found, 60)!r}")
    return tuple(found)


def _tuples(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
