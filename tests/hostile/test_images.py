"""Image files by somebody else."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hostile_files import FOREIGN, PLACES, cut, zipped
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from explainkit.data.reading import read_images
from explainkit.errors import InputError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))


def written(format, picture=PICTURE, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def about(orientation=6, words=b"a"):
    """EXIF with an orientation and some words."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, words
    return exif


GOOD = {
    "png": written("PNG"),
    "png with a palette": written("PNG", PICTURE.convert("P")),
    "png of 16 bits": written("PNG", Image.fromarray(np.full((24, 20), 999, np.uint16))),
    "jpeg": written("JPEG"),
    "jpeg of four colors": written("JPEG", PICTURE.convert("CMYK")),
    "jpeg in passes": written("JPEG", progressive=True, exif=about()),
    "gif": written("GIF"),
    "gif that moves": written("GIF", save_all=True, append_images=[PICTURE.rotate(90)] * 3),
    "webp": written("WEBP"),
    "webp without loss": written("WEBP", lossless=True, exif=about()),
    "tiff": written("TIFF"),
    "tiff by LZW": written("TIFF", compression="tiff_lzw"),
    "tiff by JPEG": written("TIFF", compression="jpeg"),
    "tiff of floats": written("TIFF", PICTURE.convert("F")),
    "bmp": written("BMP"),
    "ppm": written("PPM"),
}


def overwritten(share, value):
    """Four bytes at a share of the way through."""

    def write(content):
        place = int(len(content) * share)
        return content[:place] + value + content[place + 4 :]

    return write


SPOILED = {
    **{f"cut at {share}": cut(share) for share in (0.02, 0.1, 0.5, 0.9)},
    **{f"{name} at {share}": overwritten(share, value)
       for name, value in (("ones", b"\xff" * 4), ("zeros", bytes(4)), ("the largest", b"\x7f\xff\xff\xff"))
       for share in (0.01, 0.03, 0.1, 0.6)},
    "without a beginning": lambda content: content[30:],
    "twice": lambda content: content * 2,
    "with a page behind": lambda content: content + b"<script>alert(1)</script>",
    "with a zip behind": lambda content: content + zipped(a=b"b"),
}  # fmt: skip


def png(width, height, *chunks, depth=8, color=2, pixels=b"\0" * 100):
    """A PNG whose header may say anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    body = (
        struct.pack(">I", len(dataset)) + kind + dataset + struct.pack(">I", zlib.crc32(kind + dataset))
        for kind, dataset in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def at(content, place, form, *values):
    """Other numbers at a place of a file's header."""
    dataset = struct.pack(form, *values)
    return content[:place] + dataset + content[place + len(dataset) :]


REFUSED = {
    "a bomb of pixels": png(2**31 - 1, 2**31 - 1),
    "a bomb of ordinary form": png(50_000, 50_000),
    "a bomb on one line": png(2**31 - 1, 1),
    "no pixel wide": png(0, 5),
    "no pixel high": png(5, 0),
    "more pixels than there are": png(64, 64),
    "an unknown depth": png(5, 5, depth=7),
    "an unknown color": png(5, 5, color=5),
    "a bomb of words": png(5, 5, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))),
    "a bomb of a profile": png(5, 5, (b"iCCP", b"a\0\0" + zlib.compress(bytes(80_000_000)))),
    "a bmp of no pixel": at(GOOD["bmp"], 18, "<ii", 0, 0),
    "a bmp of all pixels": at(GOOD["bmp"], 18, "<ii", 2**31 - 1, 2**31 - 1),
    "a bmp below zero": at(GOOD["bmp"], 18, "<ii", -20, 2**31 - 1),
    "a ppm of no pixel": b"P6 0 0 255\n",
    "a ppm of all pixels": b"P6 999999999 999999999 255\n",
    "a ppm below zero": b"P6 -5 -5 255\n" + bytes(75),
    "a ppm without end": b"P6 " + b"1" * 10_000,
    "a ppm of words": b"P6 a b c\n",
    "a jpeg of all pixels": at(GOOD["jpeg"], GOOD["jpeg"].index(b"\xff\xc0") + 5, ">HH", 65535, 65535),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch sprung) system\nshowpage\n",
    "PostScript with a preview": b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 30, 99, 0, 0, 0, 0, 0) + bytes(99),
    "a vector picture": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a document": b"%PDF-1.7\n1 0 obj << /OpenAction << /S /Launch /F (touch sprung) >> >>\n",
    "a metafile": b"\xd7\xcd\xc6\x9a" + bytes(100),
    "an icon": written("ICO"),
    **{f"what is {name}": content for name, content in FOREIGN.items()},
}

HARMLESS = {
    "words of a megabyte": written("PNG", exif=about(words=b"a" * 2**20)),
    "a jpeg with all the words it can hold": written("JPEG", exif=about(words=b"a" * 65_000)),
    "a gif whose frame is larger than itself": at(GOOD["gif"], 6, "<HH", 0, 0),
    "an orientation that is none": written("PNG", exif=about(orientation=99)),
    "markup for words": written("PNG", pnginfo=(lambda info: info.add_text("a", "<script>") or info)(
        PngImagePlugin.PngInfo())),
    "a thousand frames": written("GIF", save_all=True, append_images=[
        Image.new("P", (20, 24), k % 255) for k in range(1000)]),
    "a long thin line": png(1, 60_000, pixels=b"\0\1\2\3" * 60_000),
}  # fmt: skip


def met(path, contained):
    """Whether an image is read; then it is one."""
    try:
        with warnings.catch_warnings(), contained():
            warnings.simplefilter("ignore")  # Pillow's, of metadata
            images = read_images([path], (8, 8))
    except InputError as error:
        assert path.name in str(error)
        return False
    assert images.shape == (1, 3, 8, 8) and images.isfinite().all() and 0 <= images.min() <= images.max() <= 1
    return True


@pytest.mark.parametrize("format", GOOD)
@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_image_is_refused_or_an_image(tmp_path, contained, format, how):
    path = tmp_path / "a.png"
    path.write_bytes(SPOILED[how](GOOD[format]))

    met(path, contained)


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_is_no_image_is_refused(tmp_path, contained, what, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(REFUSED[what])

    assert not met(path, contained)


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_odd_and_harmless_is_read(tmp_path, contained, what):
    path = tmp_path / "a.png"
    path.write_bytes(HARMLESS[what])

    assert met(path, contained)


@pytest.mark.parametrize("format", GOOD)
def test_the_suffix_is_no_matter(tmp_path, contained, format):
    path = tmp_path / "a.jpg.txt"
    path.write_bytes(GOOD[format])

    assert met(path, contained)


@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_ordinary_file_is_refused_without_waiting(tmp_path, contained, what):
    path = tmp_path / "a.png"
    PLACES[what](path)

    assert not met(path, contained)


NAMES = (
    "%s%n{0}", "a\nb", "\x1b[2J", "<img src=x onerror=alert(1)>", "\u202egnp", "'\"", "-rf", "a" * 250,
    "$HOME", "🐦",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_shown_so_that_they_steer_nothing(tmp_path, contained, name):
    path = tmp_path / name
    path.write_bytes(b"no image")

    with pytest.raises(InputError) as error, contained():
        read_images([path], None)

    assert repr(str(path))[1:-1] in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize("path", ["a\0b.png", "a" * 300 + ".png", "", "\udcff.png", "../" * 200])
def test_a_path_that_cannot_be_is_refused(contained, path):
    with pytest.raises(InputError), contained():
        read_images([path], None)


@settings(settings.get_profile("hostile"), max_examples=300)
@given(dataset=st.data())
def test_whatever_changes_an_image_is_refused_or_an_image(tmp_path_factory, contained, dataset):
    path = tmp_path_factory.getbasetemp() / "a.png"
    spoiled = bytearray(GOOD[dataset.draw(st.sampled_from(list(GOOD)))])
    for _ in range(dataset.draw(st.integers(1, 4))):
        place = dataset.draw(st.integers(0, len(spoiled) - 1) | st.integers(0, 60))
        spoiled[place : place + dataset.draw(st.integers(0, 4))] = dataset.draw(st.binary(max_size=4))
    path.write_bytes(spoiled)

    met(path, contained)
