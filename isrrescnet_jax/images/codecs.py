"""Picture files: PNG, JPEG, WebP, TIFF and BMP, in and out.

Pillow reads and writes them, but keeps only 8 of the 16 bits of colour pictures. Both ways around
that are here: `_read_16_bits`, and for writing `_write_png_16` and tifffile.
"""

import io
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

from ..files import atomic_path
from .picture import Picture, as_rgb, to_uint8

# File name suffix -> Pillow's name of the format.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    # exact: colours under fully transparent pixels survive, too.
    "WEBP": {"lossless": True, "exact": True},
}
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
# EXIF orientation -> the picture as it is meant to be seen; arrays are (h, w, ...).
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def read(path: str | os.PathLike) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF or BMP file.

    Grey stays grey (c = 1), palettes become RGB, 1-bit pictures 0 and 255; any kind of transparency
    becomes `alpha`. CMYK becomes sRGB, through the embedded profile if there is one (which is not
    kept then), with 8 bits. The EXIF orientation is applied. Of a file with several pictures, the
    first is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, an empty, damaged or foreign file, or pixels that are not supported
            (floating point, signed, or neither 8 nor 16 bits or less than 8). The message is one
            line that starts with the path.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not an image")
    try:
        return _decode(path)
    except UnidentifiedImageError:
        kinds = ", ".join(dict.fromkeys(FORMATS.values()))
        reason = f"not an image of 8 or 16 bits in one of the formats {kinds}"
        raise ValueError(f"{path}: {reason if path.stat().st_size else 'empty'}") from None
    except Image.DecompressionBombError:
        reason = "too many pixels; raise PIL.Image.MAX_IMAGE_PIXELS if they are meant"
        raise ValueError(f"{path}: {reason}") from None
    except Exception as error:  # Decoders fail on damaged files in every way there is.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or repr(error)
        raise ValueError(f"{path}: {reason}") from None


def read_rgb(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a picture file as `as_rgb` gives them; 16 bits are rounded to 8.

    Raises:
        FileNotFoundError, ValueError: as `read`.
    """
    return as_rgb(read(path).color)


def _decode(path: Path) -> Picture:
    with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
        icc = None if image.mode == "CMYK" else image.info.get("icc_profile") or None
        pixels = _read_pixels(image, path)
        orientation = _orientation(image)
    pixels = _UPRIGHT.get(orientation, _UPRIGHT[1])(pixels)
    bits = 16 if pixels.dtype == np.uint16 else 8
    values = np.divide(pixels, 257 if bits == 16 else 1, dtype=np.float32)
    if values.shape[-1] in (1, 3):
        return Picture(np.ascontiguousarray(values), None, bits, icc)
    color, alpha = np.ascontiguousarray(values[..., :-1]), np.ascontiguousarray(values[..., -1])
    return Picture(color, alpha, bits, icc)


def _read_pixels(
    image: ImageFile, path: Path
) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
    """The values as stored: grey, grey and alpha, RGB or RGBA."""
    if isinstance(image, TiffImageFile):
        _check_tiff(image)
    args = image.tile[0].args if image.tile else ""
    rawmode = args[0] if isinstance(args, tuple) else args or ""  # how the pixels are laid out
    if wide := re.fullmatch(r"(LA|RGB[AXa]?);16([BLN])", rawmode):
        pixels = _read_16_bits(image, path, *wide.groups())
    elif image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)[..., None]
        photometric = PHOTOMETRIC_INTERPRETATION
        if isinstance(image, TiffImageFile) and image.tag_v2.get(photometric) == 0:
            pixels = 65535 - pixels  # Pillow sees to this for 8 bits only.
    elif image.mode == "P":
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    elif image.mode == "CMYK":
        return np.asarray(_to_srgb(image))
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


def _read_16_bits(
    image: ImageFile, path: Path, layout: str, order: str
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
    with Image.open(path, formats=[image.format or ""]) as second:
        low = decode(second, f"{layout};16{'B' if order == 'L' else 'L'}")
    pixels = high.astype(np.uint16) << 8 | low
    if premultiplied:
        color, alpha = pixels[..., :3], np.maximum(pixels[..., 3:], 1)
        pixels[..., :3] = np.minimum(np.rint(color * (65535 / alpha)), 65535)
    return pixels


def _check_tiff(image: TiffImageFile) -> None:
    """Refuse what Pillow would open, but read wrongly."""
    bits = max(image.tag_v2.get(BITSPERSAMPLE, (1,)))
    if bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"{bits} bits per value are not supported: save it with 8 or 16")
    if not set(image.tag_v2.get(SAMPLEFORMAT, (1,))) <= {1, 4}:  # unsigned, undefined
        raise ValueError("only unsigned integers are supported: save it with 8 or 16 bits")
    if bits == 16 and image.tag_v2.get(PLANAR_CONFIGURATION) == 2:
        raise ValueError("separate planes of 16 bits are not supported: save it interleaved")


def _to_srgb(image: Image.Image) -> Image.Image:
    """CMYK to sRGB, through the embedded profile if there is one."""
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


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Damaged metadata is no reason to refuse the picture.
        return 1


def check_writable(picture: Picture, path: str | os.PathLike, scale: int = 1) -> None:
    """Raise ValueError if `write` would not store a picture like this in a file of that name.

    Looks at the size, `scale` times that of `picture`, and at the transparency only, so it can be
    asked before the work is done.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: the name must end in one of {', '.join(FORMATS)}")
    format = FORMATS[path.suffix.lower()]
    transparent = picture.alpha is not None and to_uint8(picture.alpha).min() < 255
    if transparent and format in ("JPEG", "BMP"):
        raise ValueError(f"{path}: {format} cannot hold transparency: write PNG")
    height, width = (scale * side for side in picture.color.shape[:2])
    limit = _LONGEST_SIDE.get(format)
    if limit and max(height, width) > limit:
        size = f"{width}x{height}"
        raise ValueError(f"{path}: {size} pixels, but {format} ends at {limit} a side: write PNG")


def write(picture: Picture, path: str | os.PathLike) -> None:
    """Write a picture in the format that the suffix of `path` names; atomic.

    Values are rounded half to even and saturated, to 16 bits if `picture.bits` says so and the
    format is PNG or TIFF, else to 8. JPEG has quality 95 and full colour resolution; all other
    formats are lossless. The ICC profile is written except to BMP, which has no place for it.
    WebP stores grey as RGB, and 16-bit TIFF grey with alpha as RGBA, for want of readers.

    Raises:
        ValueError: an unknown suffix, transparency in JPEG or BMP (an alpha that is opaque all over
            is left out), or a picture larger than the format allows.
    """
    path = Path(path)
    check_writable(picture, path)
    format = FORMATS[path.suffix.lower()]
    values = np.asarray(picture.color)
    if picture.alpha is not None and format not in ("JPEG", "BMP"):
        values = np.concatenate([values, picture.alpha[..., None]], -1)
    if picture.bits == 16 and format in ("PNG", "TIFF"):
        pixels = np.clip(np.rint(values * 257), 0, 65535).astype(np.uint16)
    else:
        pixels = to_uint8(values)
    with atomic_path(path) as temporary:
        if format == "TIFF":
            _write_tiff(temporary, pixels, picture.icc)
        elif pixels.dtype == np.uint16:
            _write_png_16(temporary, pixels, picture.icc)
        else:
            image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            options = _SAVE_OPTIONS.get(format, {})
            image.save(temporary, format, icc_profile=picture.icc, **options)


def _write_tiff(path: Path, pixels: Shaped[np.ndarray, "h w c"], icc: bytes | None) -> None:
    import tifffile

    if pixels.shape[-1] == 2 and pixels.dtype == np.uint16:
        pixels = pixels[..., [0, 0, 0, 1]]
    with open(path, "w+b") as file:
        tifffile.imwrite(
            file,
            pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels,
            photometric="rgb" if pixels.shape[-1] > 2 else "minisblack",
            planarconfig="contig",
            extrasamples=["unassalpha"] if pixels.shape[-1] in (2, 4) else None,
            compression="zlib",
            predictor=True,
            iccprofile=icc,
            metadata=None,
            software=False,
        )


def _write_png_16(path: Path, pixels: UInt16[np.ndarray, "h w c"], icc: bytes | None) -> None:
    height, width, channels = pixels.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    packer = zlib.compressobj()
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
        PngImagePlugin.putchunk(file, b"IHDR", header)
        if icc:
            PngImagePlugin.putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(icc))
        for top in range(0, height, 64):
            rows = pixels[top : top + 64].astype(">u2").view(np.uint8)
            # Each row begins with its filter, 1: bytes are stored less the one a pixel before.
            lines = np.pad(rows.reshape(len(rows), -1), ((0, 0), (1, 0)), constant_values=1)
            lines[:, 1 + 2 * channels :] -= lines[:, 1 : -2 * channels]
            PngImagePlugin.putchunk(file, b"IDAT", packer.compress(lines.tobytes()))
        PngImagePlugin.putchunk(file, b"IDAT", packer.flush())
        PngImagePlugin.putchunk(file, b"IEND")
