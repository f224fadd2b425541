"""A disk that fills up, folders that are read-only or vanish: old files stay whole, in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import images

FULL = """
import os, sys
from isrrescnet_jax import cli, files
room = int(sys.argv[1])

def full(*arguments, **options):
    raise OSError(28, os.strerror(28))

if room:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
else:  # what a disk says that is full; the file's beginning has been written
    link, os.link = os.link, full
    replace, os.replace = os.replace, full
cli.main(sys.argv[2:])
"""


def on_a_full_disk(room: int, *argv: object) -> tuple[int, list[str]]:
    """Exit code and standard error of a command whose files end at `room` bytes; 0: none fits."""
    command = [sys.executable, "-c", FULL, str(room), *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr.splitlines()


@pytest.fixture
def before(here) -> dict[str, bytes]:
    """What stood in the results' folder, one of them an old result."""
    Path("out").mkdir()
    Path("out/large.png").write_bytes(b"the old result")
    Image.fromarray(photo(120, 160)[0]).save("photos/large.png")
    return contents()


def contents() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path("out").iterdir()}


@pytest.mark.parametrize("format", ["png", "tiff", "webp", "jpg", "bmp"])
def test_images_on_a_disk_that_fills_up(before, format):
    Path(f"out/large.{format}").write_bytes(b"the old result")
    old = contents()
    command = ("degrade", "photos", "-s", "2", "-o", "out", "--overwrite", "--format", format)
    code, lines = on_a_full_disk(1500, *command)
    assert code == 2
    (line,) = lines
    assert line.startswith("failed: photos/large.png: ") and "File too large" in line
    new = contents()
    assert set(new) == set(old) | {f"bird.{format}", f"castle.{format}"}
    assert new[f"large.{format}"] == b"the old result"
    for name in ("bird", "castle"):
        images.read(f"out/{name}.{format}")


@pytest.mark.parametrize("room", [0, 40])
def test_json_on_a_disk_that_fills_up(before, room):
    Path("out/x.json").write_text('{"old": 1}')
    shutil.rmtree("photos")
    Path("photos").mkdir()
    Image.fromarray(photo(1, 1)[0]).save("photos/tiny.png")
    command = ("degrade", "photos", "-s", "2", "-o", "out", "--json", "out/x.json")
    command += ("--overwrite",)
    code, lines = on_a_full_disk(room, *command)
    assert code == 2 and all("Traceback" not in line for line in lines)
    assert lines[-1].startswith("isrrescnet: out/x.json: ")
    assert json.loads(Path("out/x.json").read_text()) == {"old": 1}
    assert contents() == before | {"x.json": b'{"old": 1}'}


def test_upscaled_images_on_a_full_disk(before, weights):
    code, lines = on_a_full_disk(0, "upscale", "photos", "-w", weights, "-o", "out", "--overwrite")
    assert code == 2 and len(lines) == 3
    assert all("No space left on device" in line for line in lines)
    assert contents() == before


def test_weights_on_a_full_disk(tmp_path, small):
    path = tmp_path / "w.safetensors"
    isr.save_weights(small, path)
    code = f"""
import resource
import isrrescnet_jax as isr
weights = isr.load_weights({str(path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
isr.save_weights(weights, {str(path)!r})
"""
    whole = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert path.read_bytes() == whole and os.listdir(tmp_path) == ["w.safetensors"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB, where this user may have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_system_that_is_really_full(small_disk):
    rng = np.random.default_rng(0)
    small, large = (rng.integers(0, 256, (n, n, 3)).astype(np.float32) for n in (40, 200))
    images.write(images.Picture(small), small_disk / "a.png")
    whole = (small_disk / "a.png").read_bytes()
    for name in ("a.png", "b.png", "c.tif", "d.webp", "e.bmp"):
        with pytest.raises(OSError, match="No space left"):
            images.write(images.Picture(large), small_disk / name)
    assert os.listdir(small_disk) == ["a.png"] and (small_disk / "a.png").read_bytes() == whole


def test_a_folder_that_cannot_be_written_to(here, weights):
    Path("file").write_text("in the way")
    command = [sys.executable, "-m", "isrrescnet_jax.cli", "degrade", "photos", "-s", "2", "-o"]
    for out in ("file/below", "/proc/nowhere"):
        done = subprocess.run([*command, out], capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        lines = done.stderr.splitlines()
        assert lines and all(line.startswith(("failed: ", "isrrescnet: ")) for line in lines)
    assert Path("file").read_text() == "in the way"


def test_inputs_and_folders_that_vanish_meanwhile(here, weights, monkeypatch, capsys):
    from commands import run

    from isrrescnet_jax.cli import upscale

    opened = upscale.open_film

    def vanishing(source):
        if source.name == "bird.png":
            source.unlink(missing_ok=True)
        film = opened(source)
        shutil.rmtree("sr_results", ignore_errors=True)  # is made again
        return film

    monkeypatch.setattr(upscale, "open_film", vanishing)
    assert run("upscale", "photos", "-w", weights) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "failed: photos/bird.png: no such file"
    assert os.listdir("sr_results") == ["castle.png"]


def test_a_failed_picture_is_let_go_of(here, weights, monkeypatch):
    """A batch of many bad files keeps none of them in memory."""
    import weakref

    from commands import run

    from isrrescnet_jax.cli import upscale

    class Large:
        pass

    alive = []

    def fails(source):
        large = Large()
        alive.append(weakref.ref(large))
        raise ValueError("no picture")

    monkeypatch.setattr(upscale, "open_film", fails)
    monkeypatch.setattr("gc.freeze", lambda: None)
    for i in range(4):
        shutil.copy("photos/bird.png", f"photos/{i}.png")
    assert run("upscale", "photos", "-w", weights) == 2
    left = [i for i, reference in enumerate(alive) if reference() is not None]
    assert len(alive) == 6 and left in ([], [5])
