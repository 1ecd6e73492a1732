"""JSON Schema of values as they are written, by the types of their fields and what their docstrings say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from attrs import NOTHING, has
from torch import Tensor

from explainkit.explanations.json_values import JsonValue, field_types, form_of, in_init, schema_name
from explainkit.explanations.serialization import SCHEMA

DRAFT = "https://json-schema.org/draft/2020-12/schema"

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}

TENSOR = {
    "type": "array",
    "description": "A tensor as nested lists; null is NaN.",
    "items": {"anyOf": [{"$ref": "#/$defs/tensor"}, {"type": ["number", "boolean", "null"]}]},
}

TENSORS = {
    "type": "object",
    "description": "What lists do not say of tensors, by their place in the object, as 'units.group'.",
    "properties": {
        "dtype": {"type": "string", "description": "Of all tensors that dtypes does not name."},
        "dtypes": {"type": "object", "additionalProperties": {"type": "string"}},
        "shapes": {
            "type": "object",
            "description": "Of tensors without a number.",
            "additionalProperties": {"type": "array", "items": {"type": "integer"}},
        },
    },
}


def document_schema(kind: Any, *, name: str | None = None) -> dict[str, Any]:
    """The schema of documents of a value's class, or of a TypedDict.

    Parameters
    ----------
    name : str or None
        What documents say that they are; as the class is called unless given.
    """
    schemas = _Schemas()
    name = name or schema_name(kind)
    body = schemas.object(kind)
    major = SCHEMA.partition(".")[0]
    says = {"type": "string", "pattern": f"^{re.escape(name)}/{major}\\."}
    head = {"schema": says} | ({"tensors": TENSORS} if "tensor" in schemas.definitions else {})
    return {
        "$schema": DRAFT,
        "title": f"{name}/{SCHEMA}",
        **body,
        "properties": head | {field: item for field, item in body["properties"].items() if field not in head},
        "required": list(dict.fromkeys(["schema", *body["required"]])),
        "$defs": schemas.definitions,
    }


class _Schemas:
    """Schemas of types, with those of classes as definitions."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        origin, arguments = get_origin(kind) or kind, get_args(kind)
        if kind is Any:
            return {}
        if kind is Tensor:
            self.definitions["tensor"] = TENSOR
            return {"$ref": "#/$defs/tensor"}
        if kind in PLAIN:
            return {"type": PLAIN[kind]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, UnionType):
            return self._any_of([item for item in arguments if not _is_callable(item)])
        if origin is tuple and arguments[-1] is not Ellipsis:
            return {"type": "array", "prefixItems": [self.of(item) for item in arguments], "items": False}
        if origin in (tuple, list):
            return {"type": "array", "items": self.of(arguments[0])}
        if isinstance(origin, type) and issubclass(origin, Mapping) and not is_typeddict(kind):
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if kind.__name__ not in self.definitions:
            self.definitions[kind.__name__] = {}  # a class within itself ends here
            self.definitions[kind.__name__] = self.object(kind)
        return {"$ref": f"#/$defs/{kind.__name__}"}

    def object(self, kind: Any) -> dict[str, Any]:
        """The schema of a class of attrs, or of a TypedDict."""
        summary = (inspect.getdoc(kind) or "").partition("\n")[0]
        if has(kind):
            properties, required = self._fields(kind)
            if issubclass(kind, JsonValue) and kind.json_type is not None:
                properties = {"type": {"const": kind.json_type}} | properties
                required = ["type", *required]
        else:
            types = get_type_hints(kind, include_extras=True)
            required = [name for name, item in types.items() if get_origin(item) is not NotRequired]
            properties = {
                name: self.of(get_args(item)[0] if get_origin(item) is NotRequired else item)
                for name, item in types.items()
            }
        return {
            "description": summary, "type": "object", "properties": properties, "required": required,
        }  # fmt: skip

    def _fields(self, kind: type) -> tuple[dict[str, Any], list[str]]:
        instead = dict(kind._read_instead()) if issubclass(kind, JsonValue) else {}
        types, words = field_types(kind) | instead, _described(kind)
        properties: dict[str, Any] = {}
        required = []
        for field in in_init(kind):
            name, form = str(field.alias), form_of(field)
            schema = self.of(types[field.name]) if form is None else dict(form.schema)
            if name in words and "description" not in schema:
                schema["description"] = words[name]
            properties[name] = schema
            if field.default is NOTHING:
                required.append(name)
        beside = {name: self.of(item) for name, item in instead.items() if name not in properties}
        return properties | beside, required

    def _any_of(self, kinds: list[Any]) -> dict[str, Any]:
        schemas = [self.of(kind) for kind in kinds]
        if len(schemas) == 1:
            return schemas[0]
        if all(set(schema) == {"type"} for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}


def _is_callable(kind: Any) -> bool:
    return getattr(get_origin(kind), "__name__", "") == "Callable"


def _described(kind: type) -> dict[str, str]:
    """What the docstring of a class says of its attributes, one line each."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes\n----------\n")
    words: dict[str, str] = {}
    for names, text in re.findall(r"^(\w[\w, ]*) : (.+(?:\n    .+)*)", section, re.MULTILINE):
        words |= dict.fromkeys(names.split(", "), " ".join(text.replace("\n", ". ", 1).split()))
    return words
