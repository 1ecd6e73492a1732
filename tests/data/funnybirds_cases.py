"""FunnyBirds as its archive has it: tiny pictures and lists, all written here."""

import copy
import itertools
import json
import shutil
import zipfile

import numpy as np
from PIL import Image

import explainkit as ek

SIDE = 24
PARTS = {
    "beak": [{"model": f"beak0{n}.glb", "color": "yellow"} for n in (1, 2)],
    "eye": [{"model": f"eye0{n}.glb"} for n in (1, 2, 3)],
    "foot": [{"model": f"foot0{n}.glb"} for n in (1, 2)],
    "tail": [{"model": "tail01.glb", "color": color} for color in ("red", "green")],
    "wing": [{"model": "wing01.glb", "color": color} for color in ("red", "blue")],
}
CODES = ((0, 0, 0, 0, 0), (1, 0, 1, 0, 1), (0, 2, 0, 1, 1))
"""The variant of each part of each class."""
COMPLETE, INCOMPLETE, TESTED = 4, 2, 2
"""Birds of a class: for training with and without all parts, and for the test."""
WHERE = {
    "beak": [(slice(2, 5), slice(10, 14), (255, 255, 0))],
    "eye": [(slice(6, 8), slice(7, 9), (255, 255, 253)), (slice(6, 8), slice(15, 17), (255, 255, 254))],
    "foot": [(slice(18, 21), slice(8, 10), (255, 0, 1)), (slice(18, 21), slice(14, 16), (255, 0, 2))],
    "tail": [(slice(15, 17), slice(11, 13), (0, 0, 255))],
    "wing": [(slice(10, 14), slice(3, 6), (0, 255, 1)), (slice(10, 14), slice(18, 21), (0, 255, 2))],
}
"""Rows, columns and color in a part map, of each half of a part."""
BODY = (slice(5, 18), slice(6, 18), (170, 170, 170))
LISTS = ("classes.json", "parts.json", "dataset_train.json", "dataset_test.json")


class FunnyBirdsArchive:
    """The folder FunnyBirds, of pictures of 24 pixels a side, or of its lists alone."""

    def __init__(self, above, pictures=True):
        self.above, self.root = above, above / "FunnyBirds"
        self.root.mkdir()
        chance = np.random.default_rng(0)
        self.scenes = {"train": [], "test": []}
        for label in range(len(CODES)):
            self.scenes["train"] += [self.scene(chance, label, ()) for _ in range(COMPLETE)]
            lacking = [("beak",), tuple(PARTS)][:INCOMPLETE]
            self.scenes["train"] += [self.scene(chance, label, parts) for parts in lacking]
            self.scenes["test"] += [self.scene(chance, label, (), objects=n) for n in (0, 3)]
        classes = [
            {"class_idx": label, "parts": dict(zip(PARTS, code, strict=True))}
            for label, code in enumerate(CODES)
        ]
        self.write("parts.json", PARTS)
        self.write("classes.json", classes)
        for mode, scenes in self.scenes.items():
            self.write(f"dataset_{mode}.json", scenes)
        if pictures:
            self.draw()

    def draw(self):
        for mode, scenes in self.scenes.items():
            for number, scene in enumerate(scenes):
                self.save(self.drawn(scene, self.present(scene)), self.file(mode, number))
        for number, scene in enumerate(self.scenes["test"]):
            self.save(self.part_map(scene), self.file("test_part_map", number))
            below = self.file("test_interventions", number).with_suffix("")
            for kept in self.subsets():
                self.save(self.drawn(scene, kept), below / f"body_{'_'.join(kept)}.png")
            for lacking in range(scene["bg_objects"].count(",")):
                file = below / "background_interventions" / f"{lacking}.png"
                self.save(self.drawn(scene, PARTS, without=lacking), file)

    def copied(self, above):
        """The same in another folder."""
        other = copy.copy(self)
        other.above, other.root = above, above / "FunnyBirds"
        shutil.copytree(self.root, other.root)
        return other

    @staticmethod
    def subsets():
        return [kept for count in range(6) for kept in itertools.combinations(PARTS, count)]

    @staticmethod
    def scene(chance, label, lacking, objects=1):
        scene = {"class_idx": label, "camera_distance": 300, "camera_pitch": 1.5, "light_distance": 300}
        for (part, variants), variant in zip(PARTS.items(), CODES[label], strict=True):
            for key, value in variants[variant].items():
                scene[f"{part}_{key}"] = "placeholder" if part in lacking else value
        scene["bg_objects"] = "".join(f"{chance.integers(5)}," for _ in range(objects))
        scene["bg_radius"] = "".join(f"{chance.integers(100, 200)}," for _ in range(objects))
        return scene

    @staticmethod
    def present(scene):
        return [part for part in PARTS if scene[f"{part}_model"] != "placeholder"]

    @staticmethod
    def drawn(scene, kept, without=None):
        """A picture (H, W, 3): objects of the background at the left border, the body, and the parts."""
        pixels = np.full((SIDE, SIDE, 3), (85, 85, 153), np.uint8)
        for number, radius in enumerate(scene["bg_radius"].split(",")[:-1]):
            if number != without:
                pixels[4 * number : 4 * number + 3, :2] = (0, int(radius), 0)
        pixels[BODY[:2]] = BODY[2]
        for part in kept:
            shade = 40 + 50 * CODES[scene["class_idx"]][list(PARTS).index(part)]
            for rows, columns, color in WHERE[part]:
                pixels[rows, columns] = [min(value, 200) // 2 + shade for value in color]
        return pixels

    @staticmethod
    def part_map(scene):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        for number in range(scene["bg_objects"].count(",")):
            pixels[4 * number : 4 * number + 3, :2] = (204, 204, 204 + number)
        pixels[BODY[:2]] = BODY[2]
        pixels[5, 6:18] = (90, 90, 90)  # an edge, where colors mix
        for halves in WHERE.values():
            for rows, columns, color in halves:
                pixels[rows, columns] = color
        return pixels

    def file(self, folder, number):
        label = self.scenes[folder.partition("_")[0]][number]["class_idx"]
        return self.root / folder / str(label) / f"{number:06}.png"

    def save(self, pixels, file):
        """As the authors do, with an opaque fourth channel."""
        file.parent.mkdir(parents=True, exist_ok=True)
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        Image.fromarray(np.concatenate([pixels, opaque], 2)).save(file)

    def write(self, name, value):
        (self.root / name).write_text(json.dumps(value))

    def change(self, name, change):
        """Write one list anew, as the function `change` leaves it."""
        value = json.loads((self.root / name).read_text())
        self.write(name, change(value) or value)

    def zipped(self, file, top="FunnyBirds/"):
        """The archive as one file."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(self.root.rglob("*")):
                archive.write(path, top + path.relative_to(self.root).as_posix())
        return file

    def dataset(self, **settings):
        return ek.dataset("funnybirds", **{"path": self.root, "size": SIDE, **settings})
