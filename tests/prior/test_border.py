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


def in_a_window(x):
    """With the margin around it that a window has, and more on one side."""
    return np.pad(x, ((0, 0), (border.MARGIN, 4), (border.MARGIN, 6), (0, 0)))


def cut(x, h, w):
    return x[:, border.MARGIN : border.MARGIN + h, border.MARGIN : border.MARGIN + w]


@pytest.mark.parametrize("size", [(2, 2), (2, 7), (6, 5)])
def test_an_image_in_a_window_is_reflected_like_one_that_fills_an_array(size, x64):
    x, kernel = drawn(*size)
    bias, identity = np.arange(4.0), np.random.default_rng(0).normal(size=(*x.shape[:3], 4))
    function = jax.jit(border.conv3x3_reflect_window, static_argnames="precision")
    for added in (None, identity):
        wide = None if added is None else in_a_window(added)
        window = function(in_a_window(x), kernel, size, bias, wide, precision="highest")
        expected = conv3x3_reflect(x, kernel, "highest") + bias + (0 if added is None else added)
        np.testing.assert_allclose(cut(window, *size), expected, atol=1e-9)


def test_borders_are_reflected_without_the_edge():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    for width in (1, 2):
        window = np.asarray(
            border.reflect_borders(jnp.asarray(in_a_window(x)), (jnp.int32(5), jnp.int32(6)), width)
        )
        around = border.MARGIN - width
        seen = window[:, around : around + 5 + 2 * width, around : around + 6 + 2 * width]
        pad = ((0, 0), (width, width), (width, width), (0, 0))
        np.testing.assert_array_equal(seen, np.pad(x, pad, mode="reflect"))


def test_what_lies_outside_of_the_image_becomes_zero():
    x = jnp.ones((1, 9, 9, 1))
    assert border.inside(x, None) is x
    size = jnp.int32(3), jnp.int32(4)
    np.testing.assert_array_equal(border.inside(x, size).sum((0, 3)).astype(bool).sum(), 12)
