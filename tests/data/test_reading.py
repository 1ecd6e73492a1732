import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from explainkit.data.reading import read_images, read_picture
from explainkit.errors import InputError


def picture(width=6, height=4):
    """Red on the left, blue on the right."""
    array = np.zeros((height, width, 3), dtype=np.uint8)
    array[:, : width // 2, 0] = 255
    array[:, width // 2 :, 2] = 255
    return Image.fromarray(array)


def read(*items, size=None):
    return read_images(items, size)


def test_a_file_a_picture_an_array_and_a_tensor_are_one(tmp_path):
    made = picture()
    made.save(tmp_path / "a.png")
    array = np.asarray(made)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255

    images = read(
        str(tmp_path / "a.png"), tmp_path / "a.png", made, array, array.astype(np.float32) / 255, tensor
    )

    assert images.shape == (6, 3, 4, 6) and images.dtype is torch.float32
    assert all(torch.equal(image, tensor) for image in images)


def test_exif_orientation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture().save(tmp_path / "a.png", exif=exif)

    image = read(tmp_path / "a.png")[0]

    assert image.shape == (3, 6, 4)
    assert image[0, 0].min() == 1 and image[2, -1].min() == 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    gray = Image.fromarray(np.full((4, 4), 255, dtype=np.uint8))
    if mode == "I;16":
        made = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    elif mode == "F":
        made = Image.fromarray(np.full((4, 4), 255, dtype=np.float32))
    else:
        made = gray.convert("RGB").convert(mode) if mode not in ("L", "1", "I") else gray.convert(mode)
    assert made.mode == mode
    name = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "I", "F", "I;16") else "a.png")
    made.save(name)

    for image in read(name, made):
        assert image.shape == (3, 4, 4)
        torch.testing.assert_close(image, torch.ones(3, 4, 4), atol=0.01, rtol=0)


def test_colors_survive_cmyk_and_palettes(tmp_path):
    picture().convert("CMYK").save(tmp_path / "a.tif")
    picture().convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.gif")

    for image in read(tmp_path / "a.tif", tmp_path / "a.gif"):
        assert image[0, :, 0].min() > 0.95 and image[2, :, 0].max() < 0.05 and image[2, :, -1].min() > 0.95


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_over_white(alpha):
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[..., 3] = alpha

    from_bytes, from_floats, from_picture = read(rgba, rgba.astype(np.float64) / 255, Image.fromarray(rgba))

    for image in (from_bytes, from_floats, from_picture):
        torch.testing.assert_close(image, torch.full((3, 2, 2), 1 - alpha / 255), atol=0.005, rtol=0)


def test_a_transparent_color_of_a_palette_is_over_white(tmp_path):
    made = Image.new("P", (2, 2), 0)
    made.putpalette([10, 20, 30] + [0] * 765)
    made.save(tmp_path / "a.png", transparency=0)

    assert read(tmp_path / "a.png").min() == 1


@pytest.mark.parametrize("level", [100, 300, 40_000])
def test_sixteen_bits_keep_their_scale(tmp_path, level):
    Image.fromarray(np.full((2, 2), level, dtype=np.uint16)).save(tmp_path / "a.png")

    torch.testing.assert_close(
        read(tmp_path / "a.png"), torch.full((1, 3, 2, 2), level / 65535), atol=1 / 250, rtol=0
    )


def test_gray_arrays_become_three_channels():
    array = np.array([[0, 255], [51, 0]], dtype=np.uint8)

    for image in read(array, array / 255.0):
        torch.testing.assert_close(image, torch.tensor([[0, 1.0], [0.2, 0]]).expand(3, 2, 2))


@pytest.mark.parametrize("kind", ["bytes", "floats", "tensor"])
def test_resizing_averages_what_it_shrinks(kind):
    board = np.indices((16, 16)).sum(0) % 2
    array = np.repeat(board[..., None], 3, 2)
    item = {
        "bytes": (array * 255).astype(np.uint8),
        "floats": array.astype(np.float32),
        "tensor": torch.from_numpy(array).permute(2, 0, 1).float(),
    }[kind]

    image = read(item, size=(4, 2))[0]

    assert image.shape == (3, 4, 2)
    torch.testing.assert_close(image, torch.full((3, 4, 2), 0.5), atol=0.03, rtol=0)


def test_images_of_several_sizes_want_a_size():
    with pytest.raises(InputError, match=r"one size; got \[\(4, 6\), \(8, 8\)\]"):
        read(picture(), picture(8, 8))

    assert read(picture(), picture(8, 8), size=(5, 5)).shape == (2, 3, 5, 5)


def test_no_images_are_refused():
    with pytest.raises(InputError, match="at least one image"):
        read()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is none at .*nothing\.png"):
        read(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=r"there is none"):
        read_picture(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)

    with pytest.raises(InputError, match=r"a\.png"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.9])
def test_a_file_that_is_cut_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])

    with pytest.raises(InputError, match=r"damaged|is none"):
        read(path)


def test_an_open_picture_that_is_cut_is_refused_too(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])

    with Image.open(path) as opened, pytest.raises(InputError, match="damaged"):
        read(opened)


def huge(width, height):
    """A PNG that promises more pixels than it has."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(dataset)) + kind + dataset + struct.pack(">I", zlib.crc32(kind + dataset))
        for kind, dataset in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "a.png").write_bytes(huge(50_000, 50_000))

    with pytest.raises(InputError, match="ordinary size"):
        read(tmp_path / "a.png")


def test_a_large_photograph_is_no_bomb(tmp_path):
    made = Image.new("1", (12_000, 9_000))  # 108 megapixels, as telephones take them
    made.save(tmp_path / "a.png")

    assert read_picture(tmp_path / "a.png").size == (12_000, 9_000)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros((2, 2, 2, 3), np.uint8), r"\(H, W, 3\) or \(H, W, 4\); got \(2, 2, 2, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), r"got \(3, 8, 8\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "uint8, or of floats in .* got int64"),
        (np.full((4, 4, 3), 255.0), "Divide bytes by 255"),
        (np.full((4, 4, 3), np.nan), "outside"),
        (torch.zeros(1, 4, 4), r"float image of \(3, H, W\); got torch.float32 \(1, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "torch.uint8"),
        (3, "a PIL image or an array; got int"),
        (None, "got NoneType"),
    ],
    ids=range(10),
)
def test_what_is_no_picture_is_refused_in_words(item, message):
    with pytest.raises(InputError, match=message):
        read(item)
