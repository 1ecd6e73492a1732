"""PASCAL-Part on VOC 2010 as their archives have it: small pictures and annotations, all written here."""

import numpy as np
from PIL import Image
from scipy.io import savemat

import explainkit as ek

SHAPE = (100, 140)
"""Height and width of a picture."""
CLASSES = ("bird", "cat")
TAIL = {"bird": ("tail", (220, 40, 40)), "cat": ("tail", (40, 40, 220))}


def rectangle(x0, y0, x1, y1):
    mask = np.zeros(SHAPE, np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def structs(names, rows):
    """A struct array of 1 x n, or MATLAB's [] where n is 0."""
    if not rows:
        return np.empty((0, 0))
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for index, row in enumerate(rows):
        array[0, index] = row
    return array


def thing(name, mask, parts=()):
    """One object of an annotation."""
    return name, 3.0, mask, structs(("part_name", "mask"), list(parts))


def animal(name, x, y):
    """An animal of 60 x 50 pixels at (x, y) with two eyes, legs and a tail."""
    mask = rectangle(x, y, x + 60, y + 50)
    parts = [
        ("leye", rectangle(x + 4, y + 6, x + 10, y + 12)),
        ("reye", rectangle(x + 16, y + 6, x + 22, y + 12)),
        ("lfleg" if name == "cat" else "lleg", rectangle(x + 10, y + 36, x + 16, y + 50)),
        ("tail", rectangle(x + 40, y + 20, x + 60, y + 40)),
    ]
    return thing(name, mask, parts)


class Devkit:
    """The folder VOC2010 and the annotations, of small pictures."""

    def __init__(self, above):
        self.above, self.root = above, above / "VOCdevkit" / "VOC2010"
        self.masks = above / "Annotations_Part"
        self.lists = self.root / "ImageSets" / "Main"
        for folder in (self.lists, self.root / "JPEGImages", self.masks):
            folder.mkdir(parents=True)
        self.objects = {}
        chance = np.random.default_rng(0)
        for number in range(14):
            name = CLASSES[number % 2]
            x, y = int(chance.integers(1, 78)), int(chance.integers(1, 48))
            self.add("train" if number < 9 else "val", f"2008_{number:06}", [animal(name, x, y)])

    def add(self, split, name, objects, compressed=True):
        """A picture, its annotation, and its line in a list."""
        self.objects[name] = objects
        self.annotate(name, objects, compressed)
        pixels = np.full((*SHAPE, 3), 128, np.uint8)
        for kind, _, mask, parts in objects:
            pixels[mask > 0] = 90
            for part in parts.flat:
                if part["part_name"] == "tail":
                    pixels[part["mask"] > 0] = TAIL[kind][1]
        Image.fromarray(pixels).save(self.root / "JPEGImages" / f"{name}.jpg", quality=95)
        with (self.lists / f"{split}.txt").open("a") as file:
            file.write(f"{name}\n")

    def annotate(self, name, objects, compressed=True):
        anno = structs(
            ("imname", "objects"), [(name, structs(("class", "class_ind", "mask", "parts"), objects))]
        )
        savemat(self.masks / f"{name}.mat", {"anno": anno}, do_compression=compressed)

    def dataset(self, **settings):
        return ek.dataset("pascal-part", **{"path": self.root, "classes": CLASSES, "size": 48, **settings})


def pictures(split):
    return [part_object.picture.stem for part_object in split.objects]
