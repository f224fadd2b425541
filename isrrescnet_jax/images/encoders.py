"""Pixels and metadata as bytes of each format.

Pillow writes no colour pictures of 16 bits: `_write_png_16` and tifffile do.
"""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt16
from PIL import Image, PngImagePlugin

from .metadata import Metadata, directory_bytes, exif_of, sub_directories, texts_of
from .picture import Picture, to_uint8

OpenFile = io.BufferedRandom | io.BytesIO

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    # exact: colours under fully transparent pixels survive, too.
    "WEBP": {"lossless": True, "exact": True},
}
_LONGEST_SEGMENT = 65000  # bytes of EXIF or XMP in a JPEG file, a little below its limit


def pixels_of(picture: Picture, format: str) -> Shaped[np.ndarray, "h w c"]:
    """The values to be stored, uint8 or uint16."""
    values = np.asarray(picture.color)
    if picture.alpha is not None and format not in ("JPEG", "BMP"):
        values = np.concatenate([values, picture.alpha[..., None]], -1)
    if picture.bits == 16 and format in ("PNG", "TIFF"):
        values = np.multiply(values, 257, dtype=np.float32)
        return np.clip(np.rint(values, out=values), 0, 65535, out=values).astype(np.uint16)
    return to_uint8(values)


def as_image(pixels: Shaped[np.ndarray, "h w c"]) -> Image.Image:
    """8-bit pixels for Pillow."""
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def save(image: Image.Image, file: OpenFile, format: str, **options: Any) -> None:
    """`image.save`, by way of memory.

    Pillow writes JPEG and BMP past Python, and does not notice that a disk took a part only.
    """
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    file.write(buffer.getbuffer())


def encode(picture: Picture, format: str, file: OpenFile) -> None:
    """Write one picture to an open, empty file in one of Pillow's formats."""
    pixels = pixels_of(picture, format)
    if format == "TIFF":
        encode_pages([picture], file)
    elif pixels.dtype == np.uint16:
        _write_png_16(file, pixels, picture.icc, picture.metadata)
    else:
        save(as_image(pixels), file, format, **save_options(picture, format))


def save_options(picture: Picture, format: str) -> dict[str, Any]:
    """What Pillow is told beside the pixels."""
    metadata = picture.metadata
    profile = profile_of(picture, color=format == "WEBP")
    options = {"icc_profile": profile, **_SAVE_OPTIONS.get(format, {})}
    if metadata.dpi and (format != "JPEG" or max(metadata.dpi) < 2**16):
        options["dpi"] = metadata.dpi
    if format == "BMP":
        return options
    exif = exif_of(metadata, resolution=format == "WEBP")
    if format == "PNG":
        options["pnginfo"] = _png_text(metadata)
        exif = exif_of(_software_elsewhere(metadata), resolution=False)
        return options | ({"exif": exif} if exif else {})
    blocks = {"exif": exif, "xmp": metadata.xmp}
    if format == "JPEG":
        blocks["comment"] = dict(metadata.text).get("Comment", "").encode("utf-8", "replace")
    for name, block in blocks.items():
        if block and format == "JPEG" and len(block) > _LONGEST_SEGMENT:
            warnings.warn(f"{name.upper()} data too long for JPEG were left out", stacklevel=2)
        elif block:
            options[name] = block
    return options


def profile_of(picture: Picture, color: bool) -> bytes | None:
    """The ICC profile; one of grey pictures is none of those whose grey is stored as colour."""
    grey = picture.icc is not None and picture.icc[16:20] == b"GRAY"
    return None if color and grey else picture.icc


def _software_elsewhere(metadata: Metadata) -> Metadata:
    """For EXIF in PNG, where the software stands in the text, too, if there is EXIF at all."""
    return metadata if metadata.exif else Metadata()


def encode_pages(pages: Any, file: OpenFile) -> None:
    """Write pictures, one or several, as the pages of a TIFF file."""
    with tifffile.TiffWriter(file, byteorder="<") as writer:
        for page in pages:
            _write_page(writer, page)
    _write_directories(file, pages)


def _write_page(writer: tifffile.TiffWriter, picture: Picture) -> None:
    pixels = pixels_of(picture, "TIFF")
    if pixels.shape[-1] == 2 and pixels.dtype == np.uint16:
        pixels = pixels[..., [0, 0, 0, 1]]
    metadata = picture.metadata
    writer.write(
        pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels,
        photometric="rgb" if pixels.shape[-1] > 2 else "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"] if pixels.shape[-1] in (2, 4) else None,
        compression="zlib",
        predictor=True,
        iccprofile=profile_of(picture, color=pixels.shape[-1] > 2),
        resolution=metadata.dpi,
        resolutionunit="inch" if metadata.dpi else None,
        extratags=_tags(metadata),
        metadata=None,
        software=False,
    )


_DIRECTORIES = (34665, 34853)  # EXIF and GPS, which tifffile does not take: it gets the next codes


def _tags(metadata: Metadata) -> list[tuple]:
    """For tifffile: code, type, number of values, value, whether of the first page only."""
    tags = []
    exif = exif_of(metadata, resolution=False)
    if exif:
        first, below = sub_directories(exif)
        for code, value in first.items():
            if isinstance(value, str):
                tags.append((code, "s", 0, value.encode("latin-1", "replace") + b"\0", False))
            elif isinstance(value, bytes):
                tags.append((code, "B", len(value), value, False))
            elif isinstance(value, int) and 0 <= value < 2**32 and code != 274:
                tags.append((code, "I", 1, value, False))
        tags += [(code + 1, "I", 1, 0, False) for code in _DIRECTORIES if code in below]
    if metadata.xmp:
        tags.append((700, "B", len(metadata.xmp), metadata.xmp, False))
    return tags


def _write_directories(file: OpenFile, pages: Any) -> None:
    """EXIF and GPS data, after the pages that refer to them."""
    if not any(page.metadata.exif for page in pages):
        return
    file.seek(0)
    with tifffile.TiffFile(file) as written:
        for page, picture in zip(written.pages, pages, strict=True):
            exif = exif_of(picture.metadata, resolution=False)
            below = sub_directories(exif)[1] if exif else {}
            for code, tags in below.items():
                end = file.seek(0, 2)
                start = end + end % 2
                if start >= 2**32 or written.is_bigtiff:
                    continue  # these directories are of the small kind
                file.write(b"\0" * (end % 2) + directory_bytes(tags, start))
                reference = page.aspage().tags[code + 1]
                reference.overwrite(start)
                file.seek(reference.offset)
                file.write(struct.pack("<H", code))


def _write_png_16(
    file: OpenFile,
    pixels: UInt16[np.ndarray, "h w c"],
    icc: bytes | None,
    metadata: Metadata,
) -> None:
    height, width, channels = pixels.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    packer = zlib.compressobj()
    file.write(b"\x89PNG\r\n\x1a\n")
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    PngImagePlugin.putchunk(file, b"IHDR", header)
    if icc:
        PngImagePlugin.putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(icc))
    for name, content in _png_chunks(metadata):
        PngImagePlugin.putchunk(file, name, content)
    for top in range(0, height, 64):
        rows = pixels[top : top + 64].astype(">u2").view(np.uint8)
        # Each row begins with its filter, 1: bytes are stored less the one a pixel before.
        lines = np.pad(rows.reshape(len(rows), -1), ((0, 0), (1, 0)), constant_values=1)
        lines[:, 1 + 2 * channels :] -= lines[:, 1 : -2 * channels]
        PngImagePlugin.putchunk(file, b"IDAT", packer.compress(lines.tobytes()))
    PngImagePlugin.putchunk(file, b"IDAT", packer.flush())
    PngImagePlugin.putchunk(file, b"IEND")


def _png_text(metadata: Metadata) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in texts_of(metadata):
        info.add_text(key, value)
    if metadata.xmp:
        info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    return info


def _png_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    chunks = []
    if metadata.dpi:
        per_metre = [int(dpi / 0.0254 + 0.5) for dpi in metadata.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    chunks += [(name, content) for name, content, *_ in _png_text(metadata).chunks]
    exif = exif_of(_software_elsewhere(metadata), resolution=False)
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    return chunks
