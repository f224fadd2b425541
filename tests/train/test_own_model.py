"""Recipes with a model of their own: trained, resumed, on several devices, written, and loaded."""

import dataclasses
import json
import os
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from conftest import photo
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import cli, tensors
from isrrescnet_jax.train import load_recipe, loop
from isrrescnet_jax.train.loop import train

# Inpainting with a prior of Flax: everything that a recipe may bring, as small as it can be.
RECIPE = """
import functools
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import isrrescnet_jax as isr
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

config = TrainConfig(
    model=isr.ModelConfig(),
    data=DataConfig(scale=1, patch=16, batch=4),
    steps=6,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="constant",
    log_every=1,
    validate_every=3,
    checkpoint_every=2,
)


class Denoiser(nn.Module):
    @nn.compact
    def __call__(self, z):
        return isr.Conv(features=3)(nn.relu(isr.Conv(features=4)(z / 255)))


def init(key):
    network = Denoiser().init(key, jnp.zeros((1, 8, 8, 3)))["params"]
    return {"network": network, "gain": jnp.ones(())}


def prior(params, z, sigma, alpha):
    return params["gain"] * Denoiser().apply({"params": params["network"]}, z)


def solve(params, batch):
    return isr.unroll(
        batch["y"],
        isr.Mask(batch["seen"]),
        jax.tree_util.Partial(prior, params),
        alpha=jnp.zeros(2),
        w=jnp.full(2, -jnp.inf),
        sigma=jnp.ones(1),
    ).image


def measure(hr, rng):
    hr = hr.astype("float32")
    seen = (rng.uniform(size=(*hr.shape[:2], 1)) < 0.5).astype("float32")
    return {"hr": hr, "y": seen * hr, "seen": seen}
"""

PHANTOMS = """
class Ramps:
    def __init__(self, seed, count):
        self.seed, self.count = seed, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        slope = np.random.default_rng((self.seed, i)).uniform(1, 4, 3)
        return np.clip(np.add.outer(np.arange(16), np.arange(16))[..., None] * slope, 0, 255)


examples, held_out = Ramps(0, 1000), Ramps(1, 3)


def objective(params, batch):
    error = solve(params, batch) - batch["hr"]
    return jnp.mean(error**2), {"worst": jnp.max(abs(error))}


def score(params, example):
    one = {name: array[None] for name, array in example.items()}
    error = np.asarray(solve(params, one) - one["hr"])
    return {"psnr": 10 * np.log10(255**2 / np.mean(error**2)), "worst": np.abs(error).max()}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for name, count in (("images", 5), ("validation", 2)):
        (folder / name).mkdir()
        for i, image in enumerate(photo(24, 20, n=count)):
            Image.fromarray(image).save(folder / name / f"{i}.png")
    (folder / "paint.py").write_text(RECIPE)
    (folder / "ramps.py").write_text(RECIPE + PHANTOMS)
    return folder


def recipe_of(files, name="paint.py", **fields):
    recipe = load_recipe(str(files / name))
    data = dataclasses.replace(recipe.config.data, hr=str(files / "images"))
    fields = {"validation": str(files / "validation"), "data": data} | fields
    return dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, **fields))


@pytest.fixture(scope="module")
def whole(files):
    """A run of images that went through."""
    return files / "whole", train(recipe_of(files), files / "whole")


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_writes_weights_that_name_their_recipe(files, whole):
    workdir, found = whole
    path = workdir / "weights.safetensors"
    flat, metadata = tensors.read(path)
    assert metadata["recipe_file"] == "paint.py" and len(metadata["recipe_sha256"]) == 64
    assert "gain" in flat and "network.Conv_0.kernel" in flat
    assert all(np.isfinite(line["validation_psnr"]) for line in lines(workdir)[3::4])
    again = isr.load_weights(path, recipe=files / "paint.py")
    same(again.params, found.params)
    batch = {"y": np.full((1, 8, 8, 3), 9, "f4"), "seen": np.ones((1, 8, 8, 1), "f4")}
    np.testing.assert_array_equal(again(batch), found(batch))
    assert repr(again) == "Trained(paint.py, 224 parameters)"
    with pytest.raises(ValueError, match=r"of the recipe paint.py: give its file"):
        isr.load_weights(path)


def test_only_the_file_that_is_given_runs(files, whole, tmp_path):
    path = whole[0] / "weights.safetensors"
    other = tmp_path / "other.py"
    other.write_text(RECIPE.replace("params['gain'] *", "0 *"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        isr.load_weights(path, recipe=files / "paint.py")
        with pytest.raises(UserWarning, match="made by paint.py with the hash"):
            other.write_text(RECIPE + "# another\n")
            isr.load_weights(path, recipe=other)
    other.write_text(RECIPE.replace("features=4", "features=5"))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"network.Conv_0.* is \("):
        isr.load_weights(path, recipe=other)
    other.write_text("config = 1")
    with pytest.raises(ValueError, match="has no functions init"):
        isr.load_weights(path, recipe=other)
    for name in ("x4", isr.shipped_weights()["x4"]):
        with pytest.raises(ValueError, match="library's own network"):
            isr.load_weights(name, recipe=files / "paint.py")


def test_a_stopped_run_ends_like_one_that_was_not(files, whole, tmp_path, monkeypatch):
    original, count = loop.Streams.next, []

    def stop(self, scale, patch):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return original(self, scale, patch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Streams, "next", stop)
        train(recipe_of(files), tmp_path)
    same(train(recipe_of(files), tmp_path).params, whole[1].params)


def test_it_goes_on_from_weights_of_its_own(files, whole, tmp_path):
    path = str(whole[0] / "weights.safetensors")
    tuned = recipe_of(files, init=path, learning_rate=1e-20)
    found = train(tuned, tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.params, whole[1].params
    )
    with pytest.raises(ValueError, match="does not fit the recipe: tensor gain is missing"):
        train(recipe_of(files, init=str(isr.shipped_weights()["x4"])), tmp_path / "other")


def test_examples_objective_and_score_of_its_own(files):
    workdir = files / "ramps"
    train(recipe_of(files, "ramps.py", validation=None), workdir)
    found = lines(workdir)
    assert all(line["worst"] > 0 for line in found if "worst" in line)
    scores = [line for line in found if "validation_psnr" in line]
    assert len(scores) == 2 and all(line["validation_worst"] > 0 for line in scores)
    assert "images" in found[0] and found[0]["images"] == 1000


def test_the_command_line_trains_it(files, capsys):
    arguments = ["train", str(files / "ramps.py"), "--workdir", str(files / "line"), "--steps", "2"]
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 0
    assert "weights.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("del solve", "needs a function solve"),
        ("del init", "solve is of a model of one's own, which needs a function init"),
        ("examples = 3", "examples must have a length and items, not 3"),
        ("config = TrainConfig()", "takes images as they are: set data.scale = 1"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(tmp_path, line, words):
    text = RECIPE.replace("def prior(", "def denoise(").replace(
        "Partial(prior,", "Partial(denoise,"
    )
    (tmp_path / "r.py").write_text(f"{text}\n{line}\n")
    with pytest.raises(ValueError, match=words) as error:
        load_recipe(str(tmp_path / "r.py"))
    assert "\n" not in str(error.value) and "r.py: " in str(error.value)


def test_fields_of_the_librarys_network_are_refused(files):
    with pytest.raises(ValueError, match="curriculum has no effect on a model of one's own"):
        recipe_of(files, curriculum=((0, 1),))


def test_several_devices_give_what_one_gives(files, whole, tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    paths = ["--data", str(files / "images"), "--validation", str(files / "validation")]
    command = [sys.executable, "-m", "isrrescnet_jax", "train", str(files / "paint.py"), *paths]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    subprocess.run([*command, "--workdir", str(tmp_path)], env=environment, check=True)
    flat, _ = tensors.read(tmp_path / "weights.safetensors")
    for name, array in tensors.flatten(whole[1].params).items():
        np.testing.assert_allclose(flat[name], array, rtol=1e-3, atol=1e-5)


def variant(files, tmp_path, text):
    """The recipe with another ending, two patches a step and two steps."""
    (tmp_path / "r.py").write_text(f"{RECIPE}\n{text}\n")
    recipe = load_recipe(str(tmp_path / "r.py"))
    data = dataclasses.replace(recipe.config.data, hr=str(files / "images"), batch=2)
    config = dataclasses.replace(recipe.config, data=data, steps=2, validate_every=2)
    return dataclasses.replace(recipe, config=config)


def test_without_validation_samples_are_those_of_the_batch_however_small(files, tmp_path):
    assert train(variant(files, tmp_path, ""), tmp_path / "w") is not None


NO_HR = """
def measure(hr, rng):
    return {"y": hr.astype("float32"), "seen": np.ones((*hr.shape[:2], 1), "float32")}


def objective(params, batch):
    return jnp.mean(solve(params, batch) ** 2), {}
"""


def test_examples_without_a_truth_need_a_score_before_the_first_step(files, tmp_path):
    recipe = variant(files, tmp_path, NO_HR)
    config = dataclasses.replace(recipe.config, validation=str(files / "validation"))
    with pytest.raises(ValueError, match=r"r.py: validation examples need an hr, or a function"):
        train(dataclasses.replace(recipe, config=config), tmp_path / "w")
    assert train(recipe, tmp_path / "w") is not None
    scored = dataclasses.replace(recipe, config=config, score=lambda params, example: {"gain": 2.0})
    assert train(scored, tmp_path / "scored") is not None
    assert lines(tmp_path / "scored")[-1]["validation_gain"] == 2


def test_images_as_they_are_need_no_measure(files, tmp_path):
    text = """
del measure
def solve(params, batch):
    return params["gain"] * jnp.asarray(batch["lr"], jnp.float32)
"""
    recipe = variant(files, tmp_path, text)
    config = dataclasses.replace(recipe.config, validation=str(files / "validation"))
    found = train(dataclasses.replace(recipe, config=config), tmp_path / "w")
    assert found is not None and "validation_psnr" in lines(tmp_path / "w")[-1]


def test_an_init_that_fails_is_named_with_its_file(files, tmp_path):
    with pytest.raises(ValueError, match=r"r.py: init\(key\) fails: ZeroDivisionError"):
        train(variant(files, tmp_path, "def init(key): return 1 / 0"), tmp_path / "w")
