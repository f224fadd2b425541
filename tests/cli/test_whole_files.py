"""Nothing of what files hold is lost without a word: frames, pages, metadata, unread files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import run
from conftest import photo
from PIL import ExifTags, Image, PngImagePlugin

import isrrescnet_jax as isr
from isrrescnet_jax import cluster, images
from isrrescnet_jax.cli import upscale

FRAMES = [photo(9, 12, seed=i)[0] for i in range(3)]


@pytest.fixture
def animated(here) -> Path:
    first, *rest = map(Image.fromarray, FRAMES)
    first.save(
        "a.webp", save_all=True, append_images=rest, duration=[50, 90, 20], loop=2, lossless=True
    )
    first.quantize(16).save(
        "a.gif", save_all=True, append_images=rest, duration=[50, 90, 20], loop=0
    )
    first.save("a.tif", save_all=True, append_images=rest, dpi=(72, 72))
    return here


def test_all_frames_and_pages(animated, weights, small):
    assert run("upscale", "a.webp", "-w", weights, "-o", "b.png") == 0
    film = images.open_film("b.png")
    assert (film.kind, film.durations, film.loop) == ("animation", (50, 90, 20), 2)
    for found, frame in zip(film.pictures, FRAMES, strict=True):
        np.testing.assert_array_equal(found.color, isr.upscale(frame, weights=small))
    assert run("upscale", "a.gif", "-w", weights, "-o", "c.webp") == 0
    film = images.open_film("c.webp")
    assert (film.kind, film.durations, film.loop) == ("animation", (50, 90, 20), 0)
    assert run("upscale", "a.tif", "-w", weights, "-o", "d.tif") == 0
    film = images.open_film("d.tif")
    assert (film.kind, film.count) == ("pages", 3)
    for found, frame in zip(film.pictures, FRAMES, strict=True):
        np.testing.assert_array_equal(found.color, isr.upscale(frame, weights=small))
        np.testing.assert_allclose(found.metadata.dpi, 144)


@pytest.mark.parametrize(("batch", "most"), [("auto", 1), (4, 2)])
def test_results_of_all_frames_are_never_in_memory_unrounded(
    animated, weights, monkeypatch, batch, most
):
    monkeypatch.setattr(upscale, "_VALUES", 2 * FRAMES[0].size)
    given, each = [], isr.Upscaler.each

    def counted(self, colors):
        given.append(len(colors))
        return each(self, colors)

    monkeypatch.setattr(isr.Upscaler, "each", counted)
    options = upscale.Upscale(weights=weights, batch=batch, dtype="float32")
    work = upscale.Enlarging(options, 2)
    jobs = [cluster.Job(name, "x.png") for name in ("a.webp", "a.gif")]
    found = list(work.compute(work.ready(), [work.read(job) for job in jobs]))
    assert [result.film.count for _, result in found] == [3, 3]
    assert sum(given) == 6 and max(given) == most
    for i, frame in enumerate(found[0][1].film.pictures):
        assert frame.color.dtype == np.uint8
        np.testing.assert_array_equal(frame.color, isr.upscale(FRAMES[i], weights=options.weights))


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a.tif", "x.png", "3 pages, of which PNG holds one: only the first was done"),
        ("a.gif", "x.jpg", "3 frames of an animation, of which JPEG holds one"),
    ],
)
def test_what_a_format_cannot_hold_is_said(animated, weights, capsys, source, target, words):
    assert run("upscale", source, "-w", weights, "-o", target, "--json", "x.json") == 0
    assert f"note: {source}: {words}" in capsys.readouterr().err
    assert words in json.loads(Path("x.json").read_text())["pictures"][0]["note"]
    assert Image.open(target).size == (24, 18)


def test_files_that_are_not_read_are_named(here, weights, capsys):
    Path("photos/a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    Path("photos/bm.txt").write_text("BM is how this text begins")
    Path("photos/holiday 3.5").write_bytes(Path("photos/bird.png").read_bytes())
    Path("photos/b.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n")
    Path("photos/c").write_bytes(Path("photos/bird.png").read_bytes())
    Path("photos/notes").write_text("none")
    Path("photos/notes.txt").write_text("none")
    Image.open("photos/bird.png").save("photos/d.gif")
    Image.open("photos/bird.png").save("photos/e.avif")
    for extra in (["--dry-run"], ["--json", "x.json"]):
        assert run("upscale", "photos", "-w", weights, *extra) == 0
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("4 not read") and line.endswith(
            "photos/a.heic, photos/b.jp2, photos/c, photos/holiday 3.5"
        )
    assert {p.stem for p in Path("sr_results").iterdir()} == {"bird", "castle", "d", "e"}
    assert len(json.loads(Path("x.json").read_text())["not_read"]) == 4
    assert run("upscale", "photos/c", "-w", weights) == 0  # by its name it is
    for name in ("bird.png", "castle.bmp", "d.gif", "e.avif"):
        Path("photos", name).unlink()
    assert run("upscale", "photos", "-w", weights) == 2
    assert "4 look like images that are not read" in capsys.readouterr().err


@pytest.fixture
def described(here) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "Somebody"
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 14.0)}
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "Bird")
    Image.fromarray(FRAMES[0]).save("photo.png", exif=exif, dpi=(300, 300), pnginfo=text)
    return here


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_metadata_and_record(described, weights, suffix):
    results = {}
    for name, *options in (("kept",), ("bare", "--no-record"), ("gone", "--strip"),
                           ("none", "--strip", "--no-record")):  # fmt: skip
        path = f"{name}{suffix}"
        assert run("upscale", "photo.png", "-w", weights, "-o", path, *options) == 0
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {})
            exif = image.getexif()
            software = text.get("Software") or exif.get(ExifTags.Base.Software)
            results[name] = software, exif.get(ExifTags.Base.Artist), dict(exif.get_ifd(0x8825))
            assert exif.get(ExifTags.Base.Orientation, 1) == 1 and image.size == (18, 24)
        metadata = images.read(path).metadata
        dpi = metadata.dpi and round(metadata.dpi[0])
        assert dpi == (None if name in ("gone", "none") else 600)
    record = (
        rf"isrrescnet-jax {re.escape(isr.__version__)} \(weights small [0-9a-f]{{12}}, scale 2\)"
    )
    assert re.fullmatch(record, results["kept"][0]) and re.fullmatch(record, results["gone"][0])
    assert results["bare"][0] is None and results["none"][0] is None
    assert results["kept"][1:] == results["bare"][1:] and results["kept"][1] == "Somebody"
    assert results["kept"][2][1] == "N"
    assert results["gone"][1:] == results["none"][1:] == (None, {})


def test_the_record_names_options_but_no_paths_and_is_the_same_again(here, weights):
    arguments = ["upscale", "photos/bird.png", "-w", weights, "--ensemble", "--iterations", "2"]
    for name in ("a.png", "b.png"):
        assert run(*arguments, "-o", name) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    with Image.open("a.png") as image:
        software = image.text["Software"]
    assert "ensemble True, iterations 2" in software and "/" not in software


def test_degrade_says_what_it_leaves_out(animated, capsys):
    assert run("degrade", "a.tif", "-s", "3", "-o", "small.png") == 0
    assert "note: a.tif: 3 pictures in one file" in capsys.readouterr().err
    assert Image.open("small.png").size == (4, 3)
