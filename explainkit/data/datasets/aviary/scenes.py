"""What is in an image, as numbers: each is a hash of (seed, split, index); nothing depends on order."""

from typing import Any, Literal

import numpy as np
from attrs import evolve, field, fields, frozen
from numpy.typing import ArrayLike, NDArray

from explainkit.data.datasets.aviary.grammar import (
    COLORS,
    PARTS,
    PATTERNED,
    SHAPES,
    Codes,
    Grammar,
)
from explainkit.data.random_keys import Keys, random_keys, uniform
from explainkit.errors import InputError

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

BIRDS = 3
DISTRACTORS = ("leaf", "flower", "berry", "mushroom", "butterfly", "star", "feather", "kite", "heart", "egg")
MAX_DISTRACTORS = 8
THEMES = ("meadow", "forest", "lake", "desert", "snow", "sunset", "night", "studio")
PLUMAGES = ("gray", "tan", "brown", "cream", "slate", "olive")
STANCE = (
    *("roll", "plumpness", "tilt", "head_x", "head_y", "head_size", "pitch"),
    *("tail_length", "tail_angle", "wing_length", "wing_angle"),
)
BACKDROP = (
    *("brightness", "red", "green", "blue", "light", "warmth", "shadow", "grain_x", "grain_y"),
    *("sun", "sun_x", "sun_y", "sun_size"),
    *("cloud", "cloud_x", "cloud_y", "cloud_size", "cloud_2", "cloud_2_x", "cloud_2_y", "cloud_2_size"),
    *(
        "hill",
        "hill_wave",
        "hill_shift",
        "hill_ripple",
        "hill_2",
        "hill_2_wave",
        "hill_2_shift",
        "hill_2_ripple",
    ),
    *("plant_x", "plant_size", "plant_2_x", "plant_2_size"),
)
Placement = Literal["centered", "free"]


@frozen(eq=False, kw_only=True)
class Scenes:
    """N scenes, up to I = 3 birds in each, of P parts; an intervention gives a changed copy.

    Attributes
    ----------
    keys : array, (N,), uint64
        The hash that every nuisance came from.
    labels : array, (N,)
        Species of the first bird.
    species : array, (N, I)
    shown : array, (N, I), bool
        Which birds are drawn.
    codes : array, (N, I, P, 3)
        Shape, color and pattern of each part, as `grammar.Codes`.
    present : array, (N, I, P), bool
    positions : array, (N, I, 4)
        x and y of the body's center and the unit of length as shares of the image, and 1 or -1 as the bird
        looks right or left.
    stance : array, (N, I, 11)
        `STANCE`, each within [-1, 1].
    sizes : array, (N, I, P)
        Of the parts, within [-1, 1].
    tints : array, (N, I, P + 1, 4)
        Brightness and red, green, blue of each part and of the body, within [-1, 1].
    plumages : array, (N, I)
        Color of the body, in `PLUMAGES`.
    themes : array, (N,)
        In `THEMES`.
    backdrop : array, (N, 33)
        `BACKDROP`, each within [0, 1).
    distractors, distractor_colors : array, (N, 8)
        In `DISTRACTORS` (-1: none) and `COLORS`.
    distractor_positions : array, (N, 8, 4)
        x, y, size and angle, within [0, 1).
    """

    keys: Keys
    labels: Integers
    species: Integers = field(repr=False)
    shown: Booleans = field(repr=False)
    codes: Codes = field(repr=False)
    present: Booleans = field(repr=False)
    positions: Floats = field(repr=False)
    stance: Floats = field(repr=False)
    sizes: Floats = field(repr=False)
    tints: Floats = field(repr=False)
    plumages: Integers = field(repr=False)
    themes: Integers = field(repr=False)
    backdrop: Floats = field(repr=False)
    distractors: Integers = field(repr=False)
    distractor_colors: Integers = field(repr=False)
    distractor_positions: Floats = field(repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: "int | slice | ArrayLike") -> "Scenes":
        """Scenes of `rows`; a single row gives one scene, still with its first axis."""
        index = np.atleast_1d(np.arange(len(self))[np.asarray(rows) if not isinstance(rows, slice) else rows])
        return evolve(self, **{column.name: getattr(self, column.name)[index] for column in fields(Scenes)})


@frozen(kw_only=True)
class Casting:
    """How scenes are drawn from the hash.

    Attributes
    ----------
    seed : int
    split : int
        Scenes of different splits share nothing.
    dropout : float
        How often a bird lacks parts.
    variation : float
        How often one part of a bird has another shape, color or pattern than its species.
    mixed : bool
        Give every bird one part of another species and take 0 … 2 others away; instead of the two above.
    birds : int
        1 … `birds` of one species in a scene.
    placement : {"centered", "free"}
        Free: the bird is 30 … 60 % of the frame long, and up to 25 % off its center.
    spurious : float
        How often the theme depends on the species.
    max_missing : int or None
        Of birds that lack parts, how many they lack at most, evenly from 0 on, though another species may
        then fit as well. ``None``: 1 … 3, and only as long as the species is the nearest.
    """

    seed: int = 0
    split: int = 0
    dropout: float = 0.0
    variation: float = 0.0
    mixed: bool = False
    birds: int = 1
    placement: Placement = "centered"
    spurious: float = 0.0
    max_missing: int | None = None


def compose(
    grammar: Grammar, index: ArrayLike, casting: Casting, *, species: ArrayLike | None = None
) -> Scenes:
    """The scenes number `index` (N,).

    Parameters
    ----------
    species : array, (N,) or (N, I), optional
        Of each scene or each bird; index modulo C unless given, so that any run of indices is balanced.
    """
    index = np.asarray(index, np.int64)
    if len(index) and index.min() < 0:
        raise InputError(f"Expected indices from 0 on; got {index.min()}.")
    keys = random_keys(casting.seed, casting.split, index)
    bird_species = np.asarray(index % len(grammar) if species is None else species, np.int64)
    bird_species = bird_species[:, None] if bird_species.ndim == 1 else bird_species
    bird_species = np.ascontiguousarray(np.broadcast_to(bird_species, (len(index), BIRDS)))
    chance = chances(keys, "scene", 4)
    birds = 1 + (chance[:, 0] * casting.birds).astype(np.int64)
    codes, present = _dress(grammar, keys, bird_species[:, 0], casting)
    # A second bird of the same species is dressed alike, one of another species as its grammar says.
    is_same = (bird_species == bird_species[:, :1])[..., None, None]
    codes = np.where(is_same, codes[:, None], grammar.codes[bird_species])
    theme = (chance[:, 1] * len(THEMES)).astype(np.int64)
    theme = np.where(chance[:, 2] < casting.spurious, bird_species[:, 0] % len(THEMES), theme)
    shape = len(index), BIRDS, len(PARTS)
    distractors = chances(keys, "distractors", MAX_DISTRACTORS * 6).reshape(len(index), MAX_DISTRACTORS, 6)
    is_drawn = np.arange(MAX_DISTRACTORS) < 2 + (chance[:, 3, None] * 7).astype(np.int64)
    return Scenes(
        keys=keys,
        labels=bird_species[:, 0].copy(),
        species=bird_species,
        shown=np.arange(BIRDS) < birds[:, None],
        codes=codes,
        present=np.repeat(present[:, None], BIRDS, 1),
        positions=_bird_positions(keys, birds, casting.placement),
        stance=_signed(keys, "stance", BIRDS * len(STANCE)).reshape(len(index), BIRDS, -1),
        sizes=_signed(keys, "sizes", BIRDS * len(PARTS)).reshape(shape),
        tints=_signed(keys, "tints", BIRDS * (len(PARTS) + 1) * 4).reshape(len(index), BIRDS, -1, 4),
        plumages=(chances(keys, "plumage", BIRDS) * len(PLUMAGES)).astype(np.int64),
        themes=theme,
        backdrop=chances(keys, "backdrop", len(BACKDROP)),
        distractors=np.where(is_drawn, (distractors[..., 0] * len(DISTRACTORS)).astype(np.int64), -1),
        distractor_colors=(distractors[..., 1] * len(COLORS)).astype(np.int64),
        distractor_positions=distractors[..., 2:].copy(),
    )


_STREAMS = (
    *("scene", "distractors", "stance", "sizes", "tints", "plumage", "backdrop", "place"),
    *("dropout", "variation", "mixed", "colors", "caption", "negative", "other species"),
)


def chances(keys: Keys, stream: str, count: int) -> Floats:
    """(N, count) uniform numbers in [0, 1), decided by a scene's key, the stream and the position alone."""
    return uniform(random_keys(keys, _STREAMS.index(stream)), count)


def _signed(keys: Keys, stream: str, count: int) -> Floats:
    return chances(keys, stream, count) * np.float32(2) - np.float32(1)


def _bird_positions(keys: Keys, birds: Integers, placement: Placement) -> Floats:
    """(N, I, 4): one bird about the center or anywhere, several side by side."""
    chance = chances(keys, "place", BIRDS * 4).reshape(len(keys), BIRDS, 4)
    x, y, size = np.moveaxis(chance[..., :3] * 2 - 1, 2, 0)
    facing = np.where(chance[..., 3] < 0.5, -1, 1)
    column = (np.arange(BIRDS) + 0.5) / birds[:, None] + 0.05 * x
    several = column, 0.56 + 0.14 * y, (0.228 + 0.03 * size) * np.where(birds == 2, 0.66, 0.5)[:, None]
    if placement == "free":
        length = 0.45 + 0.15 * size
        reach = np.minimum(0.25, 0.48 - length / 2)
        single = 0.5 + reach * x, 0.5 + reach * y, length / 3.4
    else:
        single = 0.5 - 0.025 * facing + 0.06 * x, 0.55 + 0.08 * y, 0.228 + 0.03 * size
    is_single = birds[:, None] == 1
    position = [np.where(is_single, one, many) for one, many in zip(single, several, strict=True)]
    return np.stack([*position, facing], 2).astype(np.float32)


def _dress(grammar: Grammar, keys: Keys, labels: Integers, casting: Casting) -> tuple[Codes, Booleans]:
    """(N, P, 3) and (N, P): the parts of each scene, varied only so far that its species stays nearest."""
    species = grammar.codes[labels]
    if not grammar.relevant[1]:
        species = species.copy()
        species[..., 1] = np.argsort(chances(keys, "colors", len(PARTS)), 1)
    if casting.mixed:
        return _mix(grammar, keys, labels, species)
    codes, changed = _vary(keys, species, casting.variation)
    has_parts = np.array(grammar.has_parts)
    present = _drop(keys, changed, has_parts, casting.dropout)
    matches = grammar.matches(codes, present)
    own = np.take_along_axis(matches, labels[:, None], 1)[:, 0]
    np.put_along_axis(matches, labels[:, None], -1, 1)
    is_nearest = own > matches.max(1)
    present = (present | ~is_nearest[:, None]) & has_parts
    if casting.max_missing is not None:
        present = _drop_any(keys, has_parts, casting.dropout, casting.max_missing)
    return np.where(is_nearest[:, None, None], codes, species), present


def _vary(keys: Keys, codes: Codes, variation: float) -> tuple[Codes, Booleans]:
    """`codes` with one attribute of one part changed now and then, and (N, P) where."""
    chance = chances(keys, "variation", 4)
    part = (chance[:, 1] * len(PARTS)).astype(np.int64)
    is_patterned = np.isin(part, [PARTS.index(name) for name in PATTERNED])
    attribute = (chance[:, 2] * np.where(is_patterned, 3, 2)).astype(np.int64)
    rows = np.flatnonzero(chance[:, 0] < variation)
    codes = codes.copy()
    for p, name in enumerate(PARTS):
        choices = (range(len(SHAPES[name])), range(len(COLORS)), PATTERNED.get(name, (0,)))
        for a, values in enumerate(choices):
            varied = rows[(part[rows] == p) & (attribute[rows] == a)]
            position = np.searchsorted(values, codes[varied, p, a])
            step = 1 + (chance[varied, 3] * (len(values) - 1)).astype(np.int64)
            codes[varied, p, a] = np.asarray(values)[(position + step) % len(values)]
    changed = np.zeros((len(keys), len(PARTS)), bool)
    changed[rows, part[rows]] = True
    return codes, changed


def _drop(keys: Keys, changed: Booleans, has_parts: Booleans, dropout: float) -> Booleans:
    """(N, P): which parts are left, with 2 · changed + removed < 4."""
    chance = chances(keys, "dropout", 2 + len(PARTS))
    max_removed = 3 - 2 * changed.sum(1)
    removed = np.where(chance[:, 0] < dropout, 1 + (chance[:, 1] * max_removed).astype(np.int64), 0)
    order = np.argsort(np.argsort(chance[:, 2:] + changed + 2 * ~has_parts, 1), 1)  # a changed part is last
    return (order >= removed[:, None]) & has_parts


def _drop_any(keys: Keys, has_parts: Booleans, dropout: float, max_missing: int) -> Booleans:
    """(N, P): which parts are left, where birds that lack some lack 0 … `max_missing`, whichever they are."""
    chance = chances(keys, "dropout", 2 + len(PARTS))
    removed = np.where(chance[:, 0] < dropout, (chance[:, 1] * (max_missing + 1)).astype(np.int64), 0)
    order = np.argsort(np.argsort(chance[:, 2:] + ~has_parts, 1), 1)  # parts that no bird has are last
    return (order >= removed[:, None]) & has_parts


def _mix(grammar: Grammar, keys: Keys, labels: Integers, codes: Codes) -> tuple[Codes, Booleans]:
    """One part from another species, and 0 … 2 of the others missing."""
    chance = chances(keys, "mixed", 3 + 2 * len(PARTS))
    foreign = ~grammar.same(grammar.codes[labels][:, None], grammar.codes[None])  # (N, C, P)
    part = np.where(foreign.any(1), chance[:, 3 : 3 + len(PARTS)], -1).argmax(1)
    rows = np.arange(len(keys))
    donors = foreign[rows, :, part]  # (N, C)
    turn = 1 + (chance[:, 0] * donors.sum(1)).astype(np.int64)
    donor = (donors.cumsum(1) == turn[:, None]).argmax(1)
    codes = codes.copy()
    codes[rows, part] = np.where(grammar.relevant, grammar.codes[donor, part], codes[rows, part])
    swapped = np.zeros((len(keys), len(PARTS)), bool)
    swapped[rows, part] = True
    has_parts = np.array(grammar.has_parts)
    order = np.argsort(np.argsort(chance[:, 3 + len(PARTS) :] + swapped + 2 * ~has_parts, 1), 1)
    return codes, (order >= (chance[:, 1] * 3).astype(np.int64)[:, None]) & has_parts
