"""The words of aviary: what parts, colors, patterns, shapes, places and species are called.

Within one part no word stands for two things, so that a phrase can be read back.
"""

NOUNS = {
    "beak": ("beak", "bill"),
    "crest": ("crest", "crown", "tuft"),
    "eye": ("eye", "eyes"),
    "wing": ("wing", "wings"),
    "breast": ("breast", "chest"),
    "tail": ("tail", "tail feathers"),
    "feet": ("feet", "legs"),
}
PLURALS = {"eyes", "wings", "tail feathers", "feet", "legs"}
COLOR_WORDS = {
    "red": ("red", "crimson", "scarlet"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "black": ("black", "dark"),
}
PATTERN_WORDS = {
    "barred": ("barred", "banded"),
    "spotted": ("spotted", "speckled"),
    "streaked": ("streaked",),
    "tipped": ("pale-tipped", "two-toned"),
}
SHAPE_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "beak": {
        "cone": ("stubby", "conical"),
        "dagger": ("dagger-like", "straight"),
        "hooked": ("hooked",),
        "curved": ("curved", "down-curved"),
        "spoon": ("spoon-shaped", "flat"),
        "toucan": ("huge", "massive"),
    },
    "crest": {
        "spiky": ("spiky", "jagged"),
        "mohawk": ("domed", "mohawk-like"),
        "plume": ("plumed", "feathery"),
        "cap": ("cap-like", "flat"),
        "curl": ("curly", "curled"),
    },
    "eye": {
        "ringed": ("ringed", "wide"),
        "striped": ("masked", "striped"),
        "cheeked": ("cheeked", "blushing"),
    },
    "wing": {
        "round": ("rounded", "round"),
        "pointed": ("pointed", "sharp"),
        "feathered": ("fingered", "feathered"),
        "angular": ("angular", "jagged"),
    },
    "breast": {
        "round": ("rounded", "round"),
        "bib": ("bibbed", "bib-shaped"),
        "sash": ("sashed", "sash-like"),
    },
    "tail": {
        "fork": ("forked", "swallow-like"),
        "fan": ("fanned", "fan-shaped"),
        "long": ("long", "slender"),
        "wedge": ("wedge-shaped", "diamond-shaped"),
        "square": ("square", "blunt"),
        "plume": ("plumed", "lyre-shaped"),
    },
    "feet": {"perching": ("slender", "slim"), "webbed": ("webbed",), "boots": ("booted", "feathered")},
}
THEME_PHRASES = {
    "meadow": ("in a meadow", "on a green hill"),
    "forest": ("in a forest", "among trees"),
    "lake": ("by a lake", "near the water"),
    "desert": ("in the desert", "among dunes"),
    "snow": ("in the snow", "in winter"),
    "sunset": ("at sunset", "in the evening"),
    "night": ("at night", "under the moon"),
    "studio": ("against a plain wall", "in a studio"),
}
SPECIES_NOUNS: dict[str, dict[str, str]] = {
    "tail": {
        "fork": "forktail",
        "fan": "fantail",
        "long": "longtail",
        "wedge": "wedgetail",
        "square": "bobtail",
        "plume": "lyretail",
    },
    "beak": {
        "cone": "finchbill",
        "dagger": "daggerbill",
        "hooked": "hookbill",
        "curved": "sicklebill",
        "spoon": "spoonbill",
        "toucan": "greatbill",
    },
    "crest": {
        "spiky": "spikecrest",
        "mohawk": "domecrest",
        "plume": "plumecrest",
        "cap": "capcrest",
        "curl": "curlcrest",
    },
}
SPECIES_ADJECTIVES = {
    "wing": "winged",
    "breast": "breasted",
    "feet": "footed",
    "eye": "eyed",
    "beak": "billed",
    "tail": "tailed",
    "crest": "crested",
}
