"""Where a run begins."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isrrescnet_jax import ModelConfig, Weights, save_weights
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import Recipe, TrainConfig
from isrrescnet_jax.train.start import fresh_params, initial_params

CONFIG = TrainConfig(
    model=ModelConfig(features=8, depth=1, feedback_steps=1, iterations=2, scale=2),
    data=DataConfig(scale=2),
)


def test_fine_tuning_from_weights_of_another_scale(tmp_path):
    start = fresh_params(dataclasses.replace(CONFIG, seed=7))
    path = tmp_path / "x4.safetensors"
    save_weights(Weights(start, dataclasses.replace(CONFIG.model, scale=4)), path)
    tuned = dataclasses.replace(CONFIG, init=str(path))
    jax.tree.map(np.testing.assert_array_equal, initial_params(tuned), start)
    other = dataclasses.replace(CONFIG.model, physics="exact", step=16.0, feedback_steps=3)
    with pytest.warns(UserWarning) as said:
        exact = initial_params(dataclasses.replace(tuned, model=other))
    assert "trained with physics reference, and goes on with exact" in str(said[0].message)
    assert "trained with step 1.0, and goes on with 16.0" in str(said[1].message)
    jax.tree.map(np.testing.assert_array_equal, exact, start)
    more = dataclasses.replace(CONFIG.model, iterations=CONFIG.model.iterations + 2)
    longer = initial_params(dataclasses.replace(tuned, model=more))
    for name in ("alpha", "w"):  # the last one is repeated
        expected = [*start[name], *[start[name][-1]] * 2]
        np.testing.assert_array_equal(longer[name], expected)
    noisy = dataclasses.replace(CONFIG.model, noise_input=True)
    levels = initial_params(dataclasses.replace(tuned, model=noisy))
    expected = np.pad(start["network"]["encoder"]["v"], [(0, 0)] * 2 + [(0, 1), (0, 0)])
    np.testing.assert_array_equal(levels["network"]["encoder"]["v"], expected)
    save_weights(Weights(levels, noisy), tmp_path / "noisy.safetensors")
    back = dataclasses.replace(tuned, init=str(tmp_path / "noisy.safetensors"))
    with pytest.raises(ValueError, match="noise_input is True, not False"):
        initial_params(back)
    with pytest.raises(ValueError, match="features is 8, not 4"):
        initial_params(
            dataclasses.replace(tuned, model=dataclasses.replace(CONFIG.model, features=4))
        )


INITS = {
    "fails: ZeroDivisionError": lambda key: 1 / 0,
    "a is no array": lambda key: {"a": [jnp.ones(1), jnp.ones(1)]},
    "names without dots": lambda key: {"a.b": jnp.ones(1)},
    "b is no array of real numbers": lambda key: {"a": jnp.ones(1), "b": jnp.arange(2)},
}


@pytest.mark.parametrize("words", INITS)
def test_parameters_of_a_model_of_ones_own_are_named_arrays(words):
    config = TrainConfig(model=ModelConfig(), data=DataConfig(scale=1))
    recipe = Recipe(config, init=INITS[words], solve=lambda params, batch: batch["hr"])
    with pytest.raises(ValueError, match=words):
        fresh_params(recipe)
