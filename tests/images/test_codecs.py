import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from isrrescnet_jax.images import FORMATS, Picture, check_writable, encoders, read, read_rgb, write

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

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


# There and back


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


# Kinds of pixels


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


# Files that cannot be read


def test_first_picture_of_several(tmp_path):
    frames = [Image.fromarray(noise(9, 9, 3, seed=i)) for i in range(3)]
    for suffix, options in ((".webp", {"lossless": True}), (".tif", {}), (".png", {})):
        path = tmp_path / f"x{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert_same(read(path), np.asarray(frames[0]))


def encoded(suffix) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 40, 3)).save(buffer, FORMATS[suffix])
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp", ".jpg"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.9])
def test_truncated_files(tmp_path, suffix, part):
    data = encoded(suffix)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError) as error:
        read(path)
    assert one_line(error).startswith(f"{path}: ")


@few
@given(
    st.sampled_from([".png", ".webp", ".tif", ".bmp", ".jpg"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, suffix, damage):
    data = bytearray(encoded(suffix))
    for position, value in damage:
        data[position] = value
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    try:
        picture = read(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert picture.color.ndim == 3 and np.isfinite(picture.color).all()


def test_what_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("hello\n")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match="text.png: not an image that can be read") as error:
        read(tmp_path / "text.png")
    one_line(error)
    with pytest.raises(ValueError, match="empty.png: empty"):
        read(tmp_path / "empty.png")
    with pytest.raises(ValueError, match="a folder, not an image"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere.png: no such file"):
        read(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (np.zeros((9, 9), np.uint64), {}, "pixels of type uint64 are not supported"),
        (np.zeros((9, 9, 4), np.float32), {"photometric": "separated"}, "separated pixels"),
        (np.zeros((9, 9), np.int16), {}, "only unsigned integers"),
        (np.zeros((9, 9), np.int8), {}, "only unsigned integers"),
        (
            np.zeros((3, 9, 9), np.uint16),
            {"photometric": "rgb", "planarconfig": "separate"},
            "separate planes",
        ),
    ],
)
def test_unsupported_tiff(tmp_path, pixels, options, reason):
    tifffile.imwrite(tmp_path / "x.tif", pixels, **options)
    with pytest.raises(ValueError, match=reason) as error:
        read(tmp_path / "x.tif")
    assert one_line(error).startswith(str(tmp_path / "x.tif"))


def test_large_pictures(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.new("L", (4000, 3000)).save(path)
    assert read(path).color.shape == (3000, 4000, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="too many pixels") as error:
        read(path)
    one_line(error)


# Files that cannot be written


def test_transparency_needs_a_format_for_it(tmp_path):
    picture = Picture(np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), np.float32))
    for name in ("x.jpg", "x.jpeg", "x.bmp"):
        with pytest.raises(ValueError, match="cannot hold transparency: write PNG") as error:
            write(picture, tmp_path / name)
        one_line(error)
    assert not list(tmp_path.iterdir())


def test_unknown_suffix(tmp_path):
    for name in ("x.gif", "x"):
        with pytest.raises(ValueError, match="must end in one of .png"):
            write(Picture(np.zeros((9, 9, 3), np.float32)), tmp_path / name)


@pytest.mark.parametrize(("name", "side"), [("x.webp", 16384), ("x.jpg", 65501)])
def test_sides_beyond_the_format(tmp_path, name, side):
    with pytest.raises(ValueError, match="write PNG"):
        write(Picture(np.zeros((1, side, 3), np.float32)), tmp_path / name)
    write(Picture(np.zeros((1, side - 1, 1), np.float32)), tmp_path / name)
    assert read(tmp_path / name).color.shape[1] == side - 1


def test_the_size_is_checked_before_the_work_is_done():
    picture = Picture(np.zeros((2, 8200, 3), np.float32), np.zeros((2, 8200), np.float32))
    check_writable(picture, "x.webp")
    check_writable(picture, "x.png", scale=4)
    with pytest.raises(ValueError, match="x.webp: 16400x4 pixels, but WEBP ends at 16383"):
        check_writable(picture, "x.webp", scale=2)


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".png", 16), (".tif", 16), (".jpg", 8)])
def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch, suffix, bits):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"old")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    monkeypatch.setattr(tifffile.TiffWriter, "write", interrupt)
    monkeypatch.setattr(encoders.zlib, "compressobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(Picture(np.zeros((9, 9, 3), np.float32), bits=bits), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_writing_makes_the_folder(tmp_path):
    write(Picture(np.zeros((9, 9, 3), np.float32)), tmp_path / "a/b/x.png")
    assert [p.name for p in (tmp_path / "a/b").iterdir()] == ["x.png"]
