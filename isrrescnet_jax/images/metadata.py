"""What a picture file says beside its pixels: print size, EXIF, XMP, text, software."""

import dataclasses
import re
from typing import Any

from PIL import ExifTags, Image, TiffImagePlugin

_BASE = ExifTags.Base
# Tags that say how the pixels of the file lie in it, which is for its writer to say; those of the
# print size, which `dpi` has; and XMP, ICC and thumbnails, which have places of their own.
_OF_THE_FILE = (
    {_BASE.NewSubfileType, _BASE.SubfileType, _BASE.ImageWidth, _BASE.ImageLength}
    | {_BASE.BitsPerSample, _BASE.Compression, _BASE.PhotometricInterpretation, _BASE.FillOrder}
    | {_BASE.StripOffsets, _BASE.SamplesPerPixel, _BASE.RowsPerStrip, _BASE.StripByteCounts}
    | {_BASE.MinSampleValue, _BASE.MaxSampleValue, _BASE.PlanarConfiguration, _BASE.SampleFormat}
    | {_BASE.Predictor, _BASE.ColorMap, _BASE.TileWidth, _BASE.TileLength, _BASE.TileOffsets}
    | {_BASE.TileByteCounts, _BASE.SubIFDs, _BASE.ExtraSamples, _BASE.SMinSampleValue}
    | {_BASE.SMaxSampleValue, _BASE.JPEGTables, _BASE.InkSet, _BASE.InkNames}
    | {_BASE.WhitePoint, _BASE.PrimaryChromaticities, _BASE.TransferFunction}
    | {_BASE.YCbCrCoefficients, _BASE.YCbCrSubSampling, _BASE.YCbCrPositioning}
    | {_BASE.ReferenceBlackWhite, _BASE.JpegIFOffset, _BASE.JpegIFByteCount}
    | {_BASE.XResolution, _BASE.YResolution, _BASE.ResolutionUnit, _BASE.ImageResources}
    | {700, 33723, 34675}  # XMP, IPTC, ICC
)
# What programs write as a TIFF file's description of how its pixels lie.
_OF_PROGRAMS = re.compile(
    rb"\s*(\{\s*\"shape\"\s*:|shape\s*=|ImageJ=|SCIFIO=|(<\?xml\b.*?>\s*)?(<!--.*?-->\s*)?<OME\b)",
    re.DOTALL,
)
_SIZES = {_BASE.ExifImageWidth, _BASE.ExifImageHeight}
_PER_INCH = {2: 1.0, 3: 2.54}  # EXIF's units of resolution
_XMP_TEXT = "XML:com.adobe.xmp"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a picture file says beside its pixels and their colour space.

    Attributes:
        dpi: pixels per inch across and down, where the file says so.
        exif: upright and without a thumbnail; starts with b"Exif".
        xmp: the packet.
        text: keywords and texts of PNG; a GIF's or JPEG's comment is "Comment".
        software: what made the picture; takes the place of what `exif` and `text` say of that.
    """

    dpi: tuple[float, float] | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    software: str | None = None

    def enlarged(self, scale: int) -> "Metadata":
        """Of a picture with `scale` times as many pixels a side, printed at the same size."""
        dpi = None if self.dpi is None else (self.dpi[0] * scale, self.dpi[1] * scale)
        return dataclasses.replace(self, dpi=dpi)


def read_metadata(image: Image.Image) -> Metadata:
    """Of a file whose pixels are loaded. Damaged metadata is no reason to refuse the picture."""
    try:
        exif = image.getexif()
        cleaned, dpi = _cleaned(exif), _dpi(image, exif)
    except Exception:
        cleaned, dpi = None, _dpi(image, {})
    return Metadata(dpi, cleaned, _xmp(image), _text(image))


def exif_of(metadata: Metadata, resolution: bool) -> bytes | None:
    """EXIF with the software, and with the print size if wanted; None if there is nothing in it."""
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
        for tag, value in list(exif.items()):
            if isinstance(value, str):
                exif[tag] = _as_it_was(value)
    if metadata.software:
        exif[_BASE.Software] = metadata.software
    if resolution and metadata.dpi:
        exif[_BASE.XResolution], exif[_BASE.YResolution] = metadata.dpi
        exif[_BASE.ResolutionUnit] = 2
    return exif.tobytes() if len(exif) else None


def texts_of(metadata: Metadata) -> list[tuple[str, str]]:
    """Keywords and texts for PNG, the software among them."""
    texts = list(metadata.text)
    if metadata.software:
        texts = [(key, value) for key, value in texts if key != "Software"]
        texts.append(("Software", metadata.software))
    return texts


def _dpi(image: Image.Image, exif: Any) -> tuple[float, float] | None:
    found: Any = image.info.get("dpi")
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2):
        found = None  # Pillow's guess
    tags = getattr(image, "tag_v2", None)
    if tags is not None and not {_BASE.XResolution, _BASE.YResolution} <= set(tags):
        return None  # where Pillow says 1
    if found is None and exif:
        unit = _PER_INCH.get(exif.get(_BASE.ResolutionUnit, 2))
        sides = exif.get(_BASE.XResolution), exif.get(_BASE.YResolution)
        found = None if unit is None or None in sides else [float(side) * unit for side in sides]
    try:
        across, down = map(float, found or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if all(1 <= side < 1e6 for side in (across, down)) else None


def _cleaned(exif: Image.Exif) -> bytes | None:
    """Without what belongs to the old file; a thumbnail does, which nobody would see is old."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            ifd = {k: _as_it_was(v) for k, v in exif.get_ifd(tag).items() if k not in _SIZES}
            if ExifTags.IFD.Interop in ifd:
                ifd[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
            if ifd:
                kept[tag] = ifd
        elif tag == _BASE.Orientation:
            kept[tag] = 1  # the picture is turned as it is read
        elif tag == _BASE.ImageDescription and _OF_PROGRAMS.match(_as_bytes(value)):
            continue
        elif tag not in _OF_THE_FILE:
            kept[tag] = _as_it_was(value)
    if not len(kept):
        return None
    data = kept.tobytes()
    for tags in sub_directories(data)[1].values():
        directory_bytes(tags, 0)  # Damage shows now, and not when the result is written.
    return data


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")


def _as_it_was(value: Any) -> Any:
    """Bytes for a text that is not ASCII, as EXIF should be: Pillow would write "?" for them."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("latin-1", "replace")  # as Pillow has read it
    return value


def _xmp(image: Image.Image) -> bytes | None:
    packet = image.info.get("xmp") or getattr(image, "tag_v2", {}).get(700)
    if isinstance(packet, str):
        packet = packet.encode()
    if not isinstance(packet, bytes) or not packet.strip(b"\0 \n"):
        return None
    packet = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)\d", rb"\g<1>1", packet)
    return re.sub(rb"<(xmp:Thumbnails)\b.*?</\1\s*>", b"", packet, flags=re.DOTALL)


def _text(image: Image.Image) -> tuple[tuple[str, str], ...]:
    found = {
        key: str(value)
        for key, value in getattr(image, "text", {}).items()
        if key != _XMP_TEXT and not re.match("Raw profile type (exif|app1|xmp)", key, re.IGNORECASE)
    }
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        found.setdefault("Comment", comment.decode("utf-8", "replace").rstrip("\0"))
    return tuple(found.items())


def sub_directories(exif: bytes) -> tuple[dict[int, Any], dict[int, dict[int, Any]]]:
    """The tags of EXIF data that stand in its first directory, and its further directories."""
    parsed = Image.Exif()
    parsed.load(exif)
    below = {
        int(tag): dict(parsed.get_ifd(tag))
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
        if tag in parsed
    }
    return {tag: value for tag, value in parsed.items() if tag not in below}, below


def directory_bytes(tags: dict[int, Any], offset: int) -> bytes:
    """A directory of a little-endian TIFF file as it stands at `offset`."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        if not isinstance(value, dict):
            directory[tag] = value
    return directory.tobytes(offset)
