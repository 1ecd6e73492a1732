"""What can be explained: images, or rows of a table; all else is refused in words."""

from torch import Tensor

from explainkit.errors import InputError


def check_images(images: Tensor) -> None:
    """Refuse, in words, what is not (N, 3, H, W), float and finite.

    Raises
    ------
    InputError
    """
    shape, hint = tuple(images.shape), ""
    if images.ndim == 3:
        hint = " Add a batch dimension with image[None]."
    elif images.ndim == 4 and shape[1] == 1:
        hint = " Repeat the gray channel: images.expand(-1, 3, -1, -1)."
    elif images.ndim == 4 and shape[3] == 3:
        hint = " Move the channels first: images.permute(0, 3, 1, 2)."
    elif not images.is_floating_point():
        hint = " Divide bytes by 255: images.float() / 255."
    if images.ndim != 4 or shape[1] != 3 or not images.is_floating_point():
        raise InputError(f"Expected float images of (N, 3, H, W); got {images.dtype} {shape}.{hint}")
    if 0 in shape:
        raise InputError(f"Expected at least one image of at least one pixel; got {shape}.")
    if not images.detach().sum().isfinite() and not images.isfinite().all():
        index = tuple((~images.isfinite()).nonzero()[0].tolist())
        raise InputError(
            f"Expected finite images; got {images[index].item()} at {index} (image, channel, row, column)."
        )


def check_range(images: Tensor) -> None:
    """Refuse images outside [0, 1]: networks trained here normalize inside.

    Raises
    ------
    InputError
    """
    low, high = (value.item() for value in images.aminmax())
    if low < -1e-3 or high > 1 + 1e-3:
        hint = "Divide by 255." if high > 16 else "Do not normalize them: the network does."
        raise InputError(f"Expected images in [0, 1]; got {low:.3g} … {high:.3g}. {hint}")


def check_rows(rows: Tensor, features: int) -> None:
    """Refuse, in words, what is not (N, F), float and finite.

    Raises
    ------
    InputError
    """
    if rows.ndim != 2 or rows.shape[1] != features or not rows.is_floating_point() or not len(rows):
        raise InputError(f"Expected float rows of (N, {features}); got {rows.dtype} {tuple(rows.shape)}.")
    if not rows.isfinite().all():
        index = tuple((~rows.isfinite()).nonzero()[0].tolist())
        raise InputError(f"Expected finite rows; got {rows[index].item()} at {index} (row, column).")
