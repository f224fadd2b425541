import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrrescnet_jax.prior import border
from isrrescnet_jax.prior.border import conv3x3_reflect
from isrrescnet_jax.prior.conv import conv


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

        ours, theirs = jax.jit(lambda: (check(conv3x3_reflect), check(padded)))()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), ours, theirs)


def drawn(h, w):
    rng = np.random.default_rng(h * 10 + w)
    return jnp.asarray(rng.normal(size=(2, h, w, 3))), jnp.asarray(rng.normal(size=(3, 3, 3, 4)))


@pytest.mark.parametrize("size", [(2, 2), (2, 7), (6, 5)])
def test_the_ways_of_all_platforms_compute_the_same(size, x64):
    x, kernel = drawn(*size)
    expected = border.reflect_in_place(x, kernel, precision="highest")
    for way in (border.reflect_in_one_pass, border.reflect_by_padding):
        np.testing.assert_allclose(way(x, kernel, precision="highest"), expected, atol=1e-9)
