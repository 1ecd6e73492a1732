"""Explainers in folders: ``explainer.json`` (what it is) and ``network.safetensors`` (what it learned).

No pickle, and no import of a name in a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from attrs import asdict
from torch import Tensor, nn

from explainkit import registry
from explainkit.errors import FormatError, InputError, NotFittedError
from explainkit.explainers.identity import name_of
from explainkit.explainers.inputs import InputSpec, stated_spec
from explainkit.explainers.interface import Explainer
from explainkit.explainers.interpretable import InterpretableExplainer
from explainkit.explainers.posthoc import PostHocExplainer
from explainkit.explanations.decisions import Decision
from explainkit.explanations.files import (
    check_kinds,
    checked_names,
    units_from_json,
    units_to_json,
    with_tuples,
)
from explainkit.explanations.serialization import (
    SCHEMA,
    as_format_error,
    canonical,
    in_brief,
    new_folder,
    pack,
)
from explainkit.explanations.units import Units
from explainkit.networks.saved import FACTS, TENSORS, is_saved, read_saved
from explainkit.registry.catalog import explainer as explainer_by_name

EXPLAINER: Mapping[str, type | UnionType] = {
    "explainer": str, "settings": dict, "classes": list, "input": dict, "decision": dict, "seed": int | None,
    "augment": dict, "bound": bool, "network": str | None, "units": dict,
}  # fmt: skip


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
    if explainer.card.learns_from is None:
        raise InputError(
            f"{explainer.card.title} has learned nothing: save its network, and call from_network again."
        )
    folder = check_folder(folder)
    explainer.network  # refuses what has none, in words  # noqa: B018
    units = explainer.units
    if units is None:
        raise NotFittedError(f"{explainer.card.title} has no units yet: call fit(…).")
    tensors = {f"network.{name}": value for name, value in explainer.saved_state().items()}
    unit_facts, unit_tensors = units_to_json(units)
    weights = pack(tensors | unit_tensors, {})
    name = name_of(type(explainer))
    is_posthoc = isinstance(explainer, PostHocExplainer)
    facts = {
        "schema": f"explainkit.explainer/{SCHEMA}",
        "explainer": name,
        "settings": explainer.settings(),
        "classes": explainer.classes,
        "input": asdict(explainer.input_spec),
        "decision": explainer.decision.facts(),
        "seed": explainer._seed,
        "augment": explainer._augment,
        "bound": explainer.bound,
        "network": explainer.provenance().model_digest if is_posthoc else None,
        "units": unit_facts,
        "versions": explainer.provenance().versions,
        "history": [asdict(epoch) for epoch in getattr(explainer, "history", ())],
        "digest": hashlib.sha256(weights).hexdigest(),
    }
    with new_folder(folder) as part:
        (part / TENSORS).write_bytes(weights)
        (part / FACTS).write_text(canonical(facts, indent=1), encoding="utf-8")
    return folder


def check_folder(folder: str | Path) -> Path:
    """`folder`, once it is found to be one that `save` may fill: new, empty, or a saved explainer.

    Raises
    ------
    InputError
        For a folder of something else; for an explainer to be saved, that is better known before training.
    """
    folder = Path(folder)
    if folder.exists() and not is_saved(folder) and (folder.is_file() or any(folder.iterdir())):
        raise InputError(
            f"Expected an empty or new folder, or a saved explainer; {str(folder)!r} is something else."
        )
    return folder


def load(
    folder: str | Path, *, device: torch.device | str | None = None, network: nn.Module | None = None
) -> Explainer:
    """The explainer that `save` wrote to `folder`.

    Parameters
    ----------
    device : torch.device, str or None
        Where its network is; the CPU unless given, and for a `network` that is given where that is.
    network : nn.Module or None
        For an architecture made by `from_network`: a network of the same form, to take the weights. For a
        post-hoc method: the network that it learned about.

    Raises
    ------
    FormatError
        For a folder that is damaged, foreign, or of another schema version.
    UnsupportedNetworkError
        For a post-hoc method beside another network than it learned about.
    UnknownNameError
        Where no installed plugin offers the explainer's name.
    """
    folder = Path(folder)
    facts, tensors = read_saved(folder)
    with as_format_error(f"{str(folder / FACTS)!r} lacks what a saved explainer has"):
        check_kinds(facts, EXPLAINER)
        _check_explainer(facts)
        units = units_from_json(facts["units"], tensors)
    if facts["bound"] and network is None:
        raise InputError(
            f"{str(folder)!r} holds an explainer made by from_network: give its network, or one of the same "
            "form, load(folder, network=…)."
        )
    message = f"{str(folder)!r} does not fit the network of {facts['explainer']!r}"
    with as_format_error(message):
        explainer = _restore_explainer(facts, tensors, units, network)
    explainer._seed, explainer._augment = facts["seed"], facts["augment"]
    if network is not None:  # the caller's own, whose mode is left alone
        return explainer if device is None else explainer.to(device)
    explainer.network.eval()
    return explainer.to("cpu" if device is None else device)


def _restore_explainer(
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    units: Units,
    network: nn.Module | None,
) -> Explainer:
    """The explainer that `facts` describe, built anew or made of `network`."""
    name, settings, classes = facts["explainer"], with_tuples(facts["settings"]), facts["classes"]
    spec, decision = InputSpec(**with_tuples(facts["input"])), Decision(**facts["decision"])
    state = {
        key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")
    }
    explainer: Explainer
    if network is None or hasattr(registry.find("explainers", name), "build"):
        explainer = explainer_by_name(name, **settings)  # refuses what only from_network takes, as a size
    if network is not None:
        arguments = spec.arguments if stated_spec(network) is None else {}
        explainer = explainer_by_name(
            name, network=network, classes=classes, decision=decision, **arguments, **settings
        )
    if explainer.card.learns_from is None:
        raise FormatError(f"expected an explainer that learns; got {name!r}")
    explainer.decision = decision
    if isinstance(explainer, PostHocExplainer):
        explainer.load_learned(state, units, facts["network"] or "")
    elif isinstance(explainer, InterpretableExplainer) and network is None:
        explainer.load_state(state, classes, spec, units)
    else:
        explainer.network.load_state_dict(state)
        explainer.units, explainer.input_spec = units, spec
    return explainer


def _check_explainer(facts: Mapping[str, Any]) -> None:
    """Refuse, as ValueError, what no explainer was ever saved with."""
    for name, is_valid in {
        "settings": not {"network", "classes", "preset"} & facts["settings"].keys(),
        "classes": len(checked_names(facts["classes"])) > 0,
        "seed": facts["seed"] is None or 0 <= facts["seed"] < 2**63,
        "augment": all(isinstance(text, str) for text in facts["augment"].values()),
    }.items():
        if not is_valid:
            raise ValueError(f"{name} is {in_brief(facts[name], 60)!r}")
