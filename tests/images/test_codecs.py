"""Pictures written and read again."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from image_files import assert_same, few, noise, noise16
from PIL import Image, ImageCms

from isrrescnet_jax.images import FORMATS, Picture, read, write

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


SUFFIXES = [".png", ".webp", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"]


@few
@given(
    st.sampled_from([".png", ".webp", ".tiff", ".bmp"]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.sampled_from([8, 16]),
    st.tuples(st.integers(1, 80), st.integers(1, 20)),
    st.integers(0, 99),
)
def test_lossless_round_trip(tmp_path, suffix, channels, has_alpha, bits, size, seed):
    has_alpha &= suffix != ".bmp"
    kept = bits if suffix in (".png", ".tiff") else 8
    dtype = {8: np.uint8, 16: np.uint16}[kept]
    color = noise(*size, channels, dtype=dtype, seed=seed)
    alpha = noise(*size, dtype=dtype, seed=seed + 1) if has_alpha else None
    scale = 257 if kept == 16 else 1
    values = color.astype(np.float32) / scale
    opacity = None if alpha is None else alpha.astype(np.float32) / scale
    path = tmp_path / f"x{suffix}"
    write(Picture(values, opacity, bits), path)
    if suffix == ".webp" or (suffix == ".tiff" and has_alpha and bits == 16):
        color = np.broadcast_to(color, (*size, 3))  # documented: no grey there
    if suffix == ".webp" and has_alpha and alpha.min() == 255:
        alpha = None
    assert_same(read(path), color, alpha, kept, scale)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_written_values_are_rounded_and_saturated(tmp_path, suffix, bits):
    values = np.full((8, 8, 3), 100, np.float32)
    values[:4] = [[[-3.0, 300.0, 100.4]]]
    path = tmp_path / f"x{suffix}"
    write(Picture(values, bits=bits), path)
    found = read(path)
    assert found.bits == (bits if suffix in (".png", ".tif", ".tiff") else 8)
    expected = np.clip(values, 0, 255)
    tolerance = 4 if suffix.startswith(".jp") else 0.5 if found.bits == 8 else 0.5 / 257
    assert np.abs(found.color - expected).max() <= tolerance + 1e-5
    with Image.open(path) as image:
        assert image.format == FORMATS[suffix]


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    values = np.zeros((16, 16, 3), np.float32)
    values[:, ::2, 0] = 255  # red and black columns; halved colour resolution would mix them
    write(Picture(values), tmp_path / "x.jpg")
    assert np.abs(read(tmp_path / "x.jpg").color - values).max() < 30


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_icc_profile_is_kept(tmp_path, suffix, bits):
    path = tmp_path / f"x{suffix}"
    write(Picture(noise(9, 9, 3).astype(np.float32), None, bits, SRGB), path)
    assert read(path).icc == SRGB
    with Image.open(path) as image:
        assert image.info["icc_profile"] == SRGB


def test_without_profile_there_is_none(tmp_path):
    for suffix in SUFFIXES:
        write(Picture(noise(9, 9, 3).astype(np.float32)), tmp_path / f"x{suffix}")
        assert read(tmp_path / f"x{suffix}").icc is None


def test_opaque_alpha_is_left_out_where_there_is_no_place_for_it(tmp_path):
    color, alpha = np.full((9, 9, 3), 7, np.float32), np.full((9, 9), 255, np.float32)
    for suffix in (".bmp", ".jpg"):
        write(Picture(color, alpha), tmp_path / f"x{suffix}")
        assert_same(read(tmp_path / f"x{suffix}"), color)


def test_16_bit_files_are_what_others_read(tmp_path):
    for channels in (1, 2, 3, 4):
        pixels = noise16(70, 9, channels, seed=channels)
        color = pixels[..., : channels - 1 + channels % 2] / np.float32(257)
        alpha = None if channels % 2 else pixels[..., -1] / np.float32(257)
        write(Picture(color, alpha, 16), tmp_path / "x.png")
        write(Picture(color, alpha, 16), tmp_path / "x.tif")
        with Image.open(tmp_path / "x.png") as image:  # a checksum error would be raised here
            image.verify()
        expected = pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels
        found = tifffile.imread(tmp_path / "x.tif")
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_16_bit_png_is_what_pypng_reads(tmp_path):
    reader = pytest.importorskip("png")
    pixels = noise16(70, 9, 3)
    write(Picture(pixels / np.float32(257), None, 16, SRGB), tmp_path / "x.png")
    _, _, rows, info = reader.Reader(str(tmp_path / "x.png")).read()
    np.testing.assert_array_equal(np.vstack([np.asarray(r) for r in rows]), pixels.reshape(70, -1))
    assert info["bitdepth"] == 16 and not info["alpha"] and not info["greyscale"]


def test_works_without_imagecodecs(tmp_path):
    # tifffile uses that large package when it is there; here it need not be.
    code = """
import sys; sys.modules["imagecodecs"] = None
import numpy as np
from isrrescnet_jax.images import Picture, read, write
for bits in (8, 16):
    x = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.float32)
    write(Picture(x, None, bits), sys.argv[1])
    assert np.array_equal(read(sys.argv[1]).color, x)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.tif")], check=True)
