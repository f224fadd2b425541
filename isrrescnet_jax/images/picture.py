"""A picture in memory, and pixels as other programs take them: 8 bits, RGB."""

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Num, UInt8

from ..representation import in_one_line
from .metadata import Metadata

_AT_ONCE = 2**20  # values


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A picture in memory, whatever file it came from.

    Attributes:
        color: RGB or grey values in [0, 255], uint8 if they are rounded; 16-bit values are divided
            by 257 = 65535 / 255.
        alpha: opacity in [0, 255], not multiplied into `color`; None where there is none.
        bits: bits per value of the file it came from, hence also of a PNG or TIFF file made of it.
        icc: the ICC profile that `color` is meant in; None usually means sRGB.
        metadata: what the file says beside that.
    """

    color: Float[np.ndarray, "h w c"] | UInt8[np.ndarray, "h w c"]
    alpha: Float[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"] | None = None
    bits: Literal[8, 16] = 8
    icc: bytes | None = None
    metadata: Metadata = Metadata()

    __repr__ = in_one_line


def to_uint8(x: Num[Any, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Round half to even and saturate: clip(rint(x), 0, 255); uint8 stays what it is."""
    x = np.asarray(x)
    if x.dtype == np.uint8:
        return x
    values = np.atleast_1d(x)
    rounded = np.empty(values.shape, np.uint8)
    step = 1 + _AT_ONCE * len(values) // max(1, values.size)  # rows: less memory beside
    for first in range(0, len(values), step):
        rows = slice(first, first + step)
        rounded[rows] = np.clip(np.rint(values[rows]), 0, 255)
    return rounded.reshape(x.shape)


def as_rgb(image: Num[Any, "h w *c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels in [0, 255] as 8-bit RGB: grey is repeated, transparency left out.

    Args:
        image: (h, w), or (h, w, c) with c = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
    """
    pixels = np.atleast_3d(to_uint8(image))
    return np.repeat(pixels[..., :1], 3, axis=2) if pixels.shape[2] < 3 else pixels[..., :3]
