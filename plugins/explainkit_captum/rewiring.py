"""The fence around methods of Captum's that hook or change the modules of a network."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

import explainkit as ek
from explainkit.errors import UnsupportedNetworkError

_HOOKS = re.compile("Setting (forward, )?backward hooks", re.IGNORECASE)
_quiet_lock = threading.Lock()
_quiet_count = 0


@contextmanager
def rewired(network: nn.Module, title: str) -> Iterator[None]:
    """A context for methods that change the modules of `network`: what Captum leaves there is taken off.

    Raises
    ------
    UnsupportedNetworkError
    """
    before = {module: set(vars(module)) for module in network.modules()}
    try:
        with _without_hook_warnings():  # given at every call
            yield
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        if isinstance(error, ek.ExplainKitError):
            raise
        message = " ".join(str(error).split())
        raise UnsupportedNetworkError(
            f"{title} cannot go through {type(network).__name__}: {message[:300]}. Methods that need "
            "gradients or logits alone, as 'captum/integrated-gradients' and 'captum/occlusion', can."
        ) from error
    finally:
        for module, names in before.items():
            for name in set(vars(module)) - names:
                delattr(module, name)


@contextmanager
def _without_hook_warnings() -> Iterator[None]:
    """A context without Captum's warning of hooks; `warnings.catch_warnings` is no such thing in threads."""
    global _quiet_count
    with _quiet_lock:
        _quiet_count += 1
        warnings.filterwarnings("ignore", _HOOKS.pattern)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_count -= 1
            if not _quiet_count:
                warnings.filters[:] = [item for item in warnings.filters if item[1] != _HOOKS]  # type: ignore[index]
