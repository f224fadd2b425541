import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import fails, run
from conftest import photo
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import images


def test_upscale_writes_what_the_library_computes(here, weights, small, capsys):
    assert run("upscale", "photos", "--weights", weights) == 0
    out = capsys.readouterr().out
    assert "2 pictures to do" in out and "2 of 2 written to sr_results" in out
    assert sorted(p.name for p in Path("sr_results").iterdir()) == ["bird.png", "castle.png"]
    expected = isr.upscale(np.asarray(Image.open("photos/bird.png")), weights=small)
    np.testing.assert_array_equal(np.asarray(Image.open("sr_results/bird.png")), expected)


def test_several_devices_share_a_folder(here, weights):
    # Devices are set before JAX starts, hence in a process of its own.
    command = [sys.executable, "-m", "isrrescnet_jax.cli", "upscale", "photos"]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    env = os.environ | {"XLA_FLAGS": flags}
    for out, extra in (("one", None), ("two", env)):
        done = subprocess.run([*command, "--weights", weights, "--out", out], env=extra)
        assert done.returncode == 0
    for name in ("bird.png", "castle.png"):
        one, two = (np.asarray(Image.open(f"{out}/{name}")) for out in ("one", "two"))
        np.testing.assert_array_equal(one, two)


def test_depth_alpha_and_profile_survive(here, weights):
    color = photo(8, 8)[0].astype(np.float32) + 0.5
    alpha = np.full((8, 8), 128.0, np.float32)
    images.write(images.Picture(color, alpha, 16, b"profile" * 40), "deep.png")
    assert run("upscale", "deep.png", "--weights", weights) == 0
    result = images.read("sr_results/deep.png")
    assert result.bits == 16 and result.icc == b"profile" * 40
    np.testing.assert_allclose(result.alpha, 128, atol=0.01)
    assert np.any(result.color != np.rint(result.color))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "no such file"),
        ([], "name at least one picture"),
        (["photos", "--weights", "x9"], "shipped"),
        (["photos", "--weights", "none.safetensors"], "no such weights file"),
        (["photos", "--iterations", "0"], "at least 1"),
        (["photos", "--noise", "-1"], "at least 0"),
        (["photos", "--noise", "nan"], "at least 0"),
        (["photos", "--operator", "blur"], "--kernel"),
        (["photos", "--operator", "blur", "--kernel", "photos/bird.png"], "not a readable .npy"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(here, capsys, arguments, message):
    assert message in fails(capsys, "upscale", *arguments)
    assert not Path("sr_results").exists()


def test_a_scale_without_weights_says_which_exist(here, capsys):
    missing = {"2", "3", "4"} - {name[1:] for name in isr.shipped_weights()}
    for scale in missing:
        line = fails(capsys, "upscale", "photos", "--scale", scale)
        assert all(name in line for name in isr.shipped_weights())


def test_trace_draws_a_figure(here, weights):
    assert run("upscale", "photos/bird.png", "--weights", weights, "--trace", "traces") == 0
    assert Image.open("traces/bird_iterates.png").size[0] > 400


def test_weights_that_overflow_make_no_picture(here, small, tmp_path, capsys):
    decoder = small.params["network"]["decoder"]
    wild = decoder | {"g": np.full_like(decoder["g"], 1e38)}
    params = small.params | {"network": small.params["network"] | {"decoder": wild}}
    isr.save_weights(isr.Weights(params, small.config), tmp_path / "wild.safetensors")
    assert run("upscale", "photos/bird.png", "-w", tmp_path / "wild.safetensors") == 2
    assert "the weights give values here that are not finite" in capsys.readouterr().err
    assert not Path("sr_results/bird.png").exists()
