"""Files to be spoiled, and ways to spoil them, all decided by a seed (see `fuzz.py`)."""

import io
import json
import random
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

HEADER = 400  # bytes in which most of what a file says about itself stands
SIZES = (0, 1, 7, 255, 16384, 65535, 65536, 2**24 + 1, 2**30, 2**31 - 1, 2**31, 2**32 - 1)


# --- whole files ----------------------------------------------------------------------------------


def pictures() -> dict[str, bytes]:
    """One picture in every format, type and layout that is read; names end in the suffix."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(20) * 6, np.arange(28) * 4)[..., None] + [0, 30, 60]
    rgb = (smooth + rng.integers(0, 9, (20, 28, 3))).astype(np.uint8)
    photo, frames = Image.fromarray(rgb), [Image.fromarray(np.roll(rgb, i, 0)) for i in range(3)]
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x9003] = "Camera", 6, "2026:11:28 00:00:00"
    exif[0x8769], exif[0x8825] = {0x829A: (1, 50)}, {1: "N", 2: (48.0, 8.0, 14.0)}
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "A picture", zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta><tiff:Orientation>6</tiff:Orientation>")
    about: dict[str, Any] = {"exif": exif.tobytes(), "dpi": (300, 150)}
    film: dict[str, Any] = {
        "save_all": True,
        "append_images": frames[1:],
        "duration": 50,
        "loop": 2,
    }
    found: dict[str, bytes] = {}

    def keep(name: str, image: Image.Image, **options) -> None:
        buffer = io.BytesIO()
        format = {"jpg": "JPEG", "tif": "TIFF"}.get(name.split(".")[1], name.split(".")[1].upper())
        image.save(buffer, format, **options)
        found[name] = buffer.getvalue()

    keep("rgb.png", photo, pnginfo=text, icc_profile=icc[:600], **about)
    keep("grey.png", photo.convert("L"), transparency=40)
    keep("bits.png", photo.convert("1"))
    keep("palette.png", photo.quantize(16), transparency=b"\0\x80\xff")
    keep("alpha.png", photo.convert("RGBA"))
    keep("deep.png", Image.fromarray(rgb[..., 0].astype(np.uint16) * 257))
    keep("film.png", frames[0], **film)
    keep("rgb.jpg", photo, quality=80, comment=b"A comment", xmp=b"<x/>", **about)
    keep("progressive.jpg", photo, progressive=True)
    keep("grey.jpg", photo.convert("L"))
    keep("cmyk.jpg", photo.convert("CMYK"), icc_profile=b"nonsense" * 9)
    keep("lossy.webp", photo, quality=70, **about)
    keep("lossless.webp", photo.convert("RGBA"), lossless=True)
    keep("film.webp", frames[0], lossless=True, **film)
    keep("rgb.tif", photo, exif=exif.tobytes(), dpi=(300, 150))
    keep("lzw.tif", photo, compression="tiff_lzw")
    keep("jpeg.tif", photo, compression="jpeg")
    keep("bits.tif", photo.convert("1"), compression="group4")
    keep("cmyk.tif", photo.convert("CMYK"), compression="packbits")
    keep("lab.tif", photo.convert("LAB"))
    keep("pages.tif", frames[0], save_all=True, append_images=frames[1:])
    keep("rgb.bmp", photo)
    keep("palette.bmp", photo.quantize(16))
    keep("alpha.bmp", photo.convert("RGBA"))
    keep("still.gif", photo.quantize(16), comment=b"A comment")
    keep("film.gif", frames[0].quantize(16), **film)
    keep("rgb.avif", photo, quality=60, **about)
    keep("film.avif", frames[0], save_all=True, append_images=frames[1:], duration=50)
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:2])
    found["two.jpg"] = buffer.getvalue()
    kinds: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        ("deep.tif", rgb.astype(np.uint16) * 257, {"photometric": "rgb", "predictor": True}),
        ("float.tif", rgb.astype(np.float32), {"photometric": "rgb", "compression": "zlib"}),
        ("double.tif", rgb[..., 0].astype(np.float64) / 255, {}),
        ("big.tif", rgb, {"photometric": "rgb", "bigtiff": True, "tile": (16, 16)}),
        ("planes.tif", np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    ]
    for name, pixels, options in kinds:
        options = {"compression": "zlib", "software": False} | options
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **options)
        found[name] = buffer.getvalue()
    return found


def bombs() -> dict[str, bytes]:
    """Small files of large pictures, or of large texts."""
    found: dict[str, bytes] = {}

    def keep(name: str, image: Image.Image, format: str, **options) -> None:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        found[name] = buffer.getvalue()

    keep("130 megapixels.png", Image.new("RGB", (13000, 10000)), "PNG")
    keep("900 megapixels.png", Image.new("1", (30000, 30000)), "PNG")
    keep("grey.png", Image.new("L", (13000, 10000), 9), "PNG")
    keep("palette.gif", Image.new("P", (12000, 10000)), "GIF")
    keep("130 megapixels.jpg", Image.new("RGB", (13000, 10000)), "JPEG", quality=10)
    keep("wide.jpg", Image.new("L", (65500, 2000)), "JPEG", quality=10)
    keep("deflate.tif", Image.new("RGB", (13000, 10000)), "TIFF", compression="tiff_deflate")
    keep("fax.tif", Image.new("1", (40000, 4000)), "TIFF", compression="group4")
    keep("flat.webp", Image.new("RGB", (9000, 9000)), "WEBP", quality=1, method=0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((5000, 5000), np.float64), compression="zlib")
    found["double.tif"] = buffer.getvalue()
    found["text.png"] = _with_chunks(b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(3 * 10**8)))
    found["profile.png"] = _with_chunks(b"iCCP" + b"ICC\0\0" + zlib.compress(bytes(3 * 10**8)))
    one = b"Comment\0\0" + zlib.compress(bytes(10**6))
    found["texts.png"] = _with_chunks(*[b"zTXt" + b"%d" % i + one for i in range(400)])
    found["pages.tif"] = _shared_pages(4000, 3000)
    return found


def _with_chunks(*chunks: bytes) -> bytes:
    """A PNG file with more chunks after the first."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    data = buffer.getvalue()
    more = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )
    return data[:33] + more + data[33:]


def _shared_pages(side: int, count: int) -> bytes:
    """A TIFF file with many large pages, all of which are the same few bytes."""
    packed = zlib.compress(bytes(side * side), 9)
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1)]
    tags += [(278, side), (279, len(packed))]
    size = 2 + 12 * len(tags) + 4
    start = 8 + len(packed) + len(packed) % 2
    data = struct.pack("<4sI", b"II*\0", start) + packed + b"\0" * (len(packed) % 2)
    for page in range(count):
        after = start + (page + 1) * size if page + 1 < count else 0
        body = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
        data += struct.pack("<H", len(tags)) + body + struct.pack("<I", after)
    return data


# --- ways to spoil them ---------------------------------------------------------------------------


def edited(data: bytes, rng: random.Random, end: int) -> bytes:
    """A few bytes among the first `end` changed, taken out or put in."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, min(end, len(result))))
        kind = rng.randrange(5)
        if kind == 0:
            result[at : at + 1] = rng.randbytes(1)
        elif kind == 1 and len(result) > 8:
            del result[at : at + rng.randint(1, 20)]
        elif kind == 2:
            result[at:at] = rng.randbytes(rng.randint(1, 20))
        elif kind == 3:
            result[at : at + 1] = bytes([result[at] ^ 1 << rng.randrange(8)])
        else:  # a number at its limits
            value = rng.choice(SIZES).to_bytes(4, rng.choice(("little", "big")))
            result[at : at + 4] = value[-rng.choice((1, 2, 4)) :]
    return bytes(result)


def moved(data: bytes, rng: random.Random) -> bytes:
    """A block of a file somewhere else, twice, or gone."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    block, at = data[first:last], rng.randrange(len(data) + 1)
    rest = data[:first] + data[last:] if rng.random() < 0.5 else data
    return rest[:at] + block * rng.randint(0, 3) + rest[at:]


def resized(data: bytes, rng: random.Random) -> bytes:
    """A file that declares another width or height, up to 2^32 - 1."""
    result, value = bytearray(data), rng.choice(SIZES)
    places: list[tuple[int, str]] = []
    if data[:4] == b"\x89PNG":
        places = [(16, ">I"), (20, ">I")]
    elif data[:2] == b"BM":
        places = [(18, "<i"), (22, "<i")]
    elif data[:3] == b"GIF":
        places = [(6, "<H"), (8, "<H")]
        places += [(m.start() + o, "<H") for m in re.finditer(b",\0\0\0\0", data) for o in (5, 7)]
    elif data[:2] == b"\xff\xd8":
        found = re.finditer(rb"\xff[\xc0-\xc2]\0.\x08", data, re.DOTALL)
        places = [(m.start() + o, ">H") for m in found for o in (5, 7)]
    elif data[8:12] == b"WEBP":
        found = [(m.start() + o, "<I") for m in re.finditer(b"VP8X", data) for o in (12, 15)]
        found += [(m.start() + 9, "<I") for m in re.finditer(b"VP8L", data)]
        found += [(m.start() + o, "<H") for m in re.finditer(b"\x9d\x01\x2a", data) for o in (3, 5)]
        places = found
    elif data[4:8] == b"ftyp":
        places = [(m.start() + o, ">I") for m in re.finditer(b"ispe", data) for o in (8, 12)]
    else:  # TIFF: width, height, rows in a strip, sides of a tile
        order = "<" if data[:2] == b"II" else ">"
        wide = data[2:3] == b"+" or data[3:4] == b"+"
        for tag in (256, 257, 278, 322, 323, 273, 279, 277, 258):
            mark = struct.pack(f"{order}H", tag)
            places += [
                (m.start() + (12 if wide else 8), order + "I") for m in re.finditer(mark, data)
            ]
    for at, kind in rng.sample(places, min(len(places), rng.randint(1, 2))):
        size = struct.calcsize(kind)
        if at + size <= len(result):
            result[at : at + size] = (value % 256**size).to_bytes(
                size, "little" if kind[0] == "<" else "big"
            )
    return checked(bytes(result))


def checked(data: bytes) -> bytes:
    """A PNG file with the right check sums, so that what is in its chunks is looked at."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    result, at = bytearray(data), 8
    while at + 12 <= len(result):
        end = at + 8 + int.from_bytes(result[at : at + 4], "big")
        if end + 4 > len(result):
            break
        result[end : end + 4] = struct.pack(">I", zlib.crc32(result[at + 4 : end]))
        at = end + 4
    return bytes(result)


def renamed(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with something in its header changed, and the header's length right."""
    length = int.from_bytes(data[:8], "little")
    text, body = data[8 : 8 + length].decode("utf-8", "replace"), data[8 + length :]
    kind = rng.randrange(6)
    if kind == 0:  # a number
        found = rng.choice(list(re.finditer(r"\d+", text)))
        value = str(rng.choice((*SIZES, 2**63, 10**30, -1, 1.5, "null", "true", "1e400", "NaN")))
        text = text[: found.start()] + value + text[found.end() :]
    elif kind == 1:  # a type
        types = ("F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "U64", "X")
        text = text.replace("F32", rng.choice(types), rng.randint(1, 3))
    elif kind == 2:  # a name twice, or gone
        names = re.findall(r'"([a-z_0-9.]+)":\{', text)
        text = text.replace(f'"{rng.choice(names)}":', f'"{rng.choice(names)}":', 1)
    elif kind == 3:  # the configuration
        header = json.loads(text)
        about = header["__metadata__"]
        about["config"] = _other_config(about["config"], rng)
        text = json.dumps(header)
    elif kind == 4:
        text = edited(text.encode(), rng, len(text)).decode("utf-8", "replace")
    else:
        depth = rng.choice((10, 200, 10**5))
        text = text.replace("{", '{"x":' + "[" * depth + "]" * depth + ",", 1)
    header = text.encode()
    return len(header).to_bytes(8, "little") + header + body


def _other_config(text: str, rng: random.Random) -> str:
    config = json.loads(text)
    values = (0, -1, 2, 3, 8.0, 10**9, 10**30, "8", None, True, [1], {}, float("nan"), 1e308)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice([*config, "more"])
        if rng.random() < 0.15:
            config.pop(name, None)
        else:
            config[name] = rng.choice(values)
    text = json.dumps(config)
    return (
        edited(text.encode(), rng, len(text)).decode("utf-8", "replace")
        if (rng.random() < 0.2)
        else text
    )


def values(data: bytes, rng: random.Random) -> bytes:
    """Tensors of a safetensors file with numbers that are none, too large, or nothing at all."""
    start = 8 + int.from_bytes(data[:8], "little")
    result = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = start + 4 * rng.randrange((len(data) - start) // 4)
        count = rng.choice((1, 1, 100, 400))
        value = rng.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, -0.0))
        block = np.full(count, value, "<f4").tobytes()
        result[at : at + len(block)] = block[: len(result) - at]
    return bytes(result)


def spoiled(data: bytes, how: str, seed: str) -> bytes:
    """The file as a case has it."""
    rng = random.Random(seed)
    way, _, number = how.partition(" ")
    match way:
        case "whole":
            return data
        case "cut":
            return data[: int(number)]
        case "header":
            result = edited(data, rng, HEADER)
        case "body":
            result = edited(data, rng, len(data))
        case "moved":
            result = moved(data, rng)
        case "size":
            return resized(data, rng)
        case "renamed":
            return renamed(data, rng)
        case "values":
            return values(data, rng)
        case _:
            raise ValueError(how)
    return checked(result) if rng.random() < 0.5 else result


def ways(data: bytes, counts: dict[str, int]) -> Iterator[str]:
    """All that is done to a file: `counts` of each way, and an end at every 64th byte."""
    yield "whole"
    for way, count in counts.items():
        yield from (f"{way} {i}" for i in range(count))
    yield from (f"cut {end}" for end in range(64, len(data), 64))
