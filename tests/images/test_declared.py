"""Sizes that a header declares are held against memory before anything is decoded."""

import io
import resource
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from isrrescnet_jax import images, sizes
from isrrescnet_jax.images import Declared, codecs, declared, frames, measured

MODES = {"1": (1, False), "L": (1, False), "RGB": (3, False), "RGBA": (4, False)}
MODES |= {"CMYK": (4, False), "P": (4, False), "I;16": (1, True), "F": (1, True)}


def stored(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def little(monkeypatch):
    """Only so many bytes are free."""

    def leave(free: int):
        for module in (declared, codecs):
            monkeypatch.setattr(module, "host_memory", lambda: free)

    return leave


@pytest.mark.parametrize("mode", MODES)
def test_the_header_says_how_large_a_picture_is(mode):
    with Image.open(io.BytesIO(stored(Image.new(mode, (70, 30)), "TIFF"))) as image:
        found = declared.declared(image, 2)
    assert (found.width, found.height, found.pixels) == (70, 30, 2 * 70 * 30)
    assert (found.values, found.deep) == MODES[mode]


def undecodable(*_):
    raise AssertionError("decoded")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_what_has_no_room_is_refused_before_it_is_decoded(little, monkeypatch, format):
    data = stored(Image.new("RGB", (300, 200)), format)
    little(3_000_000)
    (picture,) = images.film_of(data, "x").pictures
    assert picture.color.shape[:2] == (200, 300)
    little(500_000)
    monkeypatch.setattr(codecs, "read_pixels", undecodable)
    with pytest.raises(ValueError, match="x: its header says 300x200 pixels, which take") as error:
        list(images.film_of(data, "x").pictures)
    assert "500 kB may be used" in str(error.value) and "\n" not in str(error.value)


def test_animations_pages_and_floating_point(little, monkeypatch):
    page = Image.new("RGB", (300, 200), "white")
    more = {"save_all": True, "append_images": [page.rotate(90, expand=True)] * 3}
    film = images.film_of(stored(page, "TIFF", **more), "x")
    assert film.size == Declared(300, 200, 3, False, 4 * 60000)
    film = images.film_of(stored(page, "WEBP", save_all=True, append_images=[page.rotate(1)]), "x")
    assert film.size is not None and film.size.pixels == 2 * 60000
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((200, 300, 3), np.float32), photometric="rgb")
    little(2_000_000)
    monkeypatch.setattr(measured, "in_grey_levels", undecodable)
    with pytest.raises(ValueError, match="its header says 300x200"):
        list(images.film_of(buffer.getvalue(), "x").pictures)
    little(400_000)
    monkeypatch.setattr(frames, "_durations", undecodable)
    with pytest.raises(ValueError, match="its header says 300x200 pixels"):
        images.film_of(stored(page, "GIF", save_all=True, append_images=[page.rotate(1)]), "x")


def test_room_for_the_result_counts_too():
    size = Declared(1000, 1000)
    images.check_room(size, limit=40_000_000)
    with pytest.raises(ValueError, match="to read and enlarge 4 times, but 40 MB may be used"):
        images.check_room(size, 4, limit=40_000_000)
    images.check_room(size, 4, limit=150_000_000)
    many = Declared(1000, 1000, pixels=9 * 10**6)
    with pytest.raises(ValueError, match="1000x1000 pixels in 9 pictures"):
        images.check_room(many, 4, limit=150_000_000)


def test_a_file_larger_than_memory_and_a_device_are_not_loaded(little, tmp_path):
    path = tmp_path / "x.png"
    with open(path, "wb") as file:
        file.truncate(2**40)
    little(2**34)
    with pytest.raises(ValueError, match=r"x.png: 1099.5 GB, but 17.2 GB of memory are free"):
        images.load(path)
    with pytest.raises(ValueError, match="/dev/zero: a device, not an image"):
        images.load("/dev/zero")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how large a process is")
def test_limits_of_the_process_count():
    code = """
import resource
from isrrescnet_jax.sizes import host_memory
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
print(host_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**28 < int(done.stdout) < 2**30
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 2**30
    assert (sizes.host_memory() or 2**31) > 2**20


@pytest.mark.parametrize(("size", "text"), [(7, "7 bytes"), (12_345, "12 kB"), (2.5e9, "2.5 GB")])
def test_bytes_for_people(size, text):
    assert sizes.said(size) == text


def test_130_megapixels_take_little_memory_where_little_is_allowed(tmp_path):
    """The picture that took 2.4 GB: one line, and under 200 MB above an idle process."""
    Image.new("RGB", (13000, 10000)).save(tmp_path / "x.png")
    code = """
import resource, sys
from isrrescnet_jax import images
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
film = images.open_film(sys.argv[1])
try:
    images.check_room(film.size, 4, 2**30)
except ValueError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "x.png")]
    line, kilobytes = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert line.startswith("its header says 13000x10000 pixels, which take 19.2 GB to read and")
    assert int(kilobytes) < 200_000


def test_libtiff_is_not_heard_on_standard_error(capfd):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
    tifffile.imwrite(buffer, pixels, photometric="rgb", compression="zlib", predictor=True)
    with pytest.raises(ValueError, match="damaged"):
        list(images.film_of(buffer.getvalue()[:900], "x").pictures)
    print("still heard", file=sys.stderr)
    assert capfd.readouterr().err == "still heard\n"
