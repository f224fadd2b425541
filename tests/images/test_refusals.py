"""Files that cannot be read, and pictures that cannot be written."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from image_files import few, noise, one_line
from PIL import Image

from isrrescnet_jax.images import FORMATS, Picture, check_writable, encoders, read, write


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
