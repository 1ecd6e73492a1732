"""The same scenes with one thing changed: pure functions, each gives a copy in which nothing else moves."""

from collections.abc import Sequence

import numpy as np
from attrs import evolve, fields
from numpy.typing import ArrayLike

from explainkit.data.datasets.aviary.grammar import (
    COLORS,
    PARTS,
    PATTERNED,
    PATTERNS,
    SHAPES,
    Codes,
    Grammar,
)
from explainkit.data.datasets.aviary.scenes import (
    PLUMAGES,
    THEMES,
    Booleans,
    Scenes,
    chances,
)
from explainkit.errors import UnknownNameError


def remove(scenes: Scenes, parts: str | Sequence[str], bird: int = 0) -> Scenes:
    """Without `parts` of one bird."""
    present = scenes.present.copy()
    present[:, bird, _columns(parts)] = False
    return evolve(scenes, present=present)


def keep(scenes: Scenes, parts: Booleans, bird: int = 0) -> Scenes:
    """With only those parts of one bird for which `parts` (P,) or (N, P) is true, if they are present."""
    present = scenes.present.copy()
    present[:, bird] &= parts
    return evolve(scenes, present=present)


def swap(scenes: Scenes, parts: str | Sequence[str], codes: Codes, bird: int = 0) -> Scenes:
    """With `parts` as `codes` (P, 3) or (N, P, 3) has them, such as ``dataset.codes[other_species]``."""
    changed, columns = scenes.codes.copy(), _columns(parts)
    changed[:, bird, columns] = codes[..., columns, :]
    return evolve(scenes, codes=changed)


def recolor(scenes: Scenes, part: str, color: str, bird: int = 0) -> Scenes:
    """With one part in another of `COLORS`."""
    return _with_attribute(scenes, part, 1, _index(COLORS, color, "color"), bird)


def reshape(scenes: Scenes, part: str, shape: str, bird: int = 0) -> Scenes:
    """With one part in another of its `SHAPES`."""
    (column,) = _columns(part)
    return _with_attribute(scenes, part, 0, _index(SHAPES[PARTS[column]], shape, f"shape of a {part}"), bird)


def repattern(scenes: Scenes, part: str, pattern: str, bird: int = 0) -> Scenes:
    """With one part in another of `PATTERNS`; only wing, breast and tail wear any but plain."""
    _columns(part)
    wearable = [PATTERNS[value] for value in PATTERNED.get(part, (0,))]
    _index(wearable, pattern, f"pattern of a {part}")
    return _with_attribute(scenes, part, 2, PATTERNS.index(pattern), bird)


def subsets(scenes: Scenes, bird: int = 0) -> Scenes:
    """All 2^P sets of parts of N scenes in one batch of N · 2^P.

    Row ``n * 128 + s`` keeps part p of scene n where bit p of s is set, as in ``subset_table()[s]``.
    """
    table = subset_table()
    rows = np.repeat(np.arange(len(scenes)), len(table))
    return keep(scenes[rows], np.tile(table, (len(scenes), 1)), bird)


def subset_table() -> Booleans:
    """(2^P, P): row s holds the bits of s."""
    return (np.arange(1 << len(PARTS))[:, None] >> np.arange(len(PARTS)) & 1).astype(bool)


def with_theme(scenes: Scenes, theme: str) -> Scenes:
    """Before another of the `THEMES`, with hills and plants where they were."""
    return evolve(scenes, themes=np.full_like(scenes.themes, _index(THEMES, theme, "theme")))


def with_plumage(scenes: Scenes, plumage: str, bird: int = 0) -> Scenes:
    """With the body of one bird in another of `PLUMAGES`, which says nothing of the species."""
    plumages = scenes.plumages.copy()
    plumages[:, bird] = _index(PLUMAGES, plumage, "plumage")
    return evolve(scenes, plumages=plumages)


def without_distractors(scenes: Scenes, which: ArrayLike | None = None) -> Scenes:
    """Without the distractors at the positions `which`, or without any."""
    distractors = scenes.distractors.copy()
    distractors[:, slice(None) if which is None else np.atleast_1d(np.asarray(which))] = -1
    return evolve(scenes, distractors=distractors)


def without_bird(scenes: Scenes, bird: int) -> Scenes:
    """Without one bird; the others stay where they are."""
    shown = scenes.shown.copy()
    shown[:, bird] = False
    return evolve(scenes, shown=shown)


def redrawn(scenes: Scenes, others: Scenes) -> Scenes:
    """With the birds where they stand, and their parts; all else as in `others`, scene by scene.

    Plumages, tints, backgrounds and distractors.
    """
    names = (
        "keys", "tints", "plumages", "themes", "backdrop", "distractors", "distractor_colors",
        "distractor_positions",
    )  # fmt: skip
    return evolve(scenes, **{name: getattr(others, name) for name in names})


def with_other_species(scenes: Scenes, grammar: Grammar) -> Scenes:
    """With all parts as another species has them, drawn evenly by the scene's key; what lacks stays so.

    All birds of a scene become that species. Attributes that tell no species apart stay.
    """
    turn = 1 + (chances(scenes.keys, "other species", 1)[:, 0] * (len(grammar) - 1)).astype(np.int64)
    labels = (scenes.labels + turn) % len(grammar)
    codes = np.where(grammar.relevant, grammar.codes[labels][:, None], scenes.codes)
    species = np.ascontiguousarray(np.broadcast_to(labels[:, None], scenes.species.shape))
    return evolve(scenes, labels=labels, species=species, codes=codes)


def concat(scenes: Sequence[Scenes]) -> Scenes:
    """Several scenes in one batch, in order."""
    names = [column.name for column in fields(Scenes)]
    return Scenes(**{name: np.concatenate([getattr(batch, name) for batch in scenes]) for name in names})


def _with_attribute(scenes: Scenes, part: str, attribute: int, value: int, bird: int) -> Scenes:
    codes = scenes.codes.copy()
    codes[:, bird, _columns(part), attribute] = value
    return evolve(scenes, codes=codes)


def _columns(parts: str | Sequence[str]) -> list[int]:
    return [_index(PARTS, part, "part") for part in ([parts] if isinstance(parts, str) else parts)]


def _index(names: Sequence[str], name: str, what: str) -> int:
    if name not in names:
        raise UnknownNameError(f"No {what} is called {name!r}. There are: {', '.join(names)}.")
    return names.index(name)
