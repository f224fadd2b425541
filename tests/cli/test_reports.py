"""What a command writes takes the place of nothing else, and what cannot be is said at once."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import fails, run
from conftest import photo
from PIL import Image


@pytest.fixture(autouse=True)
def large(here):
    """Pictures that SSIM has room in."""
    for i, name in enumerate(("bird.png", "castle.bmp")):
        Image.fromarray(photo(36, 42, seed=i)[0]).save(Path("photos", name))


def contents() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path().rglob("*") if p.is_file()}


COMMANDS = {
    "degrade": ["degrade", "photos", "-s", "2", "-o", "out"],
    "evaluate": ["evaluate", "--hr", "photos", "-s", "2", "--no-times"],
}
REPORTS = [("degrade", "--json"), *(("evaluate", o) for o in ("--json", "--csv", "--markdown"))]


@pytest.mark.parametrize(("command", "option"), REPORTS)
def test_a_report_never_takes_the_place_of_a_picture_or_of_data(here, capsys, command, option):
    Path("kernel").write_bytes(b"\x93NUMPY")
    Path("damaged.png").write_text("a text")
    before = contents()
    for name in ("photos/bird.png", "photos/castle.bmp", "kernel", "damaged.png"):
        for extra in ([], ["--overwrite"]):
            line = fails(capsys, *COMMANDS[command], option, name, *extra)
            assert line.startswith(f"isrrescnet: {option} {name}")
    assert contents() == before


@pytest.mark.parametrize(("command", "option"), REPORTS)
def test_a_report_takes_the_place_of_a_report(here, weights, capsys, command, option):
    extra = ["-w", weights] if command == "evaluate" else []
    argv = [*COMMANDS[command], *extra, option, "report"]
    Path("report").write_text("my notes")
    assert "already there, and no report; use --overwrite" in fails(capsys, *argv)
    assert Path("report").read_text() == "my notes" and not Path("out").exists()
    assert run(*argv, "--overwrite") == 0
    made = Path("report").read_text()
    shutil.rmtree("out", ignore_errors=True)
    assert "my notes" not in made and run(*argv) == 0
    assert Path("report").read_text()[:20] == made[:20]


@pytest.mark.parametrize(("command", "option"), REPORTS)
def test_reports_that_cannot_be_are_refused_before_the_work(here, capsys, command, option):
    Path("file").touch()
    before = contents()
    for name, reason in (("photos", "Is a directory"), ("file/report", "Not a directory")):
        line = fails(capsys, *COMMANDS[command], option, name)
        assert line == f"isrrescnet: {name}: {reason}"
    assert contents() == before


def test_two_reports_are_two_files(here, capsys):
    for names in (["x", "./x"], ["-", "-"]):
        argv = [*COMMANDS["evaluate"], "--json", names[0], "--csv", names[1]]
        assert "is another report" in fails(capsys, *argv)


def test_reports_on_standard_output(here, weights, capsys):
    argv = ["upscale", "photos", "-w", weights, "-o", "out"]
    assert run(*argv, "--json", "-") == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["pictures"]) == 2
    assert "2 of 2 written" in captured.err
    assert run(*COMMANDS["evaluate"], "-w", weights, "--csv", "-") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("dataset,scale") and "paper (no crop)" in captured.err
    line = fails(capsys, "upscale", "photos/bird.png", "-o", "-", "--json", "-")
    assert "that of a result" in line and not Path("-").exists()


def test_links_and_pipes_stay(here, weights):
    Path("link.json").symlink_to("report")
    os.mkfifo("pipe.png")
    reader = os.open("pipe.png", os.O_RDONLY | os.O_NONBLOCK)
    argv = ["upscale", "photos/bird.png", "-w", weights, "-o", "pipe.png", "--overwrite"]
    assert run(*argv, "--json", "link.json") == 0
    assert os.read(reader, 4) == b"\x89PNG" and Path("pipe.png").is_fifo()
    os.close(reader)
    assert Path("link.json").is_symlink() and json.loads(Path("report").read_text())


def test_figures_take_the_place_of_nothing(here, weights, capsys):
    for name in ("bird_iterates.png", "photos_x2_bird_iterates.png"):
        Image.fromarray(photo(8, 8)[0]).save(Path("photos", name))
    before = contents()
    trace = ["-w", weights, "--trace", "photos"]
    for extra in ([], ["--overwrite"]):
        line = fails(capsys, "upscale", "photos", *trace, *extra)
        assert "photos/bird_iterates.png: would overwrite an input" in line
        line = fails(capsys, "evaluate", "--hr", "photos", "-s", "2", *trace, *extra)
        assert "photos/photos_x2_bird_iterates.png: would overwrite an input" in line
    assert "already there" in fails(capsys, "upscale", "photos/bird.png", *trace)
    shard = ["--shard", "1/4", "--overwrite"]  # whose figure is an input of another shard
    assert "overwrite an input" in fails(capsys, "upscale", "photos", *trace, *shard)
    line = fails(
        capsys, "upscale", "photos/castle.bmp", *trace[:3], ".", "-o", "castle_iterates.png"
    )
    assert "both a result and a figure" in line
    assert contents() == before


def test_results_take_the_place_of_no_input_of_another_shard(here, weights, capsys):
    Image.fromarray(photo(8, 8)[0]).save("photos/castle.png")
    argv = ["upscale", "photos/castle.bmp", "photos/castle.png", "-w", weights, "-o", "photos"]
    assert "overwrite an input" in fails(capsys, *argv, "--overwrite", "--shard", "1/2")


def test_figures_of_pictures_with_one_name(here, weights):
    pytest.importorskip("matplotlib")
    for folder in "ab":
        Path(folder, "c").mkdir(parents=True)
        Image.fromarray(photo(8, 8)[0]).save(Path(folder, "c", "x.png"))
        shutil.move(folder, "photos")
    for name in ("bird.png", "castle.bmp"):
        Path("photos", name).unlink()
    assert run("upscale", "-r", "photos", "-w", weights, "--trace", "traces") == 0
    made = sorted(str(p) for p in Path("traces").rglob("*.png"))
    assert made == ["traces/a/c/x_iterates.png", "traces/b/c/x_iterates.png"]


def test_weights_are_not_written_over(here, weights, capsys):
    shutil.copy(weights, "w.safetensors")
    Path("link").symlink_to("w.safetensors")
    for out in ("w.safetensors", "link"):
        argv = ["export", "-w", "w.safetensors", "-o", out, "--overwrite"]
        assert "would overwrite an input" in fails(capsys, *argv)
    assert Path("w.safetensors").read_bytes() == Path(weights).read_bytes()


def test_a_dry_run_checks_weights_and_options(here, weights, capsys):
    argv = ["upscale", "photos", "--dry-run"]
    assert "no such weights file" in fails(capsys, *argv, "-w", "none.safetensors")
    assert "--kernel" in fails(capsys, *argv, "-w", weights, "--operator", "blur")
    assert "not a readable .npy" in fails(
        capsys, "degrade", "photos", "-o", "out", "--dry-run", "--kernel", "none.npy"
    )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("command", ["upscale", "evaluate"])
def test_weights_for_another_scale_are_noted_once(here, weights, capsys, command):
    where = ["photos"] if command == "upscale" else ["--hr", "photos"]
    assert run(command, *where, "-w", weights, "-s", "3") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"isrrescnet: {weights} was trained for x2, and is used for x3"


def test_names_are_escaped(here, weights, capsys):
    name = "photos/two\nlines \x1b[31mred.png"
    Image.fromarray(photo(8, 8)[0]).save(name)
    Path("photos/\x1bbad.png").write_text("nothing")
    assert run("upscale", "photos", "-w", weights) == 2
    assert run("upscale", "photos", "-w", weights, "--dry-run", "--overwrite") == 0
    assert run("evaluate", "--hr", "photos", "-w", weights, "-s", "2") == 2
    captured = capsys.readouterr()
    assert "two\\nlines \\x1b[31mred.png" in captured.out and "\x1b" not in captured.out
    assert "\\x1bbad.png" in captured.err and "\x1b" not in captured.err
    assert np.asarray(Image.open("sr_results/two\nlines \x1b[31mred.png")).shape == (16, 16, 3)
