"""Recipes for every scale, and the commands that stand before and after a run."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import isrrescnet_jax as isr
from experiments import weights
from isrrescnet_jax.train import load_recipe
from isrrescnet_jax.train.recipe import parse
from isrrescnet_jax.weights import load_weights_and_metadata

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("name", ["paper", "exact", "ten", "smoke"])
def test_recipes_are_for_any_scale(name):
    path = str(FOLDER / f"{name}.py")
    for scale in (2, 3, 4):
        _, recipe = parse([path, "--workdir", "W", "--scale", str(scale), "--steps", "7000"])
        config = recipe.config
        assert (config.model.scale, config.data.scale, config.steps) == (scale, scale, 7000)
        assert not recipe.has_values
        if config.init is not None:
            assert isr.load_weights(config.init).config.iterations == config.model.iterations
    # Fields of the command line are checked with those of this scale.
    line = "--workdir W --scale=3 --data.patch 66 --data.batch 2"
    assert parse([path, *line.split()])[1].config.data.patch == 66


def test_the_old_names_are_the_recipe_of_their_scale():
    patches = {2: 128, 3: 126, 4: 128}
    for scale, patch in patches.items():
        old = load_recipe(str(FOLDER / f"x{scale}.py"))
        assert old.config == load_recipe(str(FOLDER / "paper.py"), scale).config
        assert (old.config.model.scale, old.config.data.patch) == (scale, patch)


def test_a_scale_that_a_recipe_cannot_have_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse([str(FOLDER / "paper.py"), "--workdir", "W", "--scale", "5"])
    assert "--scale" in capsys.readouterr().err
    (tmp_path / "r.py").write_text("def config(scale=4):\n    return 1 / (scale - 3)\n")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_recipe(str(tmp_path / "r.py"), 3)
    with pytest.raises(ValueError, match="has no `config"):
        load_recipe(str(tmp_path / "r.py"))


@pytest.fixture
def trained(tmp_path):
    """Weights as a run writes them."""
    config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    metadata = {
        "figures": json.dumps({"step": 7}),
        "training": json.dumps({"data": {"batch": 8, "patch": 64}}),
    }
    path = tmp_path / "trained.safetensors"
    isr.save_weights(isr.init_weights(config, jax.random.key(0)), path, metadata)
    return path


def test_lengthened_weights_end_with_the_trained_iteration(trained, tmp_path):
    weights.Lengthen(trained, tmp_path / "long.safetensors", iterations=5).run()
    before, after = (isr.load_weights(p) for p in (trained, tmp_path / "long.safetensors"))
    assert after.config == dataclasses.replace(before.config, iterations=5)
    np.testing.assert_array_equal(after.params["alpha"][:-1], -1)
    assert after.params["alpha"][-1] == before.params["alpha"][0]
    jax.tree.map(np.testing.assert_array_equal, after.params["network"], before.params["network"])


def test_finished_weights_keep_what_was_trained_and_say_what_they_are(trained, tmp_path):
    weights.Finish(trained, tmp_path / "x2.safetensors", about="Small ones.").run()
    before = isr.load_weights(trained)
    after, metadata = load_weights_and_metadata(tmp_path / "x2.safetensors")
    assert after.config == dataclasses.replace(before.config, iterations=1)
    np.testing.assert_array_equal(after.params["w"], before.params["w"][:1])
    assert metadata["about"] == "Small ones."
    assert metadata["recipe"].startswith("7 steps of 8 patches of 64x64")
