"""CUB-200-2011 as its archive has it: small photographs and lists, all written here."""

import numpy as np
from PIL import Image

PARTS = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape",
    "right eye", "right leg", "right wing", "tail", "throat",
)  # fmt: skip
CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
COLORS = ((200, 60, 60), (60, 170, 60), (60, 60, 200))
TRAINING, TESTED = 6, 3
"""Images of a class."""


class CubArchive:
    """The folder CUB_200_2011 of small photographs, and what its lists say."""

    def __init__(self, folder, size=(80, 60)):
        self.root = folder / "CUB_200_2011"
        chance = np.random.default_rng(0)
        self.names, self.labels, self.training, self.boxes, self.points = [], [], [], [], []
        for label, name in enumerate(CLASSES):
            (self.root / "images" / name).mkdir(parents=True)
            for index in range(TRAINING + TESTED):
                file = f"{name}/{name[4:]}_{index:04}_{label}.jpg"
                x, y = chance.integers(2, 20, 2).tolist()
                width, height = chance.integers(30, 40, 2).tolist()
                pixels = chance.integers(90, 120, (size[1], size[0], 3), dtype=np.uint8)
                pixels[y : y + height, x : x + width] = COLORS[label]
                Image.fromarray(pixels).save(self.root / "images" / file, quality=95)
                self.names.append(file)
                self.labels.append(label + 1)
                self.training.append(int(index < TRAINING))
                self.boxes.append([x, y, width, height])
                self.points.append(self._points(chance, x, y, width, height))
        self.write()

    def _points(self, chance, x, y, width, height):
        """The first part outside of the box, the second not seen, all others in the box."""
        in_box = [
            [x + int(chance.integers(width)), y + int(chance.integers(height)), 1] for _ in range(len(PARTS))
        ]
        return [[x + width + 3, y, 1], [0, 0, 0], *in_box[2:]]

    def write(self):
        """All lists, each line as the archive has it."""
        (self.root / "parts").mkdir(exist_ok=True)
        ids = range(1, len(self.names) + 1)
        lists = {
            "images.txt": zip(ids, self.names, strict=True),
            "classes.txt": enumerate(CLASSES, 1),
            "image_class_labels.txt": zip(ids, self.labels, strict=True),
            "train_test_split.txt": zip(ids, self.training, strict=True),
            "bounding_boxes.txt": ((i, *map(float, box)) for i, box in zip(ids, self.boxes, strict=True)),
            "parts/parts.txt": enumerate(PARTS, 1),
            "parts/part_locs.txt": (
                (i, part, float(x), float(y), seen)
                for i, points in zip(ids, self.points, strict=True)
                for part, (x, y, seen) in enumerate(points, 1)
            ),
        }
        for name, rows in lists.items():
            text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
            (self.root / name).write_text(text)

    def change(self, name, number, line):
        """Replace a line, counted from 0, of one list; ``None`` takes it out."""
        lines = (self.root / name).read_text().splitlines()
        lines[number : number + 1] = [] if line is None else [line]
        (self.root / name).write_text("\n".join(lines) + "\n")

    def photograph(self, file):
        return Image.open(self.root / "images" / file).convert("RGB")

    def write_sentences(self, folder):
        """Ten lines an image, as Reed et al. have them."""
        for file in self.names:
            path = folder / "text_c10" / file.replace(".jpg", ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"sentence {n} of {file}\n" for n in range(10)))


def numbers_of(dataset, split, archive):
    """The numbers of the archive for the ids of a split, from 0."""
    return [
        archive.names.index(file.relative_to(archive.root / "images").as_posix())
        for file in dataset.splits[split].files
    ]
