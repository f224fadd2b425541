import json

import numpy as np
import pytest
import safetensors.numpy
from commands import fails, run
from conftest import exact
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import images


def test_options_of_the_network(here, weights, small):
    np.save("kernel.npy", np.full((3, 3), 1 / 9))
    options = ["--weights", weights, "--overwrite", "--noise", "5", "--iterations", "2"]
    options += ["--operator", "blur", "--kernel", "kernel.npy", "--tile", "16", "--ensemble"]
    assert run("upscale", "photos/*.bmp", *options, "--out", "o", "--format", "tiff") == 0
    blur = isr.Blur(2, np.full((3, 3), 1 / 9, np.float32))
    image = np.asarray(Image.open("photos/castle.bmp"))
    plan = {"noise": 5.0, "iterations": 2, "operator": blur, "ensemble": True}
    expected = isr.upscale(image, weights=small, **plan)
    got = images.read("o/castle.tiff").color
    assert np.abs(got - expected).max() <= 1 and (got != expected).mean() < 1e-2


@pytest.mark.filterwarnings("default")
def test_physics_is_that_of_the_weights_unless_given(here, weights, small, capsys):
    isr.save_weights(exact(small, step=2.0), "exact.safetensors")
    image = np.asarray(Image.open("photos/bird.png"))

    def result(file, *options):
        capsys.readouterr()
        arguments = ["photos/bird.png", "--weights", file, "--out", "o", "--overwrite"]
        assert run("upscale", *arguments, *options) == 0
        return np.asarray(Image.open("o/bird.png")), capsys.readouterr().err

    for file, given, physics in (
        (weights, small, "reference"),
        ("exact.safetensors", exact(small, step=2.0), "exact"),
    ):
        expected = isr.upscale(image, weights=given)
        for options in ((), ("--physics", physics)):
            got, err = result(file, *options)
            np.testing.assert_array_equal(got, expected)
            assert not err
        other = "exact" if physics == "reference" else "reference"
        got, err = result(file, "--physics", other)
        assert (got != expected).mean() > 0.1
        assert f"trained with {physics} physics" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"physics": "quantum"}, "physics must be"), ({"step": 0.0}, "step must be"),
     ({"step": "long"}, "step must be"), ({"step": 10**400}, "step must be"),
     ({"step": 1e300}, "step must be"), ({"step": 1e-60}, "step must be"),
     ({"step": True}, "step must be")],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_weights_of_unknown_physics_are_one_line(here, weights, capsys, fields, words):
    with safetensors.safe_open(weights, framework="numpy") as file:
        metadata = file.metadata()
        flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | fields)
    safetensors.numpy.save_file(flat, "bad.safetensors", metadata)
    line = fails(capsys, "upscale", "photos/bird.png", "--weights", "bad.safetensors")
    assert words in line and "bad.safetensors" in line


def test_memory_limits(here, weights, capsys):
    options = ["upscale", "photos/bird.png", "--weights", weights, "--max-memory"]
    assert run(*options, "64M") == 0
    assert "not enough" in fails(capsys, *options, "20k", "--overwrite")
    for bad in ("lots", "0", "-1", "5X"):
        assert "--max-memory" in fails(capsys, *options[:-1], f"--max-memory={bad}", "--overwrite")
