"""The optimisers against PyTorch's, the schedules, and what a recipe refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from isrrescnet_jax import ModelConfig
from isrrescnet_jax.train.state import TrainConfig, init_state, learning_rate, make_optimizer

BASE = TrainConfig(learning_rate=1e-2, schedule="constant", weight_decay=0.1)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adam", lambda p: torch.optim.Adam(p, 1e-2)),
        ("amsgrad", lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True)),
        ("sgd", lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)),
    ],
)
def test_optimizers_equal_pytorch(name, make):
    rng = np.random.default_rng(0)
    start = rng.normal(size=7).astype(np.float32)
    optimizer = make_optimizer(dataclasses.replace(BASE, optimizer=name))
    params = {"p": jnp.asarray(start)}
    state = optimizer.init(params)
    reference = torch.nn.Parameter(torch.tensor(start))
    torch_optimizer = make([reference])
    for i in range(20):
        # Large gradients first: the maximum of AMSGrad must remember them as PyTorch does.
        grad = (rng.normal(size=7) * (10 if i < 3 else 0.1)).astype(np.float32)
        updates, state = optimizer.update({"p": jnp.asarray(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        reference.grad = torch.tensor(grad)
        torch_optimizer.step()
    np.testing.assert_allclose(params["p"], reference.detach(), rtol=2e-5, atol=1e-6)


def test_weight_decay_touches_only_lengths():
    params = {"conv": {"g": jnp.ones(3), "v": jnp.ones(3)}, "alpha": jnp.ones(2)}
    optimizer = make_optimizer(dataclasses.replace(BASE, optimizer="adamw"))
    zero = {"conv": {"g": jnp.zeros(3), "v": jnp.zeros(3)}, "alpha": jnp.zeros(2)}
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv"]["g"], -1e-2 * 0.1, rtol=1e-6)
    assert not updates["conv"]["v"].any() and not updates["alpha"].any()


def test_clipping_bounds_the_gradient():
    config = dataclasses.replace(BASE, optimizer="sgd", beta1=0.0, clip_norm=1.0)
    optimizer = make_optimizer(config)
    grad = {"p": jnp.asarray([30.0, 40.0])}
    updates, _ = optimizer.update(grad, optimizer.init(grad), grad)
    np.testing.assert_allclose(updates["p"], [-0.006, -0.008], rtol=1e-5)


def test_schedules():
    stepped = TrainConfig(learning_rate=1.0, milestones=(10, 20), warmup_steps=4, steps=30)
    rate = learning_rate(stepped)
    got = [float(rate(step)) for step in (0, 2, 4, 9, 11, 21)]
    np.testing.assert_allclose(got, [0, 0.5, 1, 1, 0.1, 0.01], rtol=1e-6)
    cosine = learning_rate(dataclasses.replace(stepped, schedule="cosine"))
    got = [float(cosine(step)) for step in (4, 17, 30)]
    np.testing.assert_allclose(got, [1, 0.5, 0], atol=1e-6)


def test_curriculum_and_loss_weights():
    config = TrainConfig(curriculum=((100, 5), (0, 2), (200, 10)))
    assert [config.iterations_at(s) for s in (0, 99, 100, 199, 200, 10**6)] == [2, 2, 5, 5, 10, 10]
    assert TrainConfig().iterations_at(0) == 10
    assert TrainConfig(iterate_weights=(0.5, 1.0)).loss_weights(3).tolist() == [0, 0.5, 1]
    recipe = TrainConfig(backward="truncated")
    assert recipe.loss_weights(10).tolist() == [0, 0, 0, 0, 0.5, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ModelConfig()}, "scale"),
        ({"steps": 0}, "steps"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"warmup_steps": 10**9}, "warmup_steps"),
        ({"iterate_weights": (0.0,)}, "iterate_weights"),
        ({"iterate_weights": (1.0, 1.0), "backward": "truncated"}, "intermediate_weight"),
        ({"iterate_weights": (1.0, 1.0), "backward": "random"}, "random"),
        ({"curriculum": ((0, 11),)}, "curriculum"),
        ({"k1": 0, "backward": "truncated"}, "k1"),
    ],
)
def test_impossible_recipes_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**fields)


def test_the_average_starts_at_the_parameters():
    state = init_state(BASE, {"p": np.ones(3, np.float32)})
    assert int(state.step) == 0
    # Weakly typed or shared, the state would cost a second compilation or could not be donated.
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    assert state.ema["p"] is not state.params["p"]
    np.testing.assert_array_equal(state.ema["p"], state.params["p"])
