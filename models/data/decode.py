"""Picture files to uint8 arrays: every kind of file, one clear line for a broken one."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from lmwp_models.errors import UserError

ImageArray = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

# A coloured mask's pixel brighter than this is object; below it is compression noise around black.
_COLOUR_LEVEL = 32
# Channels of a grey picture stored in colour differ by no more than this after JPEG.
_GREY_TOLERANCE = 24

# Pillow warns at half the size that it refuses; the refusal alone is what a user needs to see.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_image(path: str | Path) -> ImageArray:
    """Read a picture as RGB, uint8 [H, W, 3].

    EXIF orientation is applied, grey is repeated to three channels, 16-bit levels are scaled to 8
    bits, CMYK and palettes are converted, transparency is laid over white (as a viewer shows it),
    and an animation gives its first frame.

    Raises:
        UserError: the file is missing, broken, truncated, too large or not a picture.
    """
    return decode_image(read_bytes(path), path)


def read_mask(path: str | Path) -> ImageArray:
    """Read a saliency mask as grey levels, uint8 [H, W], 255 where the object is.

    1-bit, grey and grey-as-RGB masks keep their levels. A mask of levels 0 and 1 only is a label
    map and becomes 0 and 255; so does a mask in colours (palette or RGB), where everything that is
    not black is object. Transparent pixels are background.

    Raises:
        UserError: as `read_image`.
    """
    return decode_mask(read_bytes(path), path)


def decode_image(data: bytes, path: str | Path) -> ImageArray:
    """`read_image` on the bytes of a file; `path` is for the error text only."""
    with _one_line_errors(path):
        image = _open(data)
        if image.mode.startswith("I"):
            return np.repeat(_wide_grey(image)[:, :, None], 3, axis=2)
        return np.asarray(_flatten(image, "white").convert("RGB"))


def decode_mask(data: bytes, path: str | Path) -> ImageArray:
    """`read_mask` on the bytes of a file; `path` is for the error text only."""
    with _one_line_errors(path):
        image = _open(data)
        if image.mode.startswith("I"):
            mask = _wide_grey(image)
        elif image.mode in ("1", "L") and not image.has_transparency_data:
            mask = np.asarray(image.convert("L"))
        else:
            mask = _grey_of_colours(_flatten(image, "black"))
        return mask * np.uint8(255) if mask.max() == 1 else mask


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; UserError names the file that cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def _one_line_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UserError(
            f"cannot read {path}: its header claims more than {limit} million pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(
            f"cannot read {path}: not a picture (known formats: {', '.join(FORMATS)})"
        ) from error
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: damaged or unusual picture ({reason})") from error


def _open(data: bytes) -> Image.Image:
    """The first frame, fully decoded and turned upright."""
    if not data:
        raise ValueError("the file is empty")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    image.load()
    if image.mode == "F":
        raise ValueError("floating-point levels have no known range")
    return ImageOps.exif_transpose(image)


def _wide_grey(image: Image.Image) -> ImageArray:
    """Grey levels of 16 bits (Pillow's I modes) scaled by 255 / 65535, uint8 [H, W]."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("grey levels outside 16 bits")
    return ((levels + 128) // 257).astype(np.uint8)


def _flatten(image: Image.Image, ground: str) -> Image.Image:
    """Lay a picture with transparency over a plain ground."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, ground), layer)


def _grey_of_colours(image: Image.Image) -> ImageArray:
    """Levels of a mask stored in colour channels: luminance if it is grey, else not-black."""
    colours = np.asarray(image.convert("RGB"))
    brightest = colours.max(axis=2)
    if (brightest - colours.min(axis=2)).max() <= _GREY_TOLERANCE:
        return np.asarray(image.convert("L"))
    return np.where(brightest > _COLOUR_LEVEL, np.uint8(255), np.uint8(0))


def shrink(picture: ImageArray, max_side: int) -> ImageArray:
    """Scale [H, W, 3] or [H, W] down, averaging, so that the longer side is at most `max_side`."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer <= max_side:
        return picture
    size = [max(1, round(side * max_side / longer)) for side in (width, height)]
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
