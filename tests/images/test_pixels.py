"""Kinds of pixels that few files have, to the right values."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import color as colorimetry

from isrrescnet_jax.images import read

RNG = np.random.default_rng(0)
RAMP = RNG.random((9, 12)).astype(np.float32)
RGB = RNG.random((9, 12, 3)).astype(np.float32)


def stored(tmp_path, pixels, **options):
    tifffile.imwrite(tmp_path / "x.tif", pixels, **options)
    return tmp_path / "x.tif"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floating_point_tiff(tmp_path, dtype, white):
    if dtype == np.float16 and white == 65535:
        pytest.skip("more than float16 holds")
    for pixels, kind in ((RAMP, "minisblack"), (RGB, "rgb")):
        pixels = pixels.copy()
        pixels.flat[0] = 1  # white occurs
        found = read(stored(tmp_path, (pixels * white).astype(dtype), photometric=kind))
        expected = pixels.reshape(9, 12, -1) * 255
        np.testing.assert_allclose(found.color, expected, atol=0.2 if dtype == np.float16 else 1e-3)
        assert found.bits == 16 and found.alpha is None


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_32_bit_integers(tmp_path, dtype):
    for white in (255, 65535, np.iinfo(dtype).max):
        pixels = (RAMP.astype(np.float64) * white).astype(dtype)
        pixels[0, 0] = white
        path = stored(tmp_path, pixels)
        np.testing.assert_allclose(read(path).color[..., 0], pixels * (255 / white), atol=1e-3)
    path = stored(tmp_path, pixels, photometric="miniswhite")
    np.testing.assert_allclose(read(path).color[..., 0], 255 - pixels * (255 / white), atol=1e-3)


def test_floating_point_with_alpha_and_in_planes(tmp_path):
    pixels = np.dstack([RGB, RAMP])
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    found = read(stored(tmp_path, pixels, **options))
    np.testing.assert_allclose(found.color, RGB * 255, atol=1e-3)
    np.testing.assert_allclose(found.alpha, RAMP * 255, atol=1e-3)
    premultiplied = pixels * np.dstack([RAMP, RAMP, RAMP, np.ones_like(RAMP)])
    options["extrasamples"] = ["assocalpha"]
    found = read(stored(tmp_path, premultiplied, **options))
    np.testing.assert_allclose(found.color, RGB * 255, atol=0.01)
    planes = np.ascontiguousarray(np.moveaxis(RGB, -1, 0))
    found = read(stored(tmp_path, planes, photometric="rgb", planarconfig="separate"))
    np.testing.assert_allclose(found.color, RGB * 255, atol=1e-3)


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (-1, "negative"), (7, "at 1 or at 255"),
     (1e6, "up to 1e")],
)  # fmt: skip
def test_floating_point_without_meaning_is_one_line(tmp_path, value, words):
    for pixels, kind in ((RAMP.copy(), "minisblack"), (RGB.copy(), "rgb")):
        pixels.flat[5] = value
        with pytest.raises(ValueError, match=words) as error:
            read(stored(tmp_path, pixels, photometric=kind))
        assert "\n" not in str(error.value)


def test_lab(tmp_path):
    lab = np.stack(np.meshgrid([60, 128, 220], [-20, 0, 25], [-30, 0, 20], indexing="ij"), -1)
    lab = lab.reshape(9, 3, 3)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, lab.astype(np.int16).astype(np.uint8), photometric="cielab")
    physical = lab * [100 / 255, 1, 1]
    # The white of Lab is D50, that of sRGB is D65; Bradford's matrix leads from one to the other.
    d50, d65 = np.array([0.9642, 1, 0.8251]), np.array([0.95047, 1, 1.08883])
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    ratio = np.diag(bradford @ d65 / (bradford @ d50))
    adapt = np.linalg.inv(bradford) @ ratio @ bradford
    xyz = colorimetry.lab2xyz(physical, illuminant="D50") @ adapt.T
    expected = 255 * np.clip(colorimetry.xyz2rgb(xyz), 0, 1)
    found = read(path)
    np.testing.assert_allclose(found.color, expected, atol=2.5)
    assert found.icc is None and found.bits == 8


def bmp(path, pixels, header, masks=None, top_down=False):
    """A BMP file of 32 bits, from RGBA; `header` is its size in bytes."""
    height, width, _ = pixels.shape
    order = {None: [2, 1, 0, 3]}.get(masks) or [masks.index(c) for c in "RGBA"]
    if masks:
        layout = np.zeros_like(pixels)
        for channel, place in enumerate(order):
            layout[..., place] = pixels[..., channel]
    else:
        layout = pixels[..., [2, 1, 0, 3]]
    rows = layout if top_down else layout[::-1]
    info = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, 32,
                       3 if masks else 0, rows.nbytes, 2835, 2835, 0, 0)  # fmt: skip
    if masks:
        info += struct.pack("<4I", *(0xFF << 8 * order[i] for i in range(4)))
    info = info.ljust(header, b"\0")
    start = 14 + len(info)
    path.write_bytes(struct.pack("<2sIHHI", b"BM", start + rows.nbytes, 0, 0, start)
                     + info + rows.tobytes())  # fmt: skip
    return path


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize(
    ("header", "masks"),
    [(40, None), (108, None), (124, None), (56, "BGRA"), (108, "BGRA"), (124, "BGRA"),
     (124, "RGBA"), (124, "ABGR")],
)  # fmt: skip
def test_bmp_with_alpha(tmp_path, header, masks, top_down):
    pixels = RNG.integers(1, 256, (5, 7, 4), np.uint8)
    found = read(bmp(tmp_path / "x.bmp", pixels, header, masks, top_down))
    np.testing.assert_array_equal(found.color, pixels[..., :3])
    np.testing.assert_array_equal(found.alpha, pixels[..., 3])
    assert found.bits == 8


def test_bmp_whose_fourth_byte_is_unused(tmp_path):
    pixels = RNG.integers(1, 256, (5, 7, 4), np.uint8)
    pixels[..., 3] = 0
    found = read(bmp(tmp_path / "x.bmp", pixels, 40))
    np.testing.assert_array_equal(found.color, pixels[..., :3])
    assert found.alpha is None


def test_bmp_that_ends_too_early(tmp_path):
    path = bmp(tmp_path / "x.bmp", RNG.integers(1, 256, (5, 7, 4), np.uint8), 40)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="ends before the picture does"):
        read(path)


def test_gif_and_avif(tmp_path):
    colors, indices = RNG.integers(0, 256, (16, 3), np.uint8), RNG.integers(0, 16, (9, 13))
    image = Image.frombytes("P", (13, 9), indices.astype(np.uint8).tobytes())
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "x.gif")
    np.testing.assert_array_equal(read(tmp_path / "x.gif").color, colors[indices])
    image.save(tmp_path / "y.gif", transparency=3)
    np.testing.assert_array_equal(read(tmp_path / "y.gif").alpha, np.where(indices == 3, 0, 255))
    smooth = np.uint8(np.mgrid[:32, :48].sum(0) * 3)[..., None].repeat(3, 2)
    Image.fromarray(smooth).save(tmp_path / "x.avif", quality=95)
    assert np.abs(read(tmp_path / "x.avif").color - smooth).max() <= 6
