"""Which birds there are: a species is a word over seven parts, and words lie a known distance apart.

A part has a shape, a color and a pattern. A species joins a *shape word* (a variant of every part) with a
*color word* (which part wears which of the same seven colors). Every species wears every color once, so
that the colors of an image alone say little, and neither does its silhouette.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import permutations
from typing import Literal

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from explainkit.errors import InputError, UnknownNameError

Codes = NDArray[np.int16]
"""(…, P, 3): for each part its row in `SHAPES[part]`, in `COLORS` and in `PATTERNS`."""

PARTS = ("beak", "crest", "eye", "wing", "breast", "tail", "feet")
ATTRIBUTES = ("shape", "color", "pattern")
COLORS = ("red", "yellow", "green", "blue", "purple", "pink", "black")
PATTERNS = ("plain", "barred", "spotted", "streaked", "tipped")
PATTERNED = {"wing": (0, 1, 2, 4), "breast": (0, 1, 2, 3), "tail": (0, 1, 4)}
"""The patterns that a part can wear; other parts are plain."""

SHAPES = {
    "beak": ("cone", "dagger", "hooked", "curved", "spoon", "toucan"),
    "crest": ("spiky", "mohawk", "plume", "cap", "curl"),
    "eye": ("ringed", "striped", "cheeked"),
    "wing": ("round", "pointed", "feathered", "angular"),
    "breast": ("round", "bib", "sash"),
    "tail": ("fork", "fan", "long", "wedge", "square", "plume"),
    "feet": ("perching", "webbed", "boots"),
}

VARIANTS = {
    "beak": ("hooked", "dagger", "toucan", "curved", "cone", "spoon"),
    "crest": ("spiky", "mohawk", "plume", "curl", "cap"),
    "eye": ("ringed", "striped", "cheeked"),
    "wing": ("pointed barred", "round spotted", "feathered", "angular tipped", "pointed", "round barred"),
    "breast": ("round spotted", "bib streaked", "sash", "round", "bib spotted", "round barred"),
    "tail": ("fork", "fan barred", "plume", "long", "wedge tipped", "square barred"),
    "feet": ("perching", "webbed", "boots"),
}
"""Shape and pattern of a part, the most distinct first; a grammar uses the first few."""

FUNNY_VARIANTS = {
    "beak": ("hooked yellow", "dagger yellow", "toucan yellow", "curved yellow"),
    "eye": ("ringed purple", "striped purple", "cheeked purple"),
    "wing": tuple(f"{shape} {color}" for shape in ("pointed", "round") for color in ("red", "green", "blue")),
    "tail": tuple(
        f"{shape} {color}" for shape in ("fork", "fan", "plume") for color in ("red", "green", "blue")
    ),
    "feet": ("perching pink", "webbed pink", "boots pink", "perching black"),
}
"""As many variants of each part as FunnyBirds has: 4 beaks, 3 eyes, 6 wings, 9 tails, 4 feet.

There, too, beaks have one color, and wings and tails are a few shapes in three colors each. aviary has three
shapes of feet, so that the fourth variant is a color.
"""


@frozen(kw_only=True)
class Preset:
    """What makes one family of tasks.

    Attributes
    ----------
    variants : int
        Shapes in use per part.
    cues : {"both", "shape", "color"}
        What tells the species apart. With ``"shape"`` the colors are drawn anew for every image.
    paired : bool
        Only two colors per part, so that single parts seldom decide.
    shape_distance, color_distance : int
        Parts in which two different words differ at least, where so many words exist.
    siblings : bool
        Take words as near to each other as the distances allow.
    spurious : float
        How often the background of a *training* image depends on its species.
    variants_by_part : mapping of str to tuple of str, or None
        The parts that species have, and every variant of each as shape, color and pattern, to draw species
        from without a minimum distance. ``None``: all parts, and words of shapes and colors.
    max_missing : int or None
        The most parts that a training bird may lack, its species recognizable or not. ``None``: up to 3, and
        only as long as its species is the nearest.
    variation : float
        How often one part of a bird differs from its species, unless the data set is asked for another share.
    """

    variants: int = 3
    cues: Literal["both", "shape", "color"] = "both"
    paired: bool = False
    shape_distance: int = 4
    color_distance: int = 4
    siblings: bool = False
    spurious: float = 0.0
    variants_by_part: Mapping[str, tuple[str, ...]] | None = None
    max_missing: int | None = None
    variation: float = 0.1


PRESETS = {
    "standard": Preset(),
    "integrate": Preset(variants=2, paired=True),
    "shape": Preset(variants=4, cues="shape"),
    "color": Preset(cues="color"),
    "hard": Preset(shape_distance=1, color_distance=2, siblings=True),
    "clever-hans": Preset(spurious=0.98),
    "funny": Preset(variants_by_part=FUNNY_VARIANTS, max_missing=len(FUNNY_VARIANTS), variation=0.0),
}


@frozen(eq=False, kw_only=True)
class Grammar:
    """The species of one data set.

    Attributes
    ----------
    codes : array, (C, P, 3), int16
    relevant : tuple of bool
        Which of `ATTRIBUTES` tell species apart: all, or without the color.
    has_parts : tuple of bool
        Which of `PARTS` birds can have: all, or some. Codes of the others are zeros.
    """

    codes: Codes = field(repr=False)
    relevant: tuple[bool, bool, bool] = (True, True, True)
    has_parts: tuple[bool, ...] = (True,) * len(PARTS)

    def __len__(self) -> int:
        return len(self.codes)

    def same(self, codes: Codes, others: Codes) -> NDArray[np.bool_]:
        """(…, P): whether parts agree in all relevant attributes; shapes broadcast."""
        return (codes == others)[..., self.relevant].all(-1)

    def evidence(self, codes: Codes, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N, P, C): which parts `present` (N, P) of birds of `codes` (N, P, 3) each species has too."""
        return np.moveaxis(self.same(codes[:, None], self.codes[None]) & present[:, None], 1, 2)

    def matches(self, codes: Codes, present: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(N, C): how many parts each species has in common; the logits of the ideal observer."""
        return self.evidence(codes, present).sum(1)

    @cached_property
    def shared(self) -> NDArray[np.bool_]:
        """(C, C, P): which parts two species have in common."""
        return self.same(self.codes[:, None], self.codes[None]) & np.array(self.has_parts)

    @cached_property
    def distances(self) -> NDArray[np.int64]:
        """(C, C): the number of parts in which two species differ."""
        return len(PARTS) - self.same(self.codes[:, None], self.codes[None]).sum(-1)

    @cached_property
    def distance(self) -> int:
        """The smallest distance between two species."""
        return int(self.distances[~np.eye(len(self), dtype=bool)].min())

    def differing(self, species: int, other: int) -> tuple[str, ...]:
        """The parts in which two species differ: the candidates of a counterfactual."""
        same = self.same(self.codes[species], self.codes[other])
        return tuple(part for part, is_same in zip(PARTS, same, strict=True) if not is_same)

    def minimal_sufficient(self, species: int) -> tuple[tuple[str, ...], ...]:
        """The smallest sets of parts that no other species shares as a whole; none contains another."""
        bits = 1 << np.arange(len(PARTS))
        differs = ~self.same(self.codes, self.codes[species]) @ bits
        differs = np.delete(differs, species)
        subsets = np.arange(1 << len(PARTS))
        sufficient = ((subsets[:, None] & differs[None]) != 0).all(1)
        smaller = subsets[:, None] & ~bits[None]
        # Taking away any one part (where it is in the set at all) must leave too little.
        minimal = sufficient & ~(sufficient[smaller] & (smaller != subsets[:, None])).any(1)
        parts = [tuple(p for p, bit in zip(PARTS, bits, strict=True) if s & bit) for s in subsets[minimal]]
        return tuple(sorted(parts, key=len))


def grammar(classes: int, preset: str = "standard", seed: int = 0) -> Grammar:
    """The species of `preset`, as far apart as so many can be (4 of 7 parts, if nothing else is said).

    Raises
    ------
    UnknownNameError
        Where no preset is called so.
    """
    if preset not in PRESETS:
        raise UnknownNameError(f"aviary has no preset {preset!r}. There are: {', '.join(PRESETS)}.")
    if not 5 <= classes <= 200:
        raise InputError(f"Expected 5 … 200 classes; got {classes}.")
    settings = PRESETS[preset]
    rng = np.random.default_rng(seed)
    if settings.variants_by_part is not None:
        return _random_species(classes, settings.variants_by_part, rng)
    color_words = {"shape": 1, "color": classes, "both": max(2, round(classes**0.5))}[settings.cues]
    if settings.paired:
        color_words = min(color_words, 8)
    shape_words = -(-classes // color_words)
    shapes = _distant_words(
        shape_words, _shape_words(settings), settings.shape_distance, settings.siblings, rng
    )
    colors = _distant_words(
        color_words, _color_words(settings, rng), settings.color_distance, settings.siblings, rng
    )
    species = np.arange(classes)
    codes = _spell_codes(shapes[species % shape_words], colors[species // shape_words])
    return Grammar(codes=codes, relevant=(True, settings.cues != "shape", True))


def _random_species(
    classes: int, variants_by_part: Mapping[str, tuple[str, ...]], rng: np.random.Generator
) -> Grammar:
    """Species that have some of the parts, drawn from all combinations of variants; no two are the same."""
    counts = [len(variants) for variants in variants_by_part.values()]
    words = np.unravel_index(rng.permutation(np.prod(counts))[:classes], counts)
    codes = np.zeros((classes, len(PARTS), 3), np.int16)
    for (part, variants), word in zip(variants_by_part.items(), words, strict=True):
        split = [(*variant.split(), "plain")[:3] for variant in variants]
        table = [(SHAPES[part].index(s), COLORS.index(c), PATTERNS.index(p)) for s, c, p in split]
        codes[:, PARTS.index(part)] = np.array(table, np.int16)[word]
    return Grammar(codes=codes, has_parts=tuple(part in variants_by_part for part in PARTS))


def _shape_words(settings: Preset) -> NDArray[np.int64]:
    counts = [min(settings.variants, len(VARIANTS[part])) for part in PARTS]
    return np.indices(counts).reshape(len(PARTS), -1).T


def _color_words(settings: Preset, rng: np.random.Generator) -> NDArray[np.int64]:
    """(words, P): which part wears which color; each word is a permutation."""
    if settings.paired:
        word, pairs = rng.permutation(len(PARTS)), rng.permutation(len(PARTS))[:6].reshape(3, 2)
        words = np.tile(word, (8, 1))
        for swapped in range(8):
            for i, (one, other) in enumerate(pairs):
                if swapped >> i & 1:
                    words[swapped, [one, other]] = words[swapped, [other, one]]
        return words
    return np.array(list(permutations(range(len(PARTS)))))


def _distant_words(
    count: int, words: NDArray[np.int64], distance: int, siblings: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` of `words` that differ in `distance` places or, failing that, in as many as can be."""
    for lower in range(distance, 0, -1):
        for _ in range(30):
            chosen = _choose_greedily(count, words[rng.permutation(len(words))], lower, siblings)
            if len(chosen) == count:
                return chosen
    raise InputError(f"Expected at most {len(words)} different words; got {count}. Ask for fewer classes.")


def _choose_greedily(
    count: int, words: NDArray[np.int64], distance: int, siblings: bool
) -> NDArray[np.int64]:
    chosen = [0]
    nearest = (words != words[0]).sum(1)  # to any chosen word
    while len(chosen) < count and (nearest >= distance).any():
        allowed = np.flatnonzero(nearest >= distance)
        following = int(allowed[nearest[allowed].argmin()] if siblings else allowed[0])
        chosen.append(following)
        nearest = np.minimum(nearest, (words != words[following]).sum(1))
    return words[chosen]


def _spell_codes(shapes: NDArray[np.int64], colors: NDArray[np.int64]) -> Codes:
    """(C, P, 3) from words (C, P) of variants and of colors."""
    codes = np.zeros((len(shapes), len(PARTS), 3), np.int16)
    codes[..., 1] = colors
    for p, part in enumerate(PARTS):
        variants = [(*variant.split(), "plain")[:2] for variant in VARIANTS[part]]
        table = np.array(
            [(SHAPES[part].index(shape), PATTERNS.index(pattern)) for shape, pattern in variants]
        )
        codes[:, p, 0::2] = table[shapes[:, p]]
    return codes
