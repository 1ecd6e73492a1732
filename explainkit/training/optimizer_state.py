"""The state of an optimizer as numbers and tensors, and the check that a saved state fits an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from explainkit.explanations.serialization import in_brief


def split_state(optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An optimizer's state as numbers, and as tensors by ``index.name``."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entry in whole["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    return {"groups": whole["param_groups"], "state": numbers}, tensors


def join_state(
    facts: Mapping[str, Any], tensors: Mapping[str, Tensor], optimizer: Optimizer
) -> dict[str, Any]:
    """A state dict for `optimizer` from the numbers and tensors of `split_state`.

    Each tensor is laid out as its parameter is, so that sums round alike.

    Raises
    ------
    ValueError
        For the state of another optimizer.
    """
    groups, parameters = [], []
    own_groups = optimizer.state_dict()["param_groups"]
    for saved, own, live in zip(facts["groups"], own_groups, optimizer.param_groups, strict=True):
        if not has_same_form({**saved, "params": own["params"]}, as_json(own)):
            raise ValueError("another optimizer's settings")
        group = {**{name: _as_tuple(value) for name, value in saved.items()}, "params": own["params"]}
        form = _parameter_state(type(optimizer), group, live["params"][0].device)
        groups.append(group)
        parameters += [(value, form) for value in live["params"]]
    state: dict[int, dict[str, Any]] = {
        int(index): dict(numbers) for index, numbers in facts["state"].items()
    }
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        like, form = parameters[int(number)]
        laid_out = torch.empty_like(like).copy_(value) if form[name].ndim else value
        state.setdefault(int(number), {})[name] = laid_out.detach()
    for index, saved in state.items():
        _check_parameter_state(saved, parameters[index][1])
    return {"state": state, "param_groups": groups}


def as_json(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _parameter_state(kind: type[Optimizer], group: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What an optimizer of these settings, which it may refuse, knows of a parameter after one step."""
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    arguments = signature(kind).parameters.keys() & group.keys() - {"params"}
    twin = kind([parameter], **{name: group[name] for name in arguments})
    twin.step()
    return dict(twin.state[parameter])


def _check_parameter_state(saved: Mapping[str, Any], form: Mapping[str, Any]) -> None:
    """Refuse, as ValueError, what such an optimizer would not remember of a parameter."""
    if saved.keys() != form.keys():
        raise ValueError(f"an optimizer remembers {sorted(form)}; got {in_brief(sorted(saved))}")
    for name, value in form.items():
        if isinstance(value, Tensor) and not value.ndim:  # a count of steps
            count = saved[name]
            if count.ndim or count.dtype != value.dtype or not 0 <= count.item() < float("inf"):
                raise ValueError(f"{name} is {in_brief(count)}")


def has_same_form(saved: Any, own: Any) -> bool:
    """Whether JSON values are of one form: other numbers, perhaps, at the same places."""
    if isinstance(own, dict):
        return (
            isinstance(saved, dict)
            and saved.keys() == own.keys()
            and all(has_same_form(saved[k], own[k]) for k in own)
        )
    if isinstance(own, list):
        return isinstance(saved, list) and len(saved) == len(own) and all(map(has_same_form, saved, own))
    if isinstance(own, int | float) and not isinstance(own, bool):
        return isinstance(saved, int | float) and not isinstance(saved, bool)
    return own is None or bool(saved == own)
