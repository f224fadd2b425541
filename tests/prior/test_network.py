import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.prior import network
from isrrescnet_jax.weights import expected_shapes


def test_feedback_steps_in_a_row_compute_the_same(monkeypatch, small, x64):
    z = jax.random.uniform(jax.random.key(0), (1, 8, 9, 3), jnp.float64, 0, 255)
    residual = isr.LearnedPrior.from_weights(small).residual

    def check():
        return residual(z), jax.grad(lambda z: jnp.sum(residual(z) ** 2))(z)

    loop = check()
    in_a_row = lambda *args, cuda, **ways: cuda(*args)  # noqa: E731
    monkeypatch.setattr(network.lax, "platform_dependent", in_a_row)
    program = str(jax.make_jaxpr(residual)(z))
    assert "unroll=2" in program and "unroll=1" not in program
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), check(), loop)


@pytest.mark.parametrize("strips", [True, False])
@pytest.mark.parametrize("size", [(5, 4), (9, 12)])
def test_an_image_in_a_window_sees_the_same_network(small, size, strips, x64):
    z = jax.random.uniform(jax.random.key(0), (1, *size, 3), jnp.float64, 0, 255)
    prior = isr.LearnedPrior.from_weights(small)
    wide = jax.random.normal(jax.random.key(1), (1, size[0] + 16, size[1] + 16, 3), jnp.float64)
    wide = wide.at[:, 2 : 2 + size[0], 2 : 2 + size[1]].set(z)
    module = network.ResidualNetwork(small.config, precision="highest")
    run = jax.jit(functools.partial(module.apply, strips=strips))
    got = run({"params": prior.kernels}, wide, size)
    got = got[:, 2 : 2 + size[0], 2 : 2 + size[1]]
    np.testing.assert_allclose(got, prior.residual(z), rtol=1e-6, atol=1e-6)


def test_flax_initialises_the_same_tree(small):
    module = network.ResidualNetwork(small.config)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == jax.tree.map(jnp.shape, network.fuse(small.params["network"]))


def test_the_official_network_has_389_thousand_parameters():
    count = sum(int(np.prod(s)) for s in expected_shapes(isr.ModelConfig()).values())
    assert count == 388_823


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
