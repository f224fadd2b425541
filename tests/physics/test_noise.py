import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
from hypothesis import given
from hypothesis import strategies as st

from isrrescnet_jax.physics import noise

level = jax.jit(noise.noise_level)


def test_filter_is_db7():
    np.testing.assert_allclose(noise.DB7_HIGH_PASS, pywt.Wavelet("db7").dec_hi, atol=1e-11)


@pytest.mark.parametrize("sigma", [1.0, 10.0, 40.0])
def test_finds_the_level_of_white_noise(sigma):
    x = np.random.default_rng(0).normal(128, sigma, (1, 200, 210, 3)).astype(np.float32)
    np.testing.assert_allclose(level(jnp.asarray(x)), sigma, rtol=0.03)


@given(st.integers(1, 20), st.integers(1, 20))
def test_any_size_is_finite_and_homogeneous(h, w):
    x = np.random.default_rng(h * 31 + w).uniform(0, 255, (2, h, w, 1)).astype(np.float32)
    sigma = np.asarray(level(jnp.asarray(x)))
    assert np.isfinite(sigma).all() and (sigma >= 0).all()
    np.testing.assert_allclose(level(jnp.asarray(x / 255)) * 255, sigma, rtol=1e-4, atol=1e-3)
    if 1 in (h, w):
        assert (sigma == 0).all()


def test_images_of_a_batch_do_not_see_each_other_and_no_gradient_flows():
    x = jnp.asarray(np.random.default_rng(1).uniform(0, 255, (3, 12, 13, 3)), jnp.float32)
    together = level(x)
    alone = jnp.concatenate([level(x[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert not jnp.any(jax.grad(lambda x: level(x).sum())(x))
