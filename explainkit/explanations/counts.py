"""Whole numbers that are given by hand: of Python or numpy, refused in words where they are none."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from explainkit.errors import InputError


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number, as those of numpy are too; `True` and `False` are none.

    Examples
    --------
    >>> is_whole(3), is_whole(True), is_whole(3.0)
    (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int, once it is found to be a whole number of at least `least`.

    Raises
    ------
    InputError
    """
    if not is_whole(value) or value < least:
        raise InputError(f"Expected {name} as a whole number of at least {least}; got {value!r}.")
    return int(value)
