"""Folders of pictures by somebody else."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from hostile_files import FOREIGN, PLACES
from PIL import Image

import explainkit as ek
from explainkit.cli import main
from explainkit.errors import ExplainKitError, InputError


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 30, 30)).save(path)


@pytest.fixture
def root(tmp_path):
    """Two classes of four pictures."""
    for name in ("jay", "wren"):
        for index in range(4):
            picture(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def met(root, contained, **settings):
    """Whether a layout is read; then every image of it is one."""
    try:
        with contained():
            dataset = ek.dataset("folder", path=root, size=8, **settings)
            batches = [batch for split in dataset.splits for batch in dataset.batches(split)]
    except ExplainKitError:
        return None
    for batch in batches:
        assert batch.images.shape[1:] == (3, 8, 8) and batch.images.isfinite().all()
    return dataset


# what stands among the classes and the images

NAMES = {
    "a line's end": "a\nb",
    "lines": "\n\n\n",
    "a tabulator": "a\tb",
    "a bell": "\x07",
    "what clears the screen": "\x1b[2J\x1b]0;mine\x07",
    "markup": "<script>alert(1)<script>",
    "markup in an attribute": "\" onerror='alert(1)' \"",
    "a template": "{{ 7 * 7 }}{% include 'x' %}",
    "a formula": "$\\frac{$",
    "a format": "%s%n{0}{a.b}",
    "from the right": "\u202egnp.exe",
    "without width": "\u200b\u200d\ufeff",
    "an accent upon accents": "a" + "\u0301" * 100,
    "a bird": "🐦",
    "a space": " ",
    "spaces around": "  a  ",
    "a dash": "--help",
    "dots": "a...",
    "a long name": "a" * 255,
    "a name of Python": "__class__",
    "a name of JSON": '{"a": [1]}',
    "a comma": "a,b;c",
    "a variable": "$HOME `id` $(id)",
    "a backslash": "a\\..\\b",
    "a number": "-1",
    "nothing of Windows": "CON",
}


@pytest.mark.parametrize("what", NAMES)
def test_a_hostile_name_of_a_class_is_a_name(root, contained, tmp_path, what):
    name = NAMES[what]
    (root / "jay").rename(root / name)

    dataset = met(root, contained)

    assert dataset is not None and set(dataset.classes) == {name, "wren"}
    torch.manual_seed(0)
    model = ek.explainer("cam", backbone="tiny", epochs=1, batch_size=2).fit(
        dataset, device="cpu", progress=False
    )
    explanations = ek.load(ek.save(model, tmp_path / "model")).explain(
        dataset.test.batch(torch.arange(2)), name
    )
    assert (
        ek.Explanations.load(explanations.save(tmp_path / "explanations.safetensors")).classes
        == dataset.classes
    )
    assert name in explanations[0].sentence()


@pytest.mark.parametrize("what", NAMES)
def test_a_hostile_name_of_a_file_is_a_name(root, contained, what):
    name = NAMES[what][:200]
    (root / "jay" / "0.png").rename(root / "jay" / f"{name}.png")
    assert met(root, contained) is not None
    (root / "wren" / f"{name}.png").write_bytes(b"no image")

    with pytest.raises(InputError) as error:
        [*map(list, map(ek.dataset("folder", path=root, size=8).batches, ("train", "validation", "test")))]
    with pytest.warns(UserWarning, match="1 images were left out"):
        assert met(root, contained, skip_damaged=True) is not None

    assert str(error.value).isprintable()


def test_hostile_names_steer_no_terminal(root, tmp_path, capsys):
    (root / "jay").rename(root / NAMES["what clears the screen"])
    model = ek.explainer("cam", backbone="tiny", epochs=1, batch_size=2)
    ek.save(
        model.fit(ek.dataset("folder", path=root, size=8), device="cpu", progress=False), tmp_path / "model"
    )
    names = [name for name in NAMES.values() if not name.isprintable()]
    for name in [*names, os.fsdecode(b"\xff\xfe")]:
        picture(tmp_path / "files" / f"{name[:200]}.png")

    assert main(["explain", "model", "files", "--target", NAMES["what clears the screen"]]) == 0
    assert main(["explain", "model", "files", "--target", "\x1b[2J"]) == 2

    output = capsys.readouterr()
    assert not {"\x1b", "\x07", "\r"} & set(output.out + output.err)
    assert output.out.count(r"\x1b[2J\x1b]0;mine\x07") > len(names) and output.err.count("\n") == 1


def with_loops(root):
    (root / "jay" / "again").symlink_to(root)
    (root / "wren" / "itself").symlink_to(root / "wren" / "itself")
    (root / "round").symlink_to(root)
    (root / "jay" / "deep" / "deeper").mkdir(parents=True)
    (root / "jay" / "deep" / "deeper" / "up").symlink_to("../..")


def within(root, depth):
    here = os.getcwd()
    os.chdir(root / "jay")
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)


def alike(root):
    for name in ("train", "Train", "TRAIN", "training", "val", "valid", "test"):
        shutil.copytree(root / "jay", root / name / "jay")


def linked(target):
    return lambda root: (root / "wren" / "0.png").unlink() or (root / "wren" / "0.png").symlink_to(target)


def holding(content):
    return lambda root: (root / "jay" / "0.png").write_bytes(content)


def placed(what):
    return lambda root: PLACES[what](root / "jay" / "a.png")


READ = {
    "links that go round": with_loops,
    "links to nothing": lambda root: (root / "jay" / "a.png").symlink_to("nothing"),
    "a class that links to another": lambda root: (root / "tit").symlink_to(root / "jay"),
    "a class of a link to nothing": lambda root: (root / "tit").symlink_to("nothing"),
    "a class of no image": lambda root: (root / "tit").mkdir(),
    "a file beside the classes": lambda root: (root / "tit").write_text("a"),
    "hidden folders": lambda root: picture(root / ".git" / "a.png"),
    "other files": lambda root: (root / "jay" / "a.py").write_text("open('sprung', 'w')"),
    "a folder of an image's name": lambda root: (root / "jay" / "a.png").mkdir(),
    "a module of a library's name": lambda root: (root / "torch.py").write_text("open('sprung', 'w')"),
    "a conftest": lambda root: (root / "conftest.py").write_text("open('sprung', 'w')"),
    "many empty folders": lambda root: [(root / f"a{k}").mkdir() for k in range(500)],
    "a hundred folders deep": lambda root: within(root, 100),
    **{
        f"{what} among images": placed(what)
        for what in ("a pipe", "a link to itself", "a link to zeros without end", "a link to the terminal")
    },
}  # fmt: skip
REFUSED = {
    "nothing": shutil.rmtree,
    "no class": lambda root: [shutil.rmtree(place) for place in root.iterdir()],
    "one class": lambda root: shutil.rmtree(root / "jay"),
    "a file": lambda root: shutil.rmtree(root) or root.write_text("a"),
    "a link to itself": lambda root: shutil.rmtree(root) or root.symlink_to(root),
    "a device": lambda root: shutil.rmtree(root) or root.symlink_to("/dev/zero"),
    "two images of a class": lambda root: [(root / "jay" / f"{k}.png").unlink() for k in (0, 1)],
    "splits of other classes": alike,
    "an empty train": lambda root: (root / "train").mkdir() or shutil.rmtree(root / "jay"),
    "a class of bytes": lambda root: (root / "jay").rename(root / "\udcff\udcfe"),
    **{f"{what} for an image": holding(content) for what, content in FOREIGN.items()},
    "secrets for an image": linked("/etc/passwd"),
    "memory for an image": linked("/proc/self/mem"),
    "the kernel's words for an image": linked("/proc/kmsg"),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_an_odd_layout_is_read(root, contained, what):
    READ[what](root)

    assert met(root, contained) is not None


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_layout_is_refused(root, contained, what):
    REFUSED[what](root)

    assert met(root, contained) is None


def test_thousands_of_folders_within_each_other_are_refused(root, contained):
    place = Path(tempfile.mkdtemp())  # where nobody else has to clear up what Python cannot
    try:
        within(shutil.copytree(root, place / "pictures"), 1900)

        assert met(place / "pictures", contained) is None
    finally:
        subprocess.run(["rm", "-r", str(place)], check=True)


def test_a_class_whose_images_are_all_damaged_is_missed(root, contained):
    for path in (root / "jay").iterdir():
        path.write_bytes(b"no image")

    with pytest.warns(UserWarning, match="4 images were left out"):
        assert met(root, contained, skip_damaged=True) is None


@pytest.mark.parametrize("size", [0, -1, 10**9, [8], [8, 8, 8], [8, 0], "8", None, 8.5, True, {"a": 1}])
def test_a_hostile_size_is_refused(root, contained, size):
    with pytest.raises(ExplainKitError), contained():
        ek.dataset("folder", path=root, size=size)


@pytest.mark.parametrize("path", ["a\0b", "a" * 300, "", "\udcff"])
def test_a_path_that_cannot_be_is_refused(tmp_path, contained, path):
    with pytest.raises(ExplainKitError), contained():
        ek.dataset("folder", path=path)
