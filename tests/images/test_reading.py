"""Files as other programs write them."""

import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from image_files import assert_same, few, noise, noise16, one_line, png
from PIL import Image

from isrrescnet_jax.images import read, read_rgb


@few
@given(st.sampled_from([1, 2, 3, 4]), st.booleans(), st.integers(1, 12), st.integers(1, 12))
def test_16_bit_png(tmp_path, channels, interlace, height, width):
    pixels = noise16(height, width, channels)
    path = png(tmp_path / "x.png", pixels, interlace=interlace)
    n = channels - 1 + channels % 2
    assert_same(read(path), pixels[..., :n], pixels[..., n] if n < channels else None, 16, 257)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 4}])
def test_16_bit_tiff(tmp_path, compression, byteorder, layout):
    if compression in ("lzw", "packbits"):
        pytest.importorskip("imagecodecs", reason="tifffile needs it to write these; we do not")
    options = {"compression": compression, "byteorder": byteorder, **layout}
    if compression in ("zlib", "lzw"):
        options["predictor"] = True
    path, color, alpha = tmp_path / "x.tif", noise16(33, 20, 3), noise16(33, 20, seed=1)
    tifffile.imwrite(path, color, photometric="rgb", **options)
    assert_same(read(path), color, None, 16, 257)
    tifffile.imwrite(path, alpha, photometric="minisblack", **options)
    assert_same(read(path), alpha[..., None], None, 16, 257)
    rgba = np.dstack([color, alpha])
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], **options)
    assert_same(read(path), color, alpha, 16, 257)
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unspecified"], **options)
    assert_same(read(path), color, None, 16, 257)
    if byteorder == "<":  # Pillow knows no other
        tifffile.imwrite(path, 65535 - alpha, photometric="miniswhite", **options)
        assert_same(read(path), alpha[..., None], None, 16, 257)


def test_premultiplied_16_bit_tiff(tmp_path):
    color, alpha = noise16(9, 9, 3).astype(np.float64), noise16(9, 9, seed=1)
    alpha[0, 0] = 0
    stored = np.rint(color * alpha[..., None] / 65535).astype(np.uint16)
    rgba = np.dstack([stored, alpha])
    tifffile.imwrite(tmp_path / "x.tif", rgba, photometric="rgb", extrasamples=["assocalpha"])
    found = read(tmp_path / "x.tif")
    np.testing.assert_array_equal(found.alpha * 257, alpha)
    color[0, 0] = 0
    error = np.abs(found.color * 257 - color)
    # The product was rounded to a whole number, which dividing by alpha magnifies; then once more.
    assert (error <= 0.51 * 65535 / np.maximum(alpha, 1)[..., None] + 0.51).all()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_with_few_bits(tmp_path, depth):
    pixels = noise(9, 13, 1) >> (8 - depth)
    scaled = pixels * (255 // (2**depth - 1))
    assert_same(read(png(tmp_path / "x.png", pixels, depth)), scaled)
    path = png(tmp_path / "y.png", pixels, depth, tRNS=struct.pack(">H", 1))
    assert_same(read(path), scaled, np.where(pixels[..., 0] == 1, 0, 255))


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_of_a_16_bit_png(tmp_path, channels):
    pixels = noise16(5, 6, channels)
    pixels[2, 3] = pixels[4, 4] = (1000, 2000, 3000)[:channels]
    pixels[1, 1] = (1001, 2000, 3000)[:channels]  # the same in its upper bytes
    key = struct.pack(f">{channels}H", *pixels[2, 3])
    alpha = np.full((5, 6), 65535)
    alpha[2, 3] = alpha[4, 4] = 0
    assert_same(read(png(tmp_path / "x.png", pixels, tRNS=key)), pixels, alpha, 16, 257)


def test_transparent_colour_of_an_8_bit_png(tmp_path):
    pixels = noise(5, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png", transparency=tuple(map(int, pixels[2, 3])))
    alpha = np.full((5, 6), 255)
    alpha[2, 3] = 0
    assert_same(read(tmp_path / "x.png"), pixels, alpha)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_one_bit(tmp_path, suffix):
    bits = noise(9, 13) > 127
    Image.fromarray(bits).save(tmp_path / f"x{suffix}")
    assert_same(read(tmp_path / f"x{suffix}"), 255 * bits[..., None])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_palette(tmp_path, suffix):
    colors, indices = noise(16, 3), noise(9, 13) % 16
    image = Image.frombytes("P", (13, 9), indices.tobytes())
    image.putpalette(colors.tobytes())
    image.save(tmp_path / f"x{suffix}")
    assert_same(read(tmp_path / f"x{suffix}"), colors[indices])


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 240, 15))])
def test_palette_with_transparency(tmp_path, transparency):
    colors, indices = noise(16, 3), noise(9, 13) % 16
    image = Image.frombytes("P", (13, 9), indices.tobytes())
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "x.png", transparency=transparency)
    opacity = np.full(16, 255)
    if isinstance(transparency, int):
        opacity[transparency] = 0
    else:
        opacity[:] = list(transparency)
    assert_same(read(tmp_path / "x.png"), colors[indices], opacity[indices])


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_profile(tmp_path, suffix):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # pure cyan
    image.save(tmp_path / f"x{suffix}")
    found = read(tmp_path / f"x{suffix}")
    assert found.color.shape == (16, 16, 3) and found.icc is None and found.bits == 8
    assert np.abs(found.color - [0, 255, 255]).max() <= 2


def cmyk_profile() -> bytes:
    """An ICC profile with one coarse table for each way, CMYK <-> Lab: K alone gives the lightness.

    Of the inks C, M and Y it knows nothing, which a conversion without the profile would not.
    """

    def lut8(inputs, outputs, table):
        identity = bytes(range(256))
        matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
        head = b"mft1" + bytes(4) + bytes([inputs, outputs, 2, 0]) + matrix
        return head + identity * inputs + bytes(table) + identity * outputs

    to_lab = [v for i in range(16) for v in (0 if i & 1 else 255, 128, 128)]  # K varies fastest
    to_ink = [v for i in range(8) for v in (0, 0, 0, 0 if i & 4 else 255)]
    xyz = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    text = b"text" + bytes(4) + b"none\0"
    tags = {b"A2B0": lut8(4, 3, to_lab), b"B2A0": lut8(3, 4, to_ink)}
    tags |= {b"wtpt": xyz, b"desc": name, b"cprt": text}
    directory, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for key, data in tags.items():
        directory += key + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"test", 0x02400000, *CMYK_CLASS)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + body


CMYK_CLASS = (b"prtr", b"CMYK", b"Lab ")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile(tmp_path, suffix):
    inks = [(255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)]
    pixels = np.repeat(np.uint8([inks]), 8, axis=0).repeat(8, axis=1)
    image = Image.frombytes("CMYK", (24, 8), pixels.tobytes())
    image.save(tmp_path / f"x{suffix}", icc_profile=cmyk_profile())
    found = read(tmp_path / f"x{suffix}")
    assert found.icc is None
    # By this profile, ink is white unless it is black.
    np.testing.assert_allclose(found.color[4, [4, 12, 20]], [[255] * 3, [255] * 3, [0] * 3], atol=3)


def test_unusable_cmyk_profile_is_an_error(tmp_path):
    path = tmp_path / "x.jpg"
    Image.new("CMYK", (16, 16)).save(path, icc_profile=b"nonsense" * 30)
    with pytest.raises(ValueError, match="CMYK profile is unusable") as error:
        read(path)
    assert one_line(error).startswith(str(path))


def test_read_rgb_is_8_bits_and_three_channels(tmp_path):
    deep = noise16(9, 13, 4)
    path = png(tmp_path / "deep.png", deep)
    expected = np.rint(deep[..., :3] / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_rgb(path), expected)
    grey = noise(9, 13)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    found = read_rgb(tmp_path / "grey.png")
    np.testing.assert_array_equal(found, np.dstack([grey] * 3))
    assert found.dtype == np.uint8 and found.strides[-1] == 1
    with pytest.raises(FileNotFoundError):
        read_rgb(tmp_path / "none.png")


# Orientation

# Where the first row and the first column of the stored picture are to be seen: EXIF's own table.
MEANINGS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored_side(upright, where):
    return {
        "top": upright[0],
        "bottom": upright[-1],
        "left": upright[:, 0],
        "right": upright[:, -1],
    }[where]


def same_side(line, expected):
    return np.array_equal(line, expected) or np.array_equal(line, expected[::-1])


@pytest.mark.parametrize("orientation", MEANINGS)
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "tif16", "png16"])
def test_exif_orientation(tmp_path, orientation, kind):
    path = tmp_path / f"x.{kind.removesuffix('16')}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8], stored[:, :8, 1], stored[8:, 24:, 2] = (200, 0, 0), 200, 200
    if kind == "png16":
        png(path, stored.astype(np.uint16) * 257, eXIf=exif.tobytes()[6:])
    elif kind == "tif16":
        wide = stored.astype(np.uint16) * 257
        tag = (0x0112, "H", 1, orientation, True)
        tifffile.imwrite(path, wide, photometric="rgb", extratags=[tag])
    else:
        Image.fromarray(stored).save(path, exif=exif, quality=95, lossless=True)
    found = read(path)
    stored = np.round(stored.astype(np.float32))
    upright = np.round(found.color / 200) * 200 if kind == "jpg" else found.color
    assert found.color.shape == ((16, 32, 3) if orientation <= 4 else (32, 16, 3))
    row, column = MEANINGS[orientation]
    assert same_side(stored_side(upright, row), stored[0])
    assert same_side(stored_side(upright, column), stored[:, 0])


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_meaningless_orientation_is_ignored(tmp_path, orientation):
    exif, pixels = Image.Exif(), noise(5, 7, 3)
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    assert_same(read(tmp_path / "x.png"), pixels)


def test_damaged_exif_does_not_hide_the_picture(tmp_path):
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=b"Exif\0\0garbage")
    assert_same(read(tmp_path / "x.png"), pixels)


def test_first_picture_of_several(tmp_path):
    frames = [Image.fromarray(noise(9, 9, 3, seed=i)) for i in range(3)]
    for suffix, options in ((".webp", {"lossless": True}), (".tif", {}), (".png", {})):
        path = tmp_path / f"x{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert_same(read(path), np.asarray(frames[0]))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_grey_with_alpha_of_16_bits(tmp_path, planar):
    stored, path = noise16(9, 14, 2), tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        stored if planar == "contig" else np.moveaxis(stored, -1, 0),
        photometric="minisblack",
        planarconfig=planar,
        extrasamples=["unassalpha"],
    )
    assert_same(read(path), stored[..., :1], stored[..., 1], 16, 257)
