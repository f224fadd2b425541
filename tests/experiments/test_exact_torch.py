"""The recipe whose network runs in PyTorch: the values and gradients of the one that does not."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import photo

import isrrescnet_jax as isr
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.tensors import flatten
from isrrescnet_jax.train import Recipe, TrainConfig, load_recipe
from isrrescnet_jax.train.step import objective

pytest.importorskip("torch")
from convert.torch_model import Prior  # noqa: E402

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def batch():
    hr = photo(24, 24, 3)
    return {"lr": np.stack([degrade(image, 4) for image in hr]), "hr": hr}


def measured(prior, weights, batch):
    """The loss without a gradient, with one, and the gradient by name."""
    config = TrainConfig(model=weights.config, backward="full", train_schedule=False)
    of_batch = functools.partial(objective, batch=batch, recipe=Recipe(config, prior=prior))
    alone = of_batch(weights.params)[0]
    step = jax.jit(jax.value_and_grad(of_batch, has_aux=True))
    (loss, _), gradient = step(weights.params)
    return float(alone), float(loss), {n: np.asarray(g) for n, g in flatten(gradient).items()}


@pytest.mark.parametrize("iterations", [1, 3])
def test_loss_and_gradient_are_those_of_jax(batch, iterations, monkeypatch):
    sizes = {"features": 8, "depth": 2, "feedback_steps": 2, "iterations": iterations}
    config = isr.ModelConfig(**sizes, scale=4, physics="exact")
    weights = isr.init_weights(config, jax.random.key(0))
    prior = load_recipe(str(FOLDER / "exact_torch.py"), 4).prior
    expected, _, gradient = measured(None, weights, batch)

    def agree(found, tolerance):
        assert set(found) == set(gradient)
        for name, part in found.items():
            limit = tolerance * np.linalg.norm(gradient[name]) + 1e-7
            assert np.linalg.norm(part - gradient[name]) <= limit, name

    alone, half, found = measured(prior, weights, batch)
    # Where no gradient is asked for the network is that of JAX, in float32.
    assert alone == pytest.approx(expected, rel=1e-6)
    assert half == pytest.approx(expected, rel=0.02) and abs(half - expected) > 1e-5
    agree(found, 0.3)
    monkeypatch.setitem(prior.__globals__, "_Mixed", Prior)  # in float32
    prior.__globals__["_network"].cache_clear()
    _, same, found = measured(prior, weights, batch)
    assert same == pytest.approx(expected, rel=1e-5)
    agree(found, 1e-3)


def test_what_pytorch_kept_may_be_gone(batch):
    config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=1, scale=4)
    weights = isr.init_weights(config, jax.random.key(0))
    prior = load_recipe(str(FOLDER / "exact_torch.py"), 4).prior
    _, _, expected = measured(prior, weights, batch)
    pending = prior.__globals__["_pending"]

    class Forgetful(dict):
        def pop(self, key, default=None):
            return default

    prior.__globals__["_pending"] = Forgetful()
    _, _, found = measured(prior, weights, batch)
    prior.__globals__["_pending"] = pending
    for name, part in found.items():
        np.testing.assert_allclose(part, expected[name], atol=1e-6)
