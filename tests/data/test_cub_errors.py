"""CUB-200-2011: archives and settings that are refused, each with a message that names the cause."""

import os

import pytest
from cub_cases import CLASSES, TRAINING
from split_cases import whole_batch

import explainkit as ek
from explainkit.errors import FormatError

LISTS = (
    "images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt",
    "parts/parts.txt", "parts/part_locs.txt",
)  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_missing_is_named(archive, name):
    (archive.root / name).unlink()

    with pytest.raises(ek.InputError, match=name.rpartition("/")[2]):
        ek.dataset("cub", path=archive.root)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "text", [b"", b"1\n", b"one two\n", b"\xff\xfe\x00", b"1 nan 1 1 1\n", b"9999999999 1 1 1 1\n"]
)
def test_a_list_of_another_form_is_refused_in_words(archive, name, text):
    (archive.root / name).write_bytes(text)

    with pytest.raises((FormatError, ek.InputError), match="Expected"):
        ek.dataset("cub", path=archive.root)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("image_class_labels.txt", None, "image 3 is in only one"),
        ("train_test_split.txt", "99 1", "image 3 is in only one"),
        ("bounding_boxes.txt", "1 2.0 2.0 3.0 3.0", "only one"),
        ("image_class_labels.txt", "3 4", "a class of classes.txt for image 3.*got 4"),
        ("image_class_labels.txt", "3 1.5", "a class of classes.txt for image 3"),
        ("train_test_split.txt", "3 2", "0 or 1 in train_test_split.txt for image 3.*got 2"),
        ("bounding_boxes.txt", "3 1.0 1.0 0.0 5.0", "a width and height.*image 3.*got"),
        ("bounding_boxes.txt", "3 1.0 1.0 inf 5.0", "finite"),
        ("bounding_boxes.txt", "3 1.0 1.0 x 5.0", "Expected 5 numbers"),
        ("bounding_boxes.txt", "3 1.0 1.0 5.0", "Expected 5 numbers"),
        ("parts/part_locs.txt", "1 16 3.0 3.0 1", "known image and part.*16"),
        ("parts/part_locs.txt", "88 1 3.0 3.0 1", "known image and part.*88"),
        ("parts/part_locs.txt", "1 3 3.0 3.0 2", "known image and part"),
        ("images.txt", "2 a.jpg", "number of its own"),
        ("classes.txt", "1 001.Again", "number of its own"),
        ("classes.txt", CLASSES[1], "a number of its own and a name"),
    ],
)  # fmt: skip
def test_lists_that_do_not_agree_are_refused_in_words(archive, name, line, message):
    archive.change(name, 2, line)

    with pytest.raises(FormatError, match=message):
        ek.dataset("cub", path=archive.root)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b.jpg",
        "..\\..\\b.jpg",
        "C:\\b.jpg",
        "\\\\host\\b.jpg",
        "a\x00b.jpg",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(archive, name):
    archive.change("images.txt", 2, f"3 {name}")

    with pytest.raises(FormatError, match=r"Expected the name of a file in .*images"):
        ek.dataset("cub", path=archive.root)


def test_a_photograph_that_is_missing_is_reported_at_once(archive):
    for number in (1, 7):
        (archive.root / "images" / archive.names[number]).unlink()

    with pytest.raises(ek.InputError, match="Is the archive unpacked completely"):
        ek.dataset("cub", path=archive.root)


def test_a_photograph_that_is_damaged_is_named_when_it_is_reached(archive):
    (archive.root / "images" / archive.names[TRAINING]).write_bytes(b"no picture")
    dataset = ek.dataset("cub", path=archive.root, size=8)

    with pytest.raises(ek.InputError, match=archive.names[TRAINING]):
        whole_batch(dataset.test)


@pytest.mark.parametrize("box", [[500, 2, 5, 5], [2, -9, 5, 5], [1e300, 1e300, 1e300, 1]])
def test_a_box_beside_its_photograph_is_named_when_it_is_reached(archive, box):
    archive.boxes[TRAINING] = box
    archive.write()
    dataset = ek.dataset("cub", path=archive.root, size=8)

    with pytest.raises(FormatError, match=f"Expected a box within the 80 x 60.*{archive.names[TRAINING]}"):
        whole_batch(dataset.test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "Expected 2 … 3 classes"),
        ({"classes": 4}, "Expected 2 … 3 classes.*got 4"),
        ({"classes": "Sooty Albatross"}, "a number or a list of names"),
        ({"classes": ["Sooty Albatross"]}, "Expected 2 … 3 classes"),
        ({"classes": ["Laysan Albatross", "Sooty Albatros"]}, "Did you mean 'Sooty Albatross'"),
        ({"validation": 0}, "Expected a validation share between 0 and 1"),
        ({"validation": 1.0}, "Expected a validation share between 0 and 1"),
        ({"size": 0}, "Expected a size in pixels"),
        ({"size": (3, 4, 5)}, "Expected a size in pixels"),
        ({"size": "large"}, "Expected a size in pixels"),
        ({"path": "nowhere"}, "Expected images.txt of CUB-200-2011 at"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_refused_in_words(shared_archive, settings, message):
    with pytest.raises(ek.ExplainKitError, match=message):
        ek.dataset("cub", **{"path": shared_archive.root, **settings})


@pytest.mark.parametrize(
    ("training", "message"), [(0, "Expected at least two training images"), (1, "Expected test images")]
)
def test_an_empty_split_is_refused_in_words(archive, training, message):
    archive.training = [training] * len(archive.training)
    archive.write()

    with pytest.raises(ek.InputError, match=message):
        ek.dataset("cub", path=archive.root)


def test_a_list_that_is_a_pipe_is_not_waited_for(archive):
    (archive.root / "classes.txt").unlink()
    os.mkfifo(archive.root / "classes.txt")

    with pytest.raises(ek.InputError, match=r"classes\.txt.*it is no file"):
        ek.dataset("cub", path=archive.root)
