"""Image files put together by hand, and what was read from them."""

import struct
import zlib

import numpy as np
from hypothesis import HealthCheck, settings
from PIL import PngImagePlugin

few = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def noise16(*shape, seed=0):
    return noise(*shape, dtype=np.uint16, seed=seed)


def png(path, pixels, depth=16, interlace=False, **chunks):
    """A PNG file put together by hand: 16 bits in any layout, or grey with few; optional chunks."""
    height, width, channels = pixels.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def lines(part):
        if depth == 16:
            return b"".join(b"\0" + row.astype(">u2").tobytes() for row in part)
        bits = [np.unpackbits(row.astype(np.uint8), axis=1)[:, 8 - depth :] for row in part]
        return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in bits)

    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    data = b"".join(lines(pixels[y::dy, x::dx]) for y, x, dy, dx in passes if width > x)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlace)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", header)
        for name, content in chunks.items():
            PngImagePlugin.putchunk(file, name.encode(), content)
        PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(data))
        PngImagePlugin.putchunk(file, b"IEND")
    return path


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text and text
    return text


def assert_same(picture, color, alpha=None, bits=8, scale=1):
    np.testing.assert_array_equal(picture.color, color.astype(np.float32) / scale)
    assert picture.color.dtype == np.float32 and picture.color.flags.c_contiguous
    assert picture.bits == bits
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha.astype(np.float32) / scale)
        assert picture.alpha.dtype == np.float32
