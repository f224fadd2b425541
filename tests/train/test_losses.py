"""Losses against their formulas, and which iterates count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isrrescnet_jax import Truncated
from isrrescnet_jax.train import losses

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 255, (2, 3, 5, 4, 3)).astype(np.float32)
TARGET = RNG.uniform(0, 255, (3, 5, 4, 3)).astype(np.float32)


def torch_charbonnier(x, target):
    return torch.sqrt((x - target) ** 2 + 0.5**2).mean()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("l1", torch.nn.functional.l1_loss),
        ("l2", torch.nn.functional.mse_loss),
        ("charbonnier", torch_charbonnier),
    ],
)
def test_value_and_gradient_equal_pytorch(name, reference):
    loss = losses.make_loss(name, 0.5)
    x = torch.tensor(X[0], requires_grad=True)
    expected = reference(x, torch.tensor(TARGET))
    expected.backward()
    value, grad = jax.value_and_grad(lambda x: loss(x, jnp.asarray(TARGET)).mean())(X[0])
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(grad, x.grad, rtol=1e-4, atol=1e-8)


def test_unknown_loss_is_an_error():
    with pytest.raises(ValueError, match="l1, l2, charbonnier"):
        losses.make_loss("huber")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=6), st.integers(1, 8))
def test_last_weights_are_aligned_at_the_end(weights, iterations):
    aligned = losses.last_weights(tuple(weights), iterations)
    assert aligned.shape == (iterations,)
    shared = min(len(weights), iterations)
    np.testing.assert_array_equal(aligned[-shared:], np.float32(weights[-shared:]))
    assert not aligned[:-shared].any()


@pytest.mark.parametrize(
    ("k1", "iterations", "expected"),
    [
        (5, 10, [0, 0, 0, 0, 0.5, 0, 0, 0, 0, 1]),  # the recipe of the authors
        (2, 5, [0, 0.5, 0, 0.5, 1]),
        (3, 2, [0, 1]),
        (1, 3, [0.5, 0.5, 1]),
    ],
)
def test_truncated_weights(k1, iterations, expected):
    np.testing.assert_array_equal(
        losses.truncated_weights(Truncated(k1, k1), 0.5, iterations), np.float32(expected)
    )


def test_iterates_loss_is_the_weighted_sum():
    each = [np.abs(x - TARGET).mean() for x in X]
    weights = np.float32([0.25, 1.0])
    x, target = jnp.asarray(X), jnp.asarray(TARGET)
    value = losses.iterates_loss(x, target, weights)
    np.testing.assert_allclose(value, weights @ each, rtol=1e-6)
    np.testing.assert_allclose(
        losses.iterates_loss(x, target, np.float32([0, 1])), each[1], rtol=1e-6
    )
