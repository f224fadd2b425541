import jax
import jax.numpy as jnp
import numpy as np
import pytest

from isrrescnet_jax.prior.projection import project, shrinkage


@pytest.mark.parametrize("sigma", [0.0, 1e-13, 3.0, 1e9])
def test_projection(sigma):
    r = jnp.asarray(np.random.default_rng(0).normal(0, 5, (1, 6, 7, 3)), jnp.float32)
    alpha = jnp.float32(0.3)
    out = project(r, jnp.array([sigma], jnp.float32), alpha)
    radius = np.exp(0.3) * sigma * np.sqrt(6 * 7 * 3 - 1)
    np.testing.assert_allclose(np.linalg.norm(out), min(np.linalg.norm(r), radius), rtol=1e-5)
    if sigma == 1e9:
        np.testing.assert_array_equal(out, r)


@pytest.mark.parametrize("sigma", [0.0, 3.0])
@pytest.mark.parametrize("size", [0.0, 1.0])
def test_projection_has_finite_gradients_everywhere(sigma, size):
    def f(r, alpha):
        return jnp.sum(project(r, jnp.array([sigma]), alpha) * 2)

    r = jnp.full((1, 4, 4, 1), size)
    gradients = jax.grad(f, (0, 1))(r, 0.0)
    assert all(np.isfinite(g).all() for g in gradients)
    if sigma == 0:
        assert not any(np.any(g) for g in gradients)


def test_images_of_a_batch_are_projected_each_for_itself():
    r = jnp.asarray(np.random.default_rng(0).normal(0, 5, (3, 6, 7, 3)), jnp.float32)
    sigma, alpha = jnp.array([0.5, 3.0, 100.0]), jnp.float32(0.1)
    together = project(r, sigma, alpha)
    for k in range(3):
        alone = project(r[k : k + 1], sigma[k : k + 1], alpha)
        np.testing.assert_allclose(together[k : k + 1], alone, rtol=1e-6)
    shrink = shrinkage(jnp.sum(r**2, (1, 2, 3)), 6 * 7 * 3, sigma, alpha)
    assert shrink[0] < shrink[1] < shrink[2] == 1
