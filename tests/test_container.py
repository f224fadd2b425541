"""The Dockerfile: what it promises, and that its steps give a program that works."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import docker_steps
import numpy as np
import pytest
from conftest import optimized
from PIL import Image

import isrrescnet_jax as isr

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "astronaut.png"
TEXT = (ROOT / "Dockerfile").read_text()
STAGES = docker_steps.stages(TEXT)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def built():
    """The image of a target, with a photograph in its work folder, which belongs to its user.

    In a folder that every user may search, which pytest's are not; targets share their stages.
    """
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    sent = docker_steps.context(ROOT, folder / "context")
    done = {}

    def image(target: str) -> docker_steps.Image:
        image = docker_steps.build(TEXT, target, sent, folder, done=done)
        shutil.copy(PHOTO, image.folder)
        if os.geteuid() == 0:
            os.chown(image.folder, image.user, image.user)
        return image

    yield image
    shutil.rmtree(folder)


def test_others_images_have_a_version_and_a_digest():
    starts = {steps[0].value for steps in STAGES.values()} - STAGES.keys()
    assert starts
    assert all(re.fullmatch(r"[\w/]+:[\w.-]+@sha256:[0-9a-f]{64}", start) for start in starts)


@pytest.mark.parametrize("target", ["isrrescnet", "demo"])
def test_nothing_runs_as_root(target):
    steps = STAGES[target]
    while (start := steps[0].value) in STAGES:
        steps = [*STAGES[start], *steps[1:]]
    users = [step.value for step in steps if step.instruction == "USER"]
    assert users and not users[-1].startswith(("0", "root"))


def test_the_last_stage_is_the_command():
    assert list(STAGES)[-1] == "isrrescnet"


def test_jax_has_what_the_build_argument_names():
    (install,) = (s.value for s in STAGES["build"] if s.instruction == "RUN")
    assert '${CUDA:+"jax[cuda$CUDA]"}' in install
    assert {"cuda12", "cuda13"} <= set(metadata("jax").get_all("Provides-Extra") or ())


def test_only_what_images_need_is_sent(tmp_path):
    (ROOT / "isrrescnet_jax" / "__pycache__").mkdir(exist_ok=True)
    sent = docker_steps.context(ROOT, tmp_path)
    # The first two Docker always takes along.
    names = {
        ".dockerignore",
        "Dockerfile",
        "LICENSE",
        "README.md",
        "isrrescnet_jax",
        "predict.py",
        "pyproject.toml",
    }
    assert {path.name for path in sent.iterdir()} == names
    assert (sent / "isrrescnet_jax/assets/x4.safetensors").exists()
    assert not list(sent.rglob("__pycache__"))


def test_steps_that_are_not_understood_are_errors(tmp_path):
    start = "FROM python:3.13 AS one\n"
    for wrong, message in [
        ("ADD a b", "ADD"),
        ("RUN --mount=type=secret,id=a true", "type=secret"),
        ("RUN touch /etc/passwd", "/etc/passwd"),
    ]:
        with pytest.raises(ValueError, match=message):
            docker_steps.build(start + wrong, "one", tmp_path, tmp_path / message.replace("/", ""))
    with pytest.raises(subprocess.CalledProcessError):
        docker_steps.build(f"{start}RUN false", "one", tmp_path, tmp_path / "false")
    with pytest.raises(ValueError, match="debian"):
        docker_steps.build("FROM debian:13 AS one", "one", tmp_path, tmp_path / "debian")


def test_stages_variables_and_copies(tmp_path):
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "a.txt").write_text("a")
    text = """
    FROM python:3.13 AS base
    ENV PLACE=/opt/place NAME=before
    FROM base AS first
    ARG NAME
    ARG MORE=usual
    WORKDIR /src
    COPY a.txt ./
    RUN mkdir -p "$PLACE" && cp a.txt "$PLACE/$NAME" \\
        && echo "$MORE" > "$PLACE/more"
    FROM base AS last
    COPY --from=first $PLACE $PLACE
    WORKDIR /work
    USER 7:7
    ENTRYPOINT ["python", "-c"]
    CMD ["print(1)"]
    """
    out = tmp_path / "out"
    image = docker_steps.build(text, "last", tmp_path / "context", out, {"NAME": "given"})
    assert image.root == out / "root" and image.folder == out / "root/work" and image.user == 7
    assert sorted(path.name for path in (image.root / "opt/place").iterdir()) == ["given", "more"]
    assert (image.root / "opt/place/more").read_text() == "usual\n"
    assert not (image.root / "src").exists()
    assert (
        image.variables["NAME"] == "before" and image.variables["PLACE"] == f"{out}/root/opt/place"
    )
    process = image.start(image.command())
    assert process.communicate()[0] == "1\n" and process.returncode == 0


def owner(user: int) -> int:
    """Whose files are those of a command of this user."""
    return user if docker_steps.becoming(user) else os.geteuid()


@pytest.mark.slow
def test_the_command_in_a_container(built):
    image = built("isrrescnet")
    process = image.start(image.command("upscale", "astronaut.png"))
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "1 of 1 written" in said, said
    result = image.folder / "sr_results" / "astronaut.png"
    with optimized():
        expected = isr.upscale(np.asarray(Image.open(PHOTO)), scale=4)
    difference = np.abs(np.asarray(Image.open(result)).astype(int) - expected)
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3  # another JAX rounds otherwise

    home = Path(image.variables["HOME"])
    assert list((home / ".cache/isrrescnet-jax").glob("*-cache"))
    assert result.stat().st_uid == owner(image.user)
    # `--user`, a number that nobody has: with a folder of its own, and the home of another.
    own = image.root / "own"
    own.mkdir()
    own.chmod(0o777)
    shutil.copy(PHOTO, own)
    process = image.start(image.command("upscale", "-s", "2", "."), 4711, cwd=own)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert (own / "sr_results/astronaut.png").stat().st_uid == owner(4711)
    process = image.start(image.command())
    assert "upscale" in process.communicate()[0]


@pytest.mark.slow
@pytest.mark.skipif("demo" not in EXTRAS, reason="no extra of that name")
def test_the_demo_in_a_container(built):
    image = built("demo")
    demo = image.start(image.command())
    health = image.last["HEALTHCHECK"].value.partition("CMD ")[2]
    check = docker_steps.Step("CMD", {}, health).words
    try:
        for _ in range(60):
            healthy = image.start(check).wait(timeout=60) == 0
            if healthy or demo.poll() is not None:
                break
            time.sleep(1)
        assert healthy, demo.communicate(timeout=1)[0]
        demo.send_signal(signal.Signals[image.last["STOPSIGNAL"].value])
        demo.wait(timeout=30)
    finally:
        demo.kill()
