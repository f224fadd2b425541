import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.prior import network
from isrrescnet_jax.prior.conv import conv
from isrrescnet_jax.weights import expected_shapes, flatten


@given(st.integers(2, 9), st.integers(2, 9))
def test_conv3x3_reflect_equals_padding_first(h, w):
    with jax.enable_x64(True):
        rng = np.random.default_rng(h * 10 + w)
        x, kernel = rng.normal(size=(2, h, w, 3)), rng.normal(size=(3, 3, 3, 4))

        def padded(x, kernel):
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
            return conv(x, kernel, 0)

        def check(f):
            return f(x, kernel), jax.grad(lambda *a: jnp.sum(f(*a) ** 2), (0, 1))(x, kernel)

        ours, theirs = jax.jit(lambda: (check(network.conv3x3_reflect), check(padded)))()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), ours, theirs)


def test_feedback_steps_in_a_row_compute_the_same(monkeypatch, small, x64):
    z = jax.random.uniform(jax.random.key(0), (1, 8, 9, 3), jnp.float64, 0, 255)
    residual = isr.LearnedPrior.from_weights(small).residual

    def check():
        return residual(z), jax.grad(lambda z: jnp.sum(residual(z) ** 2))(z)

    loop = check()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "unroll=2" in str(jax.make_jaxpr(residual)(z))  # of two steps
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), check(), loop)


def test_prelu_derivative_at_zero_is_the_slope():
    slopes = jnp.array([0.1, 0.3])
    grad = jax.grad(lambda x: network.prelu(x, slopes).sum())
    np.testing.assert_allclose(grad(jnp.zeros(2)), slopes)
    np.testing.assert_allclose(grad(jnp.ones(2)), 1)


def test_initial_weights_fit_and_fuse_to_their_directions(small):
    shapes = {name: tuple(a.shape) for name, a in flatten(small.params).items()}
    assert shapes == expected_shapes(small.config)
    fused = flatten(network.fuse(small.params["network"]))
    for name, v in flatten(small.params["network"]).items():
        if name.endswith(".v"):  # lengths start as |v|
            np.testing.assert_allclose(fused[name[:-1] + "kernel"], v, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.exp(small.params["alpha"]), [2, np.sqrt(2), 1], rtol=1e-6)
    np.testing.assert_allclose(np.exp(small.params["w"]), [1 / 4, 1 / 4, 2 / 5], rtol=1e-6)


def test_flax_initialises_the_same_tree(small):
    module = network.ResidualNetwork(small.config)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == jax.tree.map(jnp.shape, network.fuse(small.params["network"]))


def test_the_official_network_has_389_thousand_parameters():
    count = sum(int(np.prod(s)) for s in expected_shapes(isr.ModelConfig()).values())
    assert count == 388_823


@pytest.mark.parametrize("sigma", [0.0, 1e-13, 3.0, 1e9])
def test_projection(sigma):
    r = jnp.asarray(np.random.default_rng(0).normal(0, 5, (1, 6, 7, 3)), jnp.float32)
    alpha = jnp.float32(0.3)
    out = network.project(r, jnp.array([sigma], jnp.float32), alpha)
    radius = np.exp(0.3) * sigma * np.sqrt(6 * 7 * 3 - 1)
    np.testing.assert_allclose(np.linalg.norm(out), min(np.linalg.norm(r), radius), rtol=1e-5)
    if sigma == 1e9:
        np.testing.assert_array_equal(out, r)


@pytest.mark.parametrize("sigma", [0.0, 3.0])
@pytest.mark.parametrize("size", [0.0, 1.0])
def test_projection_has_finite_gradients_everywhere(sigma, size):
    def f(r, alpha):
        return jnp.sum(network.project(r, jnp.array([sigma]), alpha) * 2)

    r = jnp.full((1, 4, 4, 1), size)
    gradients = jax.grad(f, (0, 1))(r, 0.0)
    assert all(np.isfinite(g).all() for g in gradients)
    if sigma == 0:
        assert not any(np.any(g) for g in gradients)


def test_bfloat16_features_stay_close(small):
    z = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (1, 20, 24, 3)), jnp.float32)
    exact = network.LearnedPrior.from_weights(small).residual(z)
    half = network.LearnedPrior.from_weights(small, jnp.bfloat16).residual(z)
    assert half.dtype == jnp.float32
    error = np.abs(half - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.05


def test_compiled_size_does_not_grow_with_iterations_or_feedback_steps():
    def lines(iterations, steps):
        config = isr.ModelConfig(features=4, depth=1, feedback_steps=steps, iterations=iterations)
        weights = isr.init_weights(config, jax.random.key(0))
        run = jax.jit(lambda w, y: isr.reconstruct(w, y, operator=isr.Bicubic(2)).image)
        return len(run.lower(weights, jnp.ones((1, 8, 8, 3))).as_text().splitlines())

    assert lines(2, 2) == lines(20, 8)
