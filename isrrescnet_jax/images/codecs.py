"""Picture files in: PNG, JPEG, WebP, TIFF, BMP, GIF and AVIF. And out: the first five."""

import contextlib
import dataclasses
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from ..dihedral import turn
from ..files import atomic_path
from ..sizes import host_memory, said
from .declared import check_room, declared
from .encoders import encode
from .measured import read_tiff_page
from .metadata import Metadata, read_metadata
from .picture import Picture, as_rgb, to_uint8
from .pixels import read_pixels
from .quiet import quiet

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
READABLE = FORMATS | {
    ".apng": "PNG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".gif": "GIF",
    ".avif": "AVIF",
}
PILLOWS = sorted(set(READABLE.values()))
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# EXIF orientation -> the variant that shows the picture as it is meant to be seen.
_UPRIGHT = {1: 0, 2: 2, 3: 3, 4: 1, 5: 4, 6: 5, 7: 7, 8: 6}


def read(path: str | os.PathLike) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF file.

    Grey stays grey (c = 1), palettes become RGB, 1-bit pictures 0 and 255; any kind of transparency
    becomes `alpha`. CMYK becomes sRGB, through the embedded profile if there is one (which is not
    kept then), with 8 bits, and so does Lab. Floating point and 32-bit integers of TIFF files count
    as 16 bits (`measured.in_grey_levels` says what is white). The EXIF orientation is applied. Of a
    file with several pictures, the first is read (`frames.open_film` reads all).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, an empty, damaged or foreign file, one that changes meanwhile, or
            pixels that are not supported, or more of them than memory has room for, which is seen
            before they are decoded. The message is one line that starts with the path.
    """
    data = load(path)
    with named(path):
        return decode(data)


def read_rgb(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a picture file as `as_rgb` gives them; 16 bits are rounded to 8.

    Raises:
        FileNotFoundError, ValueError: as `read`.
    """
    return as_rgb(read(path).color)


def load(path: str | os.PathLike) -> bytes:
    """All bytes of a file, as they were at one moment.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, a device, an empty file, one that is larger than memory, or one that
            something else writes to.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise ValueError(f"{path}: a folder, not an image")
    with named(path), open(path, "rb") as file:
        before = os.fstat(file.fileno())
        if stat.S_ISCHR(before.st_mode) or stat.S_ISBLK(before.st_mode):
            raise ValueError("a device, not an image")
        room = host_memory()
        if room is not None and before.st_size > room:
            raise ValueError(f"{said(before.st_size)}, but {said(room)} of memory are free")
        data = file.read()
        after = os.fstat(file.fileno())
        moments = {(s.st_size, s.st_mtime_ns) for s in (before, after)}
        if stat.S_ISREG(before.st_mode) and (len(moments) > 1 or len(data) != before.st_size):
            raise ValueError("it changed while it was read: try again when it is complete")
        if not data:
            raise ValueError("empty")
        return data


@contextlib.contextmanager
def named(name: str | os.PathLike) -> Iterator[None]:
    """Whatever goes wrong with a file, as a ValueError of one line that starts with its name."""
    try:
        yield
    except UnidentifiedImageError:
        kinds = ", ".join(dict.fromkeys(READABLE.values()))
        reason = f"not an image that can be read ({kinds})"
        raise ValueError(f"{name}: {reason}") from None
    except Image.DecompressionBombError:
        reason = "too many pixels; raise PIL.Image.MAX_IMAGE_PIXELS if they are meant"
        raise ValueError(f"{name}: {reason}") from None
    except MemoryError:
        raise ValueError(f"{name}: memory ran out: cut it into parts, or give more") from None
    except Exception as error:  # Decoders fail on damaged files in every way there is.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or repr(error)
        ours = isinstance(error, ValueError) or getattr(error, "errno", None)
        raise ValueError(f"{name}: {'' if ours else 'damaged: '}{reason}") from None


def decode(data: bytes, index: int = 0, image: ImageFile.ImageFile | None = None) -> Picture:
    """A picture of a file; `index` counts the pages of a TIFF file.

    Args:
        image: `opened(data)`, where pages of a TIFF file are read one after the other: Pillow goes
            through all before them in a file that it opens anew.
    """
    with quiet() if data[:4] in TIFF else contextlib.nullcontext():
        return _decode(data, index, image or opened(data))


def opened(data: bytes) -> ImageFile.ImageFile | None:
    """As Pillow opens it; None for a TIFF file that it does not know."""
    with quiet() if data[:4] in TIFF else contextlib.nullcontext():
        try:
            return Image.open(io.BytesIO(data), formats=PILLOWS)
        except UnidentifiedImageError:
            if data[:4] not in TIFF:
                raise
            return None


def _decode(data: bytes, index: int, image: ImageFile.ImageFile | None) -> Picture:
    if image is None:
        return assembled(read_tiff_page(data, index), Metadata(), None, 1)
    if index:
        if image.format == "TIFF":
            image.info.clear()  # of the page before, of which Pillow keeps what this one lacks
        try:
            image.seek(index)
        except SyntaxError:  # how Pillow says that it does not know the pixels of a page
            return assembled(read_tiff_page(data, index), Metadata(), None, 1)
    check_room(declared(image))
    # After conversion to sRGB the profile no longer holds.
    converted = image.mode in ("CMYK", "LAB")
    icc = None if converted else image.info.get("icc_profile") or None
    pixels = read_pixels(image, data)
    return assembled(pixels, read_metadata(image), icc, orientation_of(image))


def assembled(
    pixels: Shaped[np.ndarray, "h w c"], metadata: Metadata, icc: bytes | None, orientation: int
) -> Picture:
    """A picture, upright; floating point is in [0, 255] already."""
    pixels = turn(pixels, _UPRIGHT.get(orientation, 0))
    unit = 257 if pixels.dtype == np.uint16 else 1
    bits = 8 if pixels.dtype == np.uint8 else 16
    values = np.divide(pixels, unit, dtype=np.float32)
    if orientation > 4 and metadata.dpi:
        across, down = metadata.dpi
        metadata = dataclasses.replace(metadata, dpi=(down, across))
    if values.shape[-1] in (1, 3):
        return Picture(np.ascontiguousarray(values), None, bits, icc, metadata)
    color, alpha = np.ascontiguousarray(values[..., :-1]), np.ascontiguousarray(values[..., -1])
    return Picture(color, alpha, bits, icc, metadata)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a file; 1, which is upright, where it says none that there is."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Damaged metadata is no reason to refuse the picture.
        return 1
    return orientation if orientation in _UPRIGHT else 1


def format_of(path: str | os.PathLike) -> str:
    """Pillow's name of the format that a file's name asks for.

    Raises:
        ValueError: a suffix that is not written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: the name must end in one of {', '.join(FORMATS)}")
    return FORMATS[suffix]


def check_writable(picture: Picture, path: str | os.PathLike, scale: int = 1) -> None:
    """Raise ValueError if `write` would not store a picture like this in a file of that name.

    Looks at the size, `scale` times that of `picture`, and at the transparency only, so it can be
    asked before the work is done.
    """
    format = format_of(path)
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
    formats are lossless. The ICC profile and the metadata are written as far as the format has a
    place for them: BMP has for the print size only, and text is for PNG. WebP stores grey as RGB,
    and 16-bit TIFF grey with alpha as RGBA, for want of readers.

    Raises:
        ValueError: an unknown suffix, transparency in JPEG or BMP (an alpha that is opaque all over
            is left out), or a picture larger than the format allows.
    """
    check_writable(picture, path)
    with writing(path) as file:
        encode(picture, format_of(path), file)


@contextlib.contextmanager
def writing(path: str | os.PathLike, replace: bool = True) -> Iterator[io.BufferedRandom]:
    """A file to write to, which takes the place of `path` when it is whole (see `atomic_path`)."""
    with atomic_path(path, replace) as temporary, open(temporary, "w+b") as file:
        yield file
