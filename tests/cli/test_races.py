"""Several processes at the same files, and files that change under the reader's hands."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import run
from conftest import photo
from PIL import Image

from isrrescnet_jax.images import codecs


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_share_a_folder(here, weights, count):
    for i in range(3 * count // 2):
        Image.fromarray(photo(20, 24, seed=i)[0]).save(f"photos/{i}.png")
    command = [sys.executable, "-m", "isrrescnet_jax.cli", "upscale", "photos", "-w", weights]
    assert run(*command[3:], "-o", "alone") == 0
    broken, stop = [], threading.Event()

    def watch():
        while not stop.wait(0.01):
            for path in Path("shared").glob("*.png"):
                try:
                    Image.open(path).load()
                except Exception as error:
                    broken.append((path, error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    options = ["-o", "shared", "--skip-existing", "--json"]
    processes = [
        subprocess.Popen(
            [*command, *options, f"{i}.json"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for i in range(count)
    ]
    for process in processes:
        error = process.communicate()[1]
        assert process.returncode == 0 and not error
    stop.set()
    watcher.join()
    assert not broken
    results = {path.name: path.read_bytes() for path in Path("shared").iterdir()}
    assert results == {path.name: path.read_bytes() for path in Path("alone").iterdir()}


def test_what_another_process_made_meanwhile_is_left_alone(here, weights, monkeypatch, capsys):
    from isrrescnet_jax.cli import upscale

    opened = upscale.open_film

    def slowly(source):
        film = opened(source)
        Path("sr_results").mkdir(exist_ok=True)
        Path("sr_results/castle.png").write_text("of another process")
        return film

    monkeypatch.setattr(upscale, "open_film", slowly)
    assert run("upscale", "photos", "-w", weights, "--skip-existing") == 0
    assert "sr_results/castle.png is already there" in capsys.readouterr().out
    assert Path("sr_results/castle.png").read_text() == "of another process"


def test_a_result_that_appears_meanwhile_is_not_replaced(here, weights, monkeypatch, capsys):
    from isrrescnet_jax.cli import upscale

    save = upscale.save

    def late(film, target, *options):
        if target.name == "castle.png":
            target.parent.mkdir(exist_ok=True)
            target.write_text("of another process")
        return save(film, target, *options)

    monkeypatch.setattr(upscale, "save", late)
    assert run("upscale", "photos", "-w", weights) == 2
    error = capsys.readouterr().err
    assert "sr_results/castle.png: appeared since; use --overwrite" in error
    assert Path("sr_results/castle.png").read_text() == "of another process"
    assert run("upscale", "photos", "-w", weights, "--overwrite") == 0
    assert Image.open("sr_results/castle.png").size


@pytest.mark.parametrize("change", ["grows", "shrinks", "is touched"])
def test_an_input_that_changes_is_an_error_for_it_alone(here, weights, monkeypatch, capsys, change):
    path = Path("photos/bird.png")
    victim = path.stat().st_ino
    fstat, seen = os.fstat, []

    def look(handle):
        status = fstat(handle)
        if status.st_ino == victim and not seen:
            seen.append(handle)
            data = path.read_bytes()
            if change == "is touched":
                os.utime(path, (1, 1))
            else:
                path.write_bytes(data + b"more" if change == "grows" else data[:-4])
        return status

    monkeypatch.setattr(codecs.os, "fstat", look)
    assert run("upscale", "photos", "-w", weights) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("failed: photos/bird.png: it changed while it was read")
    assert [p.name for p in Path("sr_results").iterdir()] == ["castle.png"]


def test_an_input_that_is_replaced_is_read_as_it_was(here, weights, monkeypatch):
    path, other = Path("photos/bird.png"), photo(9, 12, seed=7)[0]
    before = np.asarray(Image.open(path))
    Image.fromarray(other).save("other.png")
    victim, fstat = path.stat().st_ino, os.fstat

    def look(handle):
        status = fstat(handle)
        if status.st_ino == victim and Path("other.png").exists():
            os.replace("other.png", path)
        return status

    monkeypatch.setattr(codecs.os, "fstat", look)
    np.testing.assert_array_equal(codecs.read(path).color, before)
