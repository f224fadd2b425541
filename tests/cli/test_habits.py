"""What people who know other programs for this expect of the options."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import fails, run
from conftest import photo
from PIL import Image

import isrrescnet_jax as isr


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_short_options_and_a_file_as_output(here, weights, small, capsys):
    assert (
        run("upscale", "-i", "photos/bird.png", "-o", "new/big.webp", "-s", "2", "-w", weights) == 0
    )
    expected = isr.upscale(pixels("photos/bird.png"), weights=small)
    np.testing.assert_array_equal(pixels("new/big.webp"), expected)
    assert "1 of 1 written to new/big.webp in" in capsys.readouterr().out
    again = ["upscale", "photos/bird.png", "-w", weights, "-o", "new/big.webp"]
    assert "already there" in fails(capsys, *again)
    assert "is for one picture, not 2" in fails(capsys, "upscale", "photos", "-o", "x.png")
    assert "contradict" in fails(capsys, *again, "--overwrite", "--format", "png")
    assert "must end in one of" in fails(capsys, *again[:4], "-o", "x.gif")
    assert "overwrite an input" in fails(capsys, *again[:4], "-o", "photos/bird.png", "--overwrite")
    assert run("degrade", "-i", "photos/bird.png", "-o", "small.png", "-s", "3") == 0
    assert Image.open("small.png").size == (4, 3)


def test_suffix_of_the_names(here, weights, capsys):
    assert run("upscale", "photos", "-w", weights, "--suffix", "_x2", "--format", "jpg") == 0
    assert sorted(p.name for p in Path("sr_results").iterdir()) == ["bird_x2.jpg", "castle_x2.jpg"]
    assert "--suffix" in fails(capsys, "upscale", "photos", "--suffix", "/../x")


@pytest.mark.parametrize("argument", [["photos", "-r"], ["photos/**/*.*"], ["-r", "-i", "photos"]])
def test_folders_in_folders_are_mirrored(here, weights, argument):
    for folder in ("a", "a/b", ".hidden"):
        Path("photos", folder).mkdir()
        Image.fromarray(photo(5, 6)[0]).save(Path("photos", folder, "bird.png"))
    command = ["upscale", *argument, "-w", weights, "--out", "photos/big", "--overwrite"]
    assert run(*command) == 0
    if "-r" in argument:  # the results are not taken for pictures to do
        assert run(*command) == 0
    found = sorted(str(p.relative_to("photos/big")) for p in Path("photos/big").rglob("*.png"))
    assert found == ["a/b/bird.png", "a/bird.png", "bird.png", "castle.png"]


def standard_input(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.mark.parametrize(
    ("arguments", "format"), [(["-"], "PNG"), (["-i", "-", "-o", "-", "--format", "jpg"], "JPEG")]
)
def test_standard_input_and_output(
    here, weights, small, monkeypatch, capsysbinary, arguments, format
):
    data = Path("photos/bird.png").read_bytes()
    standard_input(monkeypatch, data)
    assert run("upscale", *arguments, "-w", weights) == 0
    captured = capsysbinary.readouterr()
    image = Image.open(io.BytesIO(captured.out))  # nothing but the picture
    assert image.format == format
    if format == "PNG":
        expected = isr.upscale(pixels("photos/bird.png"), weights=small)
        np.testing.assert_array_equal(np.asarray(image), expected)
    assert b"1 picture to do" in captured.err and b"1 of 1 written" in captured.err


def test_standard_input_or_output_alone(here, weights, monkeypatch, capsysbinary):
    standard_input(monkeypatch, Path("photos/bird.png").read_bytes())
    assert run("upscale", "-", "-w", weights, "-o", "out") == 0
    assert Image.open("out/stdin.png").size == (24, 18)
    assert b"1 of 1" in capsysbinary.readouterr().err
    assert run("upscale", "photos/bird.png", "-w", weights, "-o", "-") == 0
    assert Image.open(io.BytesIO(capsysbinary.readouterr().out)).size == (24, 18)
    standard_input(monkeypatch, b"")
    assert run("upscale", "-", "-w", weights) == 2
    captured = capsysbinary.readouterr()
    assert not captured.out and b"failed: -: nothing comes from standard input" in captured.err


def test_json_of_what_was_done(here, weights, capsys):
    Path("photos/broken.png").write_text("nothing")
    assert run("upscale", "photos", "-w", weights, "--json", "done.json") == 2
    pictures = json.loads(Path("done.json").read_text("utf-8"))["pictures"]
    assert [p["status"] for p in pictures] == ["written", "failed", "written"]
    assert pictures[0]["input"] == "photos/bird.png"
    assert pictures[0]["output"] == "sr_results/bird.png"
    assert (pictures[0]["width"], pictures[0]["height"], pictures[0]["scale"]) == (24, 18, 2)
    assert "not an image" in pictures[1]["error"]


def test_dry_run(here, weights, capsys):
    assert run("upscale", "photos", "-w", weights, "--dry-run", "--json", "done.json") == 0
    out = capsys.readouterr().out
    assert "2 pictures to do" in out and "photos/bird.png -> sr_results/bird.png" in out
    assert sorted(p.name for p in Path().iterdir()) == ["photos"]


def test_unusual_names(here, weights, capsys):
    names = [
        "with space.png",
        "雪 und Straße.png",
        "-dash.png",
        "x" * 251 + ".png",
        "é" * 125 + ".jpg",
    ]
    for name in names:
        Image.open("photos/bird.png").save(Path("photos", name))
    for extra in ([], ["--overwrite"], ["--suffix", "_x4", "--format", "tiff"]):
        assert run("upscale", "photos", "-w", weights, *extra) == 0
    made = {p.name for p in Path("sr_results").iterdir()}
    assert {"with space.png", "雪 und Straße.png", "-dash.png", "x" * 251 + ".png"} <= made
    assert "x" * 247 + "_x4.tiff" in made
    assert max(len(name.encode()) for name in made) <= 255


def test_json_never_takes_the_place_of_a_picture(here, weights, capsys):
    before = Path("photos/bird.png").read_bytes()
    command = ["upscale", "photos/bird.png", "-w", weights, "-o", "new", "--json"]
    assert "one of the pictures" in fails(capsys, *command, "photos/bird.png")
    assert "that of a result" in fails(capsys, *command, "new/bird.png")
    assert Path("photos/bird.png").read_bytes() == before and not Path("new").exists()


def test_json_tells_of_what_is_not_done_as_well(here, weights):
    command = ["upscale", "photos", "-w", weights, "-o", "new", "--json", "done.json"]

    def status():
        pictures = json.loads(Path("done.json").read_text())["pictures"]
        return [(Path(p["input"]).name, p["status"]) for p in pictures]

    assert run(*command, "--shard", "1/2") == 0
    assert status() == [("bird.png", "written")]
    assert run(*command, "--skip-existing") == 0
    assert status() == [("bird.png", "already there"), ("castle.bmp", "written")]
    assert run(*command, "--skip-existing") == 0
    assert status() == [("bird.png", "already there"), ("castle.bmp", "already there")]


def test_names_that_are_no_text(here, weights):
    name = "caf\udce9.png"
    Path("photos/bird.png").rename(Path("photos", name))
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "isrrescnet_jax", "upscale", "photos", "-w", weights]
    command += ["-o", "new", "--json", "done.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "2 of 2 written" in done.stdout
    found = json.loads(Path("done.json").read_text())["pictures"]
    assert sorted(p["input"] for p in found) == sorted([f"photos/{name}", "photos/castle.bmp"])
    assert Path("new", name).exists()
