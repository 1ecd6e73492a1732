"""Values as JSON that other programs read, and back: one mechanism, by the types of a value's fields.

A value is an object with its fields by name, a value within it an object, a tensor nested lists of numbers,
NaN ``null``. What lists do not say is under ``tensors``: the ``dtype`` of most floats, ``dtypes`` of other
tensors and ``shapes`` of those without a number, by their place in the object, as ``"units.group"``. Numbers
come back bit for bit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from attrs import NOTHING, Attribute, fields, frozen, has
from torch import Tensor

from explainkit.errors import InputError
from explainkit.explanations.serialization import SCHEMA, as_format_error, check_schema, in_brief, parse_json

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    )
}  # fmt: skip
"""What tensors in JSON may hold, by name."""


@frozen(kw_only=True)
class JsonForm:
    """How a field is put in JSON whose type does not say it.

    Attributes
    ----------
    write : callable
        From the field's value to what JSON can hold.
    read : callable
        Back; what it raises, such as TypeError, makes the text one that breaks a rule.
    schema : mapping
        JSON Schema of what is written.
    """

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    schema: Mapping[str, Any]


def json_form(
    write: Callable[[Any], Any], read: Callable[[Any], Any], schema: Mapping[str, Any]
) -> dict[str, Any]:
    """Metadata of an attrs field that say how it is put in JSON."""
    return {"json": JsonForm(write=write, read=read, schema=schema)}


Value = TypeVar("Value", bound="JsonValue")


class JsonValue:
    """A value of attrs that travels as JSON."""

    __slots__ = ()

    json_type: ClassVar[str | None] = None
    """What an object is called in JSON, as its ``type``, where a field may hold one of several classes."""

    def to_json(self) -> str:
        """As JSON text, which `from_json` reads; its schema is in ``docs/schemas``."""
        return as_text(write_value(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises
        ------
        FormatError
            For text that is damaged, foreign, of another schema version, or against the value's rules.
        """
        document = read_document(text, schema_name(cls))
        with as_format_error(breach(cls)):
            return read_value(cls, document, len(text))

    def _written_instead(self) -> Mapping[str, Any]:
        """What is written in place of some fields, and beside them."""
        return {}

    @classmethod
    def _read_instead(cls) -> Mapping[str, Any]:
        """The types of what is written in place of fields, and beside them."""
        return {}

    @classmethod
    def _made_of(cls, columns: Mapping[str, Any], size: int) -> Self:
        """The value of these fields, from a text of `size` characters, once it is found to keep the rules."""
        return cls(**columns)


def schema_name(cls: type) -> str:
    """What documents of a class are called: ``"explainkit.metric-table"``."""
    words = re.findall("[A-Z][a-z]*", cls.__name__)
    return f"explainkit.{'-'.join(words).lower()}"


def breach(cls: type) -> str:
    """How an error begins about JSON text that is not what a value of `cls` can be."""
    return f"The JSON text breaks a rule of {schema_name(cls)}"


def as_text(document: Mapping[str, Any]) -> str:
    """A document as text."""
    return json.dumps(document, allow_nan=False, ensure_ascii=False)


def write_value(value: Any) -> dict[str, Any]:
    """A value as a document: its schema, what lists do not say of tensors, and its fields."""
    writer = _Writer()
    body = writer.fields(value, "")
    head: dict[str, Any] = {"schema": f"{schema_name(type(value))}/{SCHEMA}"}
    if writer.dtype is not None or writer.dtypes:
        head["tensors"] = {
            "dtype": writer.dtype or "float32", "dtypes": writer.dtypes, "shapes": writer.shapes,
        }  # fmt: skip
    return head | body


def read_document(text: str, name: str) -> dict[str, Any]:
    """The JSON object in `text`, of the schema `name`.

    Raises
    ------
    FormatError
        For text that is damaged, foreign, or of another schema version.
    """
    if not isinstance(text, str | bytes):
        raise InputError(f"Expected JSON text; got {type(text).__name__}.")
    with as_format_error("The JSON text is damaged"):
        document = parse_json(text)
    check_schema(document, name, "JSON text")
    return document


def read_value(cls: type[Value], document: Mapping[str, Any], size: int) -> Value:
    """The value that a document of `size` characters holds.

    Raises
    ------
    InputError, LookupError, TypeError, ValueError
        For what is not of the fields' types, and for what breaks a rule of the value.
    """
    about = {"dtype": "float32", "dtypes": {}, "shapes": {}} | document.get("tensors", {})
    dtype, dtypes, shapes = about["dtype"], about["dtypes"], about["shapes"]
    if not isinstance(dtypes, dict) or not isinstance(shapes, dict):
        raise _misfit("tensors", about)
    value: Value = _Reader(dtype=dtype, dtypes=dtypes, shapes=shapes, size=size).value(cls, document, "")
    return value


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The types of a class's fields, by the fields' names."""
    return get_type_hints(cls)


def form_of(field: Attribute[Any]) -> JsonForm | None:
    """How the field is put in JSON, where its type does not say it."""
    form: JsonForm | None = field.metadata.get("json")
    return form


def in_init(cls: type) -> list[Attribute[Any]]:
    """The fields that make a value."""
    return [field for field in fields(cls) if field.init]


class _Writer:
    """Writes values, and takes down what lists do not say of their tensors."""

    def __init__(self) -> None:
        self.dtype: str | None = None
        self.dtypes: dict[str, str] = {}
        self.shapes: dict[str, list[int]] = {}

    def fields(self, value: Any, path: str) -> dict[str, Any]:
        written: dict[str, Any] = {}
        instead = value._written_instead() if isinstance(value, JsonValue) else {}
        for field in in_init(type(value)):
            name, form = str(field.alias), form_of(field)
            if name in instead:
                continue
            item = getattr(value, field.name)
            formed = item if form is None or item is None else form.write(item)
            written[name] = self.value(formed, _within(path, name))
        written |= {name: self.value(item, _within(path, name)) for name, item in instead.items()}
        kind = value.json_type if isinstance(value, JsonValue) else None
        return written if kind is None else {"type": kind} | written

    def value(self, value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            return self.tensor(value, path)
        if has(type(value)):
            return self.fields(value, path)
        if isinstance(value, Mapping):
            return {str(name): self.value(item, _within(path, str(name))) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, _within(path, str(index))) for index, item in enumerate(value)]
        if isinstance(value, float) and value != value:
            return None
        if not isinstance(value, str | int | float | None):
            raise InputError(f"Expected {path} as what JSON can hold; got {type(value).__name__}.")
        return value

    def tensor(self, tensor: Tensor, path: str) -> Any:
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise InputError(f"Expected {path} as one of {', '.join(DTYPES)}; got {dtype}.")
        if self.dtype is None and tensor.is_floating_point():
            self.dtype = dtype
        if dtype != self.dtype:
            self.dtypes[path] = dtype
        if not tensor.numel():
            self.shapes[path] = list(tensor.shape)
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point() or tensor.isfinite().all():
            return tensor.tolist()
        if tensor.isinf().any():
            raise InputError(f"Expected finite {path}, as JSON has no infinity. Save to a file instead.")
        numbers = tensor.double().numpy().astype(object)
        numbers[tensor.isnan().numpy()] = None
        return numbers.tolist()


@frozen(kw_only=True)
class _Reader:
    """Reads values of given types, and trusts nothing."""

    dtype: Any
    dtypes: Any
    shapes: Any
    size: int

    def fields(self, cls: type, written: Any, path: str) -> dict[str, Any]:
        if not isinstance(written, Mapping):
            raise _misfit(path, written)
        types, read = field_types(cls), {}
        instead = cls._read_instead() if issubclass(cls, JsonValue) else {}
        for field in in_init(cls):
            name, form = str(field.alias), form_of(field)
            where = _within(path, name)
            if name not in written:
                if field.default is NOTHING:
                    raise KeyError(f"{where} is left out")
                continue
            item = written[name]
            if name in instead:
                read[name] = self.value(instead[name], item, where)
            elif form is not None:
                read[name] = None if item is None and field.default is None else form.read(item)
            else:
                read[name] = self.value(types[field.name], item, where)
        return read

    def value(self, kind: Any, written: Any, path: str) -> Any:
        if kind is Any:
            return written
        if kind is Tensor:
            return self.tensor(written, path)
        if isinstance(kind, type) and has(kind):
            columns = self.fields(kind, written, path)
            return kind._made_of(columns, self.size) if issubclass(kind, JsonValue) else kind(**columns)
        origin, arguments = get_origin(kind) or kind, get_args(kind)
        if origin in (Union, UnionType):
            return self._first_of(arguments, written, path)
        if origin is Literal and isinstance(written, str) and written in arguments:
            return written
        if origin is tuple and isinstance(written, list):
            return self._tuple(arguments, written, path)
        if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(written, dict):
            key, item = arguments
            return {
                key(name): self.value(item, value, _within(path, name)) for name, value in written.items()
            }
        if kind is float and written is None:
            return float("nan")
        if kind is float and type(written) in (int, float):
            return float(written)
        if kind in (str, int, bool, NoneType) and type(written) is kind:
            return written
        raise _misfit(path, written)

    def tensor(self, written: Any, path: str) -> Tensor:
        if not isinstance(written, list):
            raise _misfit(path, written)
        dtype = DTYPES[self.dtypes.get(path, self.dtype)]
        numbers = np.array(written)
        if not numbers.size:
            return torch.empty(self._empty_shape(path, numbers.shape), dtype=dtype)
        if numbers.dtype.kind == "O" and dtype.is_floating_point:  # NaN, or whole numbers beyond all
            if not all(type(number) in (int, float, NoneType) for number in numbers.flat):
                raise _misfit(path, written)
            numbers = numbers.astype(np.float64)
        kinds = "iuf" if dtype.is_floating_point else "b" if dtype == torch.bool else "if"
        is_broken = not dtype.is_floating_point and numbers.dtype.kind == "f" and (numbers % 1).any()
        if numbers.dtype.kind not in kinds or is_broken:
            raise _misfit(path, written)
        return torch.from_numpy(numbers).to(dtype)

    def _empty_shape(self, path: str, shape: Sequence[int]) -> Sequence[int]:
        """The shape of what has no number, whose sides nothing else bounds."""
        sides = self.shapes.get(path, list(shape))
        if not all(type(side) is int and 0 <= side <= 2**20 for side in sides) or 0 not in sides:
            raise _misfit(f"the shape of {path}", sides)
        return sides

    def _first_of(self, kinds: Sequence[Any], written: Any, path: str) -> Any:
        if written is None and NoneType in kinds:
            return None
        if isinstance(written, Mapping) and "type" in written:
            named = {kind.json_type: kind for kind in kinds if _is_named(kind)}
            if written["type"] in named:
                return self.value(named[written["type"]], written, path)
        for kind in kinds:
            try:
                return self.value(kind, written, path)
            except TypeError:
                if kind is kinds[-1]:
                    raise
        raise _misfit(path, written)

    def _tuple(self, kinds: Sequence[Any], written: Sequence[Any], path: str) -> tuple[Any, ...]:
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(written)
        if len(kinds) != len(written):
            raise _misfit(path, written)
        return tuple(
            self.value(kind, item, _within(path, str(index)))
            for index, (kind, item) in enumerate(zip(kinds, written, strict=True))
        )


def _is_named(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, JsonValue) and kind.json_type is not None


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _misfit(path: str, written: Any) -> TypeError:
    return TypeError(f"{path} is {in_brief(repr(written), 60)}")
