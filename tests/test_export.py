"""What `export_program` writes is what `upscale` computes, and needs nothing of ours to run."""

import dataclasses
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import exact, photo
from PIL import Image

import isrrescnet_jax as isr
import isrrescnet_jax.export as export_module
from isrrescnet_jax.weights import with_noise_input

pytest.importorskip("flatbuffers")


def loaded(*arguments, **options) -> jax.export.Exported:
    return jax.export.deserialize(bytearray(isr.export_program(*arguments, **options)))


def far(program: jax.export.Exported, weights: isr.Weights, h: int, w: int, **options) -> float:
    """The largest difference from `upscale`, in grey levels."""
    image = photo(h, w, seed=h)[0].astype(np.float32)[..., : weights.config.channels]
    ours = isr.upscale(image, weights=weights, **options)
    return float(np.abs(np.asarray(program.call(image[None]))[0] - ours).max())


@pytest.mark.parametrize("physics", ["reference", "exact"])
def test_images_of_any_size_are_as_upscaled(small, physics):
    weights = exact(small) if physics == "exact" else small
    program = loaded(weights)
    assert program.platforms == ("cpu", "cuda", "tpu")
    for h, w in ((8, 8), (9, 30), (21, 12)):
        assert far(program, weights, h, w) < 2e-3


def test_several_images_at_once(small):
    program, images = loaded(small, platforms=["cpu"]), photo(8, 9, n=2).astype(np.float32)
    both = np.asarray(program.call(images))
    for image, result in zip(images, both, strict=True):
        np.testing.assert_allclose(result, program.call(image[None])[0], atol=1e-3)


@pytest.mark.parametrize("scale", [3, 4])
def test_another_scale_noise_and_number_of_iterations(small, scale):
    options = {"noise": 3.0, "iterations": 2}
    program = loaded(small, scale, platforms=["cpu"], **options)
    assert far(program, small, 8, 11, scale=scale, **options) < 2e-3


def test_more_iterations_than_trained_a_noise_input_and_grey_images():
    config = isr.ModelConfig(1, features=4, depth=1, feedback_steps=1, iterations=1, scale=2)
    weights = with_noise_input(isr.init_weights(config, jax.random.key(1)))
    program = loaded(weights, iterations=3, platforms=["cpu"])
    assert far(program, weights, 10, 8, iterations=3) < 2e-3


def test_wide_features_whose_rows_are_no_whole_groups_for_winograd():
    config = isr.ModelConfig(features=32, depth=1, feedback_steps=1, iterations=1, scale=3)
    weights = isr.init_weights(config, jax.random.key(1))
    program = loaded(weights, platforms=["cpu"])
    assert far(program, weights, 9, 8) < 2e-3


def test_the_file_says_what_it_is(small):
    about = json.loads(loaded(small, platforms=["tpu"], name="mine", noise=2.0).fun_name)
    assert about == {
        "program": f"isrrescnet-jax {isr.__version__}",
        "weights": "mine",
        "scale": 2,
        "iterations": 3,
        "physics": "reference",
        "noise": 2.0,
        "dtype": "float32",
    }


def test_small_images_and_other_platforms_are_refused(small):
    program = loaded(small, platforms=["cuda"])
    with pytest.raises(ValueError, match="cuda"):
        program.call(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="refining shapes|h >= 8"):
        loaded(small, platforms=["cpu"]).call(np.zeros((1, 7, 8, 3), np.float32))


def test_what_cannot_be_exported(small, monkeypatch):
    nameless = isr.Weights(small.params, dataclasses.replace(small.config, scale=None))
    with pytest.raises(ValueError, match="name no scale"):
        isr.export_program(nameless)
    for platforms in (["gpu"], []):
        with pytest.raises(ValueError, match="platforms must be of cpu, cuda"):
            isr.export_program(small, platforms=platforms)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ModuleNotFoundError, match=r"isrrescnet-jax\[export\]"):
        isr.export_program(small)


def test_the_loader_needs_jax_and_flatbuffers_alone(small, tmp_path):
    documented = export_module.__doc__ or ""
    (loader,) = re.findall(
        r"\n((?:    [^\n]*\n|\n)*    import jax\.export\n(?:    .*\n|\n)*)", documented
    )
    lines = [line for line in loader.splitlines() if line.strip()]
    assert len(lines) <= 10
    Path(tmp_path, "x2.stablehlo").write_bytes(isr.export_program(small))
    image = photo(10, 13)[0]
    Image.fromarray(image).save(tmp_path / "small.png")
    Path(tmp_path, "loader.py").write_text(
        "import sys\nsys.modules |= dict.fromkeys(['isrrescnet_jax', 'flax', 'jaxtyping'])\n"
        + textwrap.dedent(loader)
    )
    command = [sys.executable, "loader.py", "x2.stablehlo", "small.png", "big.png"]
    subprocess.run(command, check=True, cwd=tmp_path)
    big = np.asarray(Image.open(tmp_path / "big.png")).astype(int)
    assert np.abs(big - isr.upscale(image, weights=small)).max() <= 1
