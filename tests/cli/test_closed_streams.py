"""Standard streams that the caller has closed, and Ctrl-C twice: still a line, or none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import fails
from PIL import Image

START = "import os, sys\nfor n in map(int, sys.argv.pop(1)): os.close(n)\n"
START += "os.execv(sys.executable, [sys.executable, '-m', 'isrrescnet_jax', *sys.argv[1:]])"


def without(streams: str, *argv: str) -> subprocess.CompletedProcess:
    """A command whose standard streams of these numbers are closed."""
    command = [sys.executable, "-c", START, streams, *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("streams", ["1", "2", "12", "012"])
def test_a_batch_without_them(here, streams):
    done = without(streams, "degrade", "photos", "-s", "3", "-o", "out")
    assert done.returncode == 0 and not done.stderr
    assert ("2 of 2 written" in done.stdout) == ("1" not in streams)
    assert [Image.open(p).size for p in Path("out").iterdir()] == [(4, 3)] * 2


@pytest.mark.parametrize("streams", ["0", "01"])
def test_standard_input_that_is_closed(here, streams):
    done = without(streams, "degrade", "-", "-o", "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "failed: -: nothing comes from standard input"


def test_standard_output_that_is_closed(here):
    done = without("1", "degrade", "photos/bird.png", "-o", "-")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "failed: photos/bird.png: standard output is closed"


@pytest.mark.parametrize(
    "argv",
    [["upscale", ""], ["degrade", "photos", "-o", ""], ["evaluate", "--hr="], ["info", ""]],
)
def test_an_empty_word_is_not_the_current_folder(here, capsys, argv):
    option = argv[-1].rstrip("=") or argv[-2]
    assert f"nothing is given after {option}" in fails(capsys, *argv)
    assert os.listdir() == ["photos"]


def test_choices_are_those_that_can_be_given(capsys):
    line = fails(capsys, "upscale", "x.png", "--format", "gif")
    assert "Expected one of ('bmp', 'jpg', 'png', 'tiff', 'webp')." in line


TWICE = """
import os, signal, sys
from isrrescnet_jax import cli, train
from isrrescnet_jax.cli import batch, model

def interrupted(*_):
    raise KeyboardInterrupt

class Terminal:
    def write(self, text):
        sys.__stderr__.write(text)
        if "interrupted" in text:
            sys.__stderr__.flush()
            os.kill(os.getpid(), signal.SIGINT)
    def flush(self):
        sys.__stderr__.flush()

sys.stderr = Terminal()
train.run_recipe = batch.Files.plan = model.Model.upscaler = interrupted
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        (["train", "r.py"], "; the same command continues"),
        (["upscale", "photos"], "; --skip-existing continues"),
        (["evaluate", "--hr", "photos"], ""),
    ],
)
def test_ctrl_c_twice_and_how_it_goes_on(here, argv, advice):
    done = subprocess.run([sys.executable, "-c", TWICE, *argv], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.strip() == f"isrrescnet: interrupted{advice}"
