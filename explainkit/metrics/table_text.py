"""Tables as words: for pages, as plain text, and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class TableParts(TypedDict):
    """A table as words: title, columns, rows of (name, cells, trivial) and a note."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str], bool]]
    note: str


def as_text(parts: TableParts) -> str:
    """Plain text, a line a row; trivial rows are marked with a dot."""
    lines = [["", *parts["columns"]]]
    lines += [[f"{'· ' if trivial else ''}{name}", *cells] for name, cells, trivial in parts["rows"]]
    return "\n".join([parts["title"], *_aligned(lines), parts["note"]])


def as_markdown(parts: TableParts) -> str:
    """Markdown without the title; trivial rows in italics."""
    lines = [["", *parts["columns"]], ["---"] * (len(parts["columns"]) + 1)]
    lines += [[f"*{name}*" if trivial else name, *cells] for name, cells, trivial in parts["rows"]]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in escaped), "", parts["note"], ""])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
