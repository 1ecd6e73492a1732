"""The columns of explanations in Parquet: names, types and what they hold, in one place."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from attrs import frozen

from explainkit.errors import MissingPackageError

DATASET = "explainkit.explanation-dataset"
"""The schema that manifests and footers name; its version is that of all files of explainkit."""


@frozen
class Column:
    """One column.

    Attributes
    ----------
    name : str
    kind : str
        Its Arrow type. ``float`` is 32 bits wide, and 64 for networks in double precision.
    meaning : str
    """

    name: str
    kind: str
    meaning: str


COLUMNS = (
    Column("id", "int64", "the image's number in the source, from 0"),
    Column("path", "string", "its file, below the folder where the source is one; or what Parquet calls it"),
    Column("label", "string", "its class, where the source knows; null for several labels an image"),
    Column("is_label", "bool", "whether the target is its label, or one of them"),
    Column("height", "int32", "of the image that the network got"),
    Column("width", "int32", "of the same"),
    Column("prediction", "string", "what the network says: a class, or the labels that hold"),
    Column("prediction_probability", "double", "of the class with the largest logit"),
    Column("target", "string", "the class that is explained"),
    Column("target_probability", "double", "null where outputs are numbers that decide nothing"),
    Column("foil", "string", "the class that it is contrasted with"),
    Column("logit", "float", "what is explained: the target's logit, less the foil's where there is one"),
    Column("base", "float", "what the logit is before any evidence"),
    Column("units", "list<unit>", "the strongest units, in order of their size"),
    Column("remainder", "float", "the contributions of all other units"),
    Column("residual", "float", "what the sum leaves unexplained; null where no sum is claimed"),
    Column("nonspatial", "float", "the contributions of units without a place"),
    Column("saliency", "list<float>", "the contributions on a grid, row by row; sums to what has a place"),
    Column("logits", "list<float>", "of all classes"),
    Column("diagnostics", "map<string, float>", "further numbers that the explainer gives"),
    Column("sentence", "string", "the decision in words"),
    Column("error", "string", "why there is no explanation; all after label is then null"),
)
"""The columns of a row, in order: an explanation, or an image that there is none of."""

UNIT = (
    Column("unit", "int32", "its number"),
    Column("name", "string", "its name"),
    Column("phrase", "string", "the unit in words, where it has some"),
    Column("score", "float", "how much of it is in the image"),
    Column("weight", "float", "what one unit of score is worth to the target"),
    Column("contribution", "float", "weight x (score - reference)"),
    Column("is_absent", "bool", "whether its score says that it is not there"),
)
"""The fields of a unit."""


def require_arrow(module: str = "pyarrow") -> ModuleType:
    """A module of pyarrow.

    Raises
    ------
    MissingPackageError
        Without pyarrow.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            "Explanations in Parquet need pyarrow, which is not installed: pip install "
            "'explainkit-sdk[arrow]'."
        ) from error


def arrow_schema(*, is_double: bool = False) -> Any:
    """The columns as a ``pyarrow.Schema``.

    Parameters
    ----------
    is_double : bool
        Whether the network is in double precision.
    """
    arrow = require_arrow()
    number = arrow.float64() if is_double else arrow.float32()
    kinds = {
        "int64": arrow.int64(), "int32": arrow.int32(), "string": arrow.string(), "bool": arrow.bool_(),
        "double": arrow.float64(), "float": number, "list<float>": arrow.list_(number),
        "map<string, float>": arrow.map_(arrow.string(), number),
    }  # fmt: skip
    kinds["list<unit>"] = arrow.list_(arrow.struct([(item.name, kinds[item.kind]) for item in UNIT]))
    return arrow.schema([(item.name, kinds[item.kind]) for item in COLUMNS])
