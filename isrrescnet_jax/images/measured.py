"""Pictures as measured or computed: floating point, or integers of 32 bits.

A file of this kind does not say which value is white.
"""

import io
import logging

import numpy as np
import tifffile
from jaxtyping import Float, Shaped
from PIL import Image

from .declared import Declared, check_room

# What they say of damaged files comes as an error, too; without a handler it would be printed.
for _library in ("tifffile", "PIL"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

_WHITES = (255.0, 65535.0)
_SLACK = 1.0625  # Resampling overshoots a little.
_DECODING = 40  # bytes at the peak for a value, which may have 64 bits


def in_grey_levels(values: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Values of a picture whose white is not known, in [0, 255].

    Floating point up to 1 (a little more is cut off) has its white at 1. Everything else has it at
    255 or 65535, where that is not exceeded, and 32-bit integers at their largest value otherwise.

    Raises:
        ValueError: negative values, infinite ones, or floating point between 1 and 16, where it
            is not clear what white is, or beyond 65535.
    """
    advice = "scale them to 0...1, or save 8 or 16 bits"
    if not np.isfinite(values).all():
        raise ValueError(f"pixels that are not finite numbers: {advice}")
    lowest, highest = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.integer):
        whites = (*_WHITES, float(np.iinfo(values.dtype).max))
    elif highest <= _SLACK:
        whites = (1.0,)
    elif highest < 16:
        raise ValueError(f"pixels up to {highest:g}, white may be at 1 or at 255: {advice}")
    else:
        whites = _WHITES
    fitting = [white for white in whites if highest <= white * _SLACK]
    if not fitting:
        raise ValueError(f"pixels up to {highest:g}: {advice}")
    if lowest < (1 - _SLACK) * fitting[0]:
        raise ValueError(f"negative pixels, down to {lowest:g}: {advice}")
    return np.clip(values * (255 / fitting[0]), 0, 255).astype(np.float32)


def read_tiff_page(data: bytes, index: int) -> Float[np.ndarray, "h w c"]:
    """A page of floating point or of integers of 16 or 32 bits, with values in [0, 255].

    Raises:
        ValueError: another kind of page, or a compression that tifffile needs help with.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[index].aspage()
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        if page.dtype is None or page.dtype.name not in (
            *("float16", "float32", "float64"),
            *("int32", "uint32", "uint16"),
        ):
            if page.dtype is None or page.dtype.name in ("bool", "uint8"):
                raise ValueError("damaged, or of a layout that is not supported: save it as PNG")
            raise ValueError(f"pixels of type {page.dtype} are not supported: save 8 or 16 bits")
        if kind not in ("MINISBLACK", "MINISWHITE", "RGB") or page.imagedepth > 1:
            raise ValueError(
                f"{kind.lower()} pixels of type {page.dtype} are not supported: save RGB"
            )
        if page.imagewidth * page.imagelength > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
            raise Image.DecompressionBombError
        values = page.samplesperpixel
        check_room(Declared(page.imagewidth, page.imagelength, values, True, decoding=_DECODING))
        colors = 3 if kind == "RGB" else 1
        pixels = page.asarray().reshape(*page.shape)
        white_is_zero = kind == "MINISWHITE"
        opacity = page.extrasamples[:1] in [(1,), (2,)]
        premultiplied = page.extrasamples[:1] == (1,)
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
    if separate:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = pixels[..., : colors + opacity]
    if pixels.dtype == np.uint16:  # of which white is known
        values = np.divide(pixels, 257, dtype=np.float32)
    else:
        values = in_grey_levels(pixels)
    if premultiplied:
        alpha = np.maximum(values[..., colors:], 1e-6)
        values[..., :colors] = np.clip(values[..., :colors] * (255 / alpha), 0, 255)
    if white_is_zero:
        values[..., :colors] = 255 - values[..., :colors]
    return values
