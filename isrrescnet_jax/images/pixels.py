"""The values in a picture file, whatever their type, layout and colour space.

Pillow reads them, but keeps only 8 of the 16 bits of colour pictures, which `_read_16_bits` goes
around, and leaves out the alpha of some BMP files.
"""

import io
import re
import sys
from typing import cast

import numpy as np
from jaxtyping import Float, UInt8, UInt16
from PIL import Image, ImageCms
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

from .measured import in_grey_levels

# What Pillow's 8-bit modes are converted to.
_PLAIN_MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "PA": "RGBA",
}


def read_pixels(
    image: ImageFile, data: bytes
) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"] | Float[np.ndarray, "h w c"]:
    """Grey, grey and alpha, RGB or RGBA; integers as stored, or floating point in [0, 255].

    Args:
        image: at the frame that is meant.
        data: the whole file.
    """
    if isinstance(image, TiffImageFile):
        _check_tiff(image)
    args = image.tile[0].args if image.tile else ""
    rawmode = args[0] if isinstance(args, tuple) else args  # how the pixels are laid out
    rawmode = rawmode if isinstance(rawmode, str) else ""
    if wide := re.fullmatch(r"(LA|RGB[AXa]?);16([BLN])", rawmode):
        pixels = _read_16_bits(image, data, *wide.groups())
    elif image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)[..., None]
        photometric = PHOTOMETRIC_INTERPRETATION
        if isinstance(image, TiffImageFile) and image.tag_v2.get(photometric) == 0:
            pixels = 65535 - pixels  # Pillow sees to this for 8 bits only.
    elif image.mode == "P":
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    elif image.mode in ("F", "I"):
        return _read_32_bits(image)
    elif image.mode in ("CMYK", "LAB"):
        return np.asarray(_to_srgb(image))
    elif isinstance(image, BmpImageFile) and rawmode == "BGRX":
        return _read_bmp_32(image, data)
    elif image.mode in _PLAIN_MODES:
        pixels = np.asarray(image.convert(_PLAIN_MODES[image.mode]))
        pixels = pixels.reshape(image.height, image.width, -1)
    else:
        raise ValueError(f"pixels of type {image.mode!r} are not supported")

    if "transparency" in image.info:
        # One colour of a PNG means "nothing here". It counts in steps of the stored depth (of one
        # bit, only some versions of Pillow do so).
        largest = np.iinfo(pixels.dtype).max
        step = {"1": 255, "L;2": 85, "L;4": 17}.get(rawmode, 1)
        nothing = np.minimum(np.multiply(image.info["transparency"], step), largest)
        opaque = (pixels != nothing).any(-1, keepdims=True).astype(pixels.dtype)
        pixels = np.concatenate([pixels, opaque * largest], -1)
    return pixels


def _read_32_bits(image: ImageFile) -> Float[np.ndarray, "h w 1"]:
    pixels = np.asarray(image)[..., None]
    if not isinstance(image, TiffImageFile):
        return in_grey_levels(pixels)
    # Pillow knows integers with a sign only.
    if image.mode == "I" and image.tag_v2.get(SAMPLEFORMAT, (1,))[0] == 1:
        pixels = pixels.view(np.uint32)
    values = in_grey_levels(pixels)
    return 255 - values if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0 else values


def _read_bmp_32(image: BmpImageFile, data: bytes) -> UInt8[np.ndarray, "h w c"]:
    """32 bits without masks: the fourth byte is alpha in files whose writer had one, else 0."""
    (tile,) = image.tile
    size = 4 * image.width * image.height
    pixels = np.frombuffer(data[tile.offset : tile.offset + size], np.uint8)
    if len(pixels) < size:
        raise ValueError("the file ends before the picture does")
    _, _, direction = cast(tuple[str, int, int], tile.args)
    pixels = pixels.reshape(image.height, image.width, 4)[::direction, :, [2, 1, 0, 3]]
    return pixels if pixels[..., 3].any() else pixels[..., :3]


def _read_16_bits(
    image: ImageFile, data: bytes, layout: str, order: str
) -> UInt16[np.ndarray, "h w c"]:
    """All 16 bits of a picture with several channels, of which Pillow keeps the upper 8.

    Told that the file has the other byte order, Pillow keeps the lower 8 instead: two passes
    give everything, interlaced, tiled or compressed.
    """

    def decode(image: ImageFile, rawmode: str) -> UInt8[np.ndarray, "h w c"]:
        image.tile = [
            tile._replace(
                args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
            )
            for tile in image.tile
        ]
        return np.asarray(image)

    if layout == "LA":  # Only in PNG. Four bytes per pixel, high ones first, as if they were RGBA.
        return np.ascontiguousarray(decode(image, "RGBA")).view(">u2").astype(np.uint16)
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    layout, premultiplied = layout.replace("a", "A"), layout == "RGBa"
    high = decode(image, f"{layout};16{order}")
    with Image.open(io.BytesIO(data), formats=[image.format or ""]) as second:
        second.seek(image.tell())
        low = decode(second, f"{layout};16{'B' if order == 'L' else 'L'}")
    pixels = high.astype(np.uint16) << 8 | low
    if premultiplied:
        color, alpha = pixels[..., :3], np.maximum(pixels[..., 3:], 1)
        pixels[..., :3] = np.minimum(np.rint(color * (65535 / alpha)), 65535)
    return pixels


def _check_tiff(image: TiffImageFile) -> None:
    """Refuse what Pillow would open, but read wrongly."""
    bits = max(image.tag_v2.get(BITSPERSAMPLE, (1,)))
    if image.mode in ("F", "I") and bits in (32, 64):
        return
    if bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"{bits} bits per value are not supported: save it with 8 or 16")
    if not set(image.tag_v2.get(SAMPLEFORMAT, (1,))) <= {1, 4}:  # unsigned, undefined
        raise ValueError("only unsigned integers are supported: save it with 8 or 16 bits")
    if bits == 16 and image.tag_v2.get(PLANAR_CONFIGURATION) == 2:
        raise ValueError("separate planes of 16 bits are not supported: save it interleaved")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Lab, or CMYK through the embedded profile if there is one, to sRGB."""
    if image.mode == "LAB":  # of D50, as TIFF means it
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        exact = ImageCms.Flags.NOOPTIMIZE  # without a table, which is coarse in the dark
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB", flags=exact)
        assert converted is not None
        return converted
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ImageCms.PyCMSError):
        raise ValueError("its CMYK profile is unusable: convert the picture to RGB") from None
    assert converted is not None  # as it is not when it works in place
    return converted
