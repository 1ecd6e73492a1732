"""The colors of aviary, as RGB in [0, 1]."""

import numpy as np

from explainkit.data.datasets.aviary.grammar import COLORS
from explainkit.data.datasets.aviary.scenes import PLUMAGES, THEMES, Floats


def _table(names: tuple[str, ...], colors: dict[str, str]) -> Floats:
    """(names, RGB) or (names, colors, RGB) from hexadecimal words."""
    rows = [
        [[int(word[i : i + 2], 16) for i in (0, 2, 4)] for word in colors[name].split()] for name in names
    ]
    return (np.array(rows, np.float32) / 255).squeeze()


FEATHERS = _table(
    COLORS,
    {
        "red": "d64045",
        "yellow": "f7cb4c",
        "green": "56a866",
        "blue": "3e7cc8",
        "purple": "8a5cb8",
        "pink": "f092b4",
        "black": "34303c",
    },
)
BODIES = _table(
    PLUMAGES,
    {
        "gray": "9698a0",
        "tan": "cdac82",
        "brown": "8c6852",
        "cream": "ecdec2",
        "slate": "68768a",
        "olive": "8c9264",
    },
)
LANDSCAPES = _table(  # top and bottom of the sky, far hills, near hills, plants
    THEMES,
    {
        "meadow": "86c4eb e2f2f6 96c878 76b25c 609654",
        "forest": "a8d0c4 e2ecd6 5c8e68 427056 346048",
        "lake": "96ccee eef0e4 70acce 5494be 6e9664",
        "desert": "f6ce96 fcecce e8be82 d6a468 6e9660",
        "snow": "b0cee6 ecf2f8 e8f0f6 f8fafc 6e968c",
        "sunset": "7a5a96 fab07e 965c7a 6a426a 503458",
        "night": "3a427a 807eb6 545e92 424c7c 343e6a",
        "studio": "ded6e2 f0eaec d8ccd8 ccc2c4 beb2c4",
    },
)
PAPER = np.array([0.97, 0.94, 0.88], np.float32)
"""The second color of every pattern: it must not tell the part's own."""
INK = np.array([0.23, 0.19, 0.22], np.float32)
"""The one color of every outline: one in the part's own would tell its perimeter to a color histogram."""
EYE_WHITE = np.array([0.99, 0.98, 0.96], np.float32)
PUPIL = np.array([0.09, 0.08, 0.12], np.float32)
SUN = np.array([1.0, 0.93, 0.70], np.float32)
MOON = np.array([0.95, 0.95, 0.88], np.float32)
