"""PASCAL-Part: files and settings that are refused, each with a message that names the cause."""

import numpy as np
import pytest
from pascal_part_cases import rectangle, structs
from PIL import Image
from scipy.io import savemat
from split_cases import whole_batch

import explainkit as ek
from explainkit.errors import FormatError


@pytest.mark.parametrize(
    "what", ["ImageSets/Main/train.txt", "ImageSets/Main/val.txt", "JPEGImages/2008_000003.jpg"]
)
def test_a_file_that_is_missing_is_named_at_once(devkit, what):
    (devkit.root / what).unlink()

    with pytest.raises(ek.InputError, match=what.rpartition("/")[2]):
        devkit.dataset()


def test_an_annotation_that_is_missing_is_named_at_once(devkit):
    (devkit.masks / "2008_000011.mat").unlink()

    with pytest.raises(ek.InputError, match="2008_000011"):
        devkit.dataset()


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "..\\a", "C:\\a"])
def test_a_name_that_leads_out_of_the_folder_is_refused(devkit, name):
    (devkit.lists / "val.txt").write_text(f"{name}\n")

    with pytest.raises(FormatError, match="Expected the name of a file in"):
        devkit.dataset()


def annotation(**fields):
    """An annotation of one object with these fields."""
    usual = {"class": "cat", "mask": rectangle(0, 0, 9, 9), "parts": np.empty((0, 0))}
    values = {**usual, **fields}
    return structs(("objects",), [(structs(tuple(values), [tuple(values.values())]),)])


WRONG = {
    "no structs": np.ones((2, 2)),
    "text": "an annotation",
    "objects of numbers": structs(("imname", "objects"), [("a", np.ones((1, 3)))]),
    "no objects": structs(("imname",), [("a",)]),
    "a mask of text": annotation(mask="mask"),
    "a mask of structs": annotation(mask=structs(("a",), [(1.0,)])),
    "a name of numbers": annotation(**{"class": 3.0}),
    "parts of text": annotation(parts="tail"),
    "parts without names": annotation(parts=structs(("mask",), [(rectangle(0, 0, 9, 9),)])),
    "a part of another size": annotation(parts=structs(("part_name", "mask"), [("tail", np.ones((3, 3)))])),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_annotation_of_another_form_is_refused_in_words(devkit, what):
    savemat(devkit.masks / "2008_000004.mat", {"anno": WRONG[what]})

    with pytest.raises(FormatError, match=r"Expected .*2008_000004\.mat"):
        devkit.dataset()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no annotation",
        b"MATLAB 7.3 MAT-file".ljust(600),
        b"MATLAB 5.0".ljust(126) + b"IM" + b"\x0f" * 64,
    ],
)
def test_an_annotation_that_is_damaged_is_refused_in_words(devkit, content):
    (devkit.masks / "2008_000004.mat").write_bytes(content)

    with pytest.raises(FormatError, match=r"Expected a MATLAB file.*2008_000004\.mat"):
        devkit.dataset()


def test_an_annotation_of_another_picture_is_refused_when_it_is_reached(devkit):
    Image.new("RGB", (50, 50)).save(devkit.root / "JPEGImages" / "2008_000010.jpg")
    dataset = devkit.dataset()

    with pytest.raises(FormatError, match=r"Expected 140 x 100 pixels.*got 50 x 50 in .*2008_000010\.jpg"):
        whole_batch(dataset.test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": "cat"}, "a list of two or more different classes"),
        ({"classes": ["cat"]}, "a list of two or more different classes"),
        ({"classes": ["cat", "cat"]}, "a list of two or more different classes"),
        ({"classes": ["cat", "bird", "sheep"]}, "train split; there are none of sheep"),
        ({"minimum_area": 10**6}, "train split; there are none of bird, cat that are large enough"),
        ({"margin": -0.1}, "Expected margin and minimum_area of at least 0"),
        ({"validation": 0}, "Expected a validation share between 0 and 1"),
        ({"size": (0, 4)}, "Expected a size in pixels"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_in_words(shared_devkit, settings, message):
    with pytest.raises(ek.InputError, match=message):
        shared_devkit.dataset(**settings)


def test_a_class_that_is_not_in_the_test_split_is_reported(devkit):
    names = (devkit.lists / "val.txt").read_text().split()
    (devkit.lists / "val.txt").write_text("\n".join(names[::2]))

    with pytest.raises(ek.InputError, match="test split; there are none of bird"):
        devkit.dataset()
