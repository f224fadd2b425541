"""Recipe files and their options."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from small_recipe import RECIPE

from isrrescnet_jax import Bicubic, ModelConfig, cli
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig, make_optimizer, muon, recipe


def test_the_command_line_sets_any_field(tmp_path):
    (tmp_path / "recipe.py").write_text(RECIPE)
    line = "--data elsewhere --workdir W --model.iterations 3 --clip-norm 2 --curriculum 0 1 9 3"
    run, found = recipe.parse([str(tmp_path / "recipe.py"), *line.split(), "--data.batch", "6"])
    config = found.config
    assert (run.workdir, config.data.hr, config.data.batch) == ("W", "elsewhere", 6)
    assert config.model == ModelConfig(3, 8, 1, 1, 3, 2)
    assert config.clip_norm == 2 and config.curriculum == ((0, 1), (9, 3))
    assert config.steps == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no `config"), ("config = 1", "no `config"), ("config = TrainConfig(", "SyntaxError")],
)
def test_bad_recipes(tmp_path, text, words):
    (tmp_path / "r.py").write_text(text)
    with pytest.raises(ValueError, match=words):
        recipe.load_recipe(str(tmp_path / "r.py"))
    with pytest.raises(FileNotFoundError, match="no such recipe"):
        recipe.load_recipe(str(tmp_path / "none.py"))


VALUES = """
import jax
import jax.numpy as jnp
import optax
from isrrescnet_jax import Bicubic
from isrrescnet_jax.train import learning_rate, muon

STRENGTH = 0.5

def optimizer(config):
    return optax.chain(optax.scale(STRENGTH), muon(learning_rate(config)))

operator = Bicubic(2, border="replicate")

def prior(weights):
    return jax.tree_util.Partial(lambda g, z, sigma, alpha: g * z, weights.params["alpha"][0])

def loss(images, targets):
    return STRENGTH * jnp.square(images - targets).mean((1, 2, 3))
"""


def test_a_recipe_file_with_values(tmp_path):
    path = tmp_path / "r.py"
    path.write_text(RECIPE + VALUES)
    run, found = recipe.parse([str(path), "--workdir", "W", "--learning-rate", "0.25"])
    assert found.has_values and found.text == RECIPE + VALUES
    assert (found.config.learning_rate, found.operator) == (0.25, Bicubic(2, border="replicate"))
    # The option reaches the optimizer, and functions see what else is in the file.
    params = {"v": np.ones((1, 1, 2, 2), np.float32), "g": np.ones(2, np.float32)}
    config = dataclasses.replace(found.config, schedule="constant", warmup_steps=0)
    optimizer = make_optimizer(dataclasses.replace(found, config=config))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    expected, _ = muon(0.25).update(params, muon(0.25).init(params), params)
    np.testing.assert_allclose(updates["g"], expected["g"], rtol=1e-5)
    assert found.loss(np.ones((3, 2, 2, 1)), np.zeros((3, 2, 2, 1))).tolist() == [0.5] * 3
    plain = recipe.load_recipe(str(Path(__file__).parents[2] / "experiments" / "smoke.py"))
    assert not plain.has_values


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("optimizer = 3", "r.py: optimizer must be an optax.GradientTransformation"),
        ("import operator", "r.py: operator must have a scale and methods initial and gradient"),
        (
            "from isrrescnet_jax import Bicubic; operator = Bicubic(4)",
            "r.py: operator is of scale 4",
        ),
        ("loss = 'l1'", "r.py: loss must be a function of images and targets, not 'l1'"),
        ("prior = []", "r.py: prior must be a function of the weights"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_that_do_not_fit(tmp_path, line, words):
    (tmp_path / "r.py").write_text(f"{RECIPE}\n{line}\n")
    with pytest.raises(ValueError, match=words) as error:
        recipe.load_recipe(str(tmp_path / "r.py"))
    assert "\n" not in str(error.value)


def test_an_optimizer_that_does_not_fit_stops_the_run_before_it_begins(tmp_path, capsys):
    labels = "lambda params: {'network': 'a'}"
    line = f"import optax; optimizer = optax.partition({{'a': optax.sgd(1.0)}}, {labels})"
    (tmp_path / "r.py").write_text(f"{RECIPE}\n{line}\n")
    with pytest.raises(SystemExit) as exit:
        cli.main(["train", str(tmp_path / "r.py"), "--workdir", str(tmp_path / "w")])
    assert exit.value.code == 2 and not (tmp_path / "w").exists()
    error = capsys.readouterr().err
    start = f"isrrescnet: {tmp_path / 'r.py'}: the optimizer does not fit the parameters: "
    assert error.startswith(start)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("optimizer = optax.adam", "TypeError"),
        ("def optimizer(config): return optax.adam(config.lr)", "fails: AttributeError"),
        ("def optimizer(config): return optax.adam(1 / 0)", "fails: ZeroDivisionError"),
        ("optimizer = optax.masked(optax.adam(1.0), {'network': True})", "key"),
    ],
)
def test_an_optimizer_that_fails_is_one_line_with_the_file(tmp_path, capsys, line, said):
    (tmp_path / "r.py").write_text(f"{RECIPE}\nimport optax\n{line}\n")
    with pytest.raises(SystemExit) as exit:
        cli.main(["train", str(tmp_path / "r.py"), "--workdir", str(tmp_path / "w")])
    assert exit.value.code == 2 and not (tmp_path / "w").exists()
    error = capsys.readouterr().err
    assert error.startswith(f"isrrescnet: {tmp_path / 'r.py'}: ") and error.count("\n") == 1
    assert said in error


def test_scales_that_do_not_agree():
    with pytest.raises(ValueError, match=r"data.scale is 2 and model.scale 4"):
        TrainConfig(data=DataConfig(scale=2))
