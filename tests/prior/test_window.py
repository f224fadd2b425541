import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrrescnet_jax.prior import window
from isrrescnet_jax.prior.border import conv3x3_reflect
from isrrescnet_jax.prior.conv import conv
from isrrescnet_jax.prior.prelu import prelu
from isrrescnet_jax.prior.window import MARGIN

SIZES = [(2, 2), (2, 7), (6, 5), (13, 6), (14, 3)]


@pytest.fixture(params=["strips", "one strip"])
def way(request, monkeypatch):
    """In strips of four rows, or of all rows."""
    monkeypatch.setattr(window, "PIXELS", {"strips": 1}.get(request.param, 8192))


def convolve():
    """Traced anew."""
    function = window.conv3x3_reflect_window.__wrapped__
    return jax.jit(functools.partial(function, precision="highest"))


def in_a_window(x, around=0.0):
    """A window of 20 x 13 with the image in its place, and numbers of size `around` around it."""
    rng = np.random.default_rng(1)
    wide = around * rng.normal(size=(len(x), 16 + 2 * MARGIN, 9 + 2 * MARGIN, x.shape[3]))
    wide[:, MARGIN : MARGIN + x.shape[1], MARGIN : MARGIN + x.shape[2]] = x
    return jnp.asarray(wide)


def cut(x, h, w):
    return x[:, MARGIN : MARGIN + h, MARGIN : MARGIN + w]


def drawn(h, w, i=3, o=4, k=3):
    rng = np.random.default_rng(h * 10 + w)
    return (jnp.asarray(rng.normal(size=shape)) for shape in ((2, h, w, i), (k, k, i, o), o, i))


@pytest.mark.parametrize("size", SIZES)
def test_an_image_in_a_window_is_reflected_like_one_that_fills_an_array(size, way, x64):
    x, kernel, bias, slopes = drawn(*size)
    function = convolve()
    expected = conv3x3_reflect(prelu(x, slopes), kernel, "highest") + bias
    into = np.random.default_rng(0).normal(size=(*x.shape[:3], 4))
    for factor in (None, 0.7):
        wide, over = in_a_window(x, 100.0), in_a_window(into, 100.0)
        got = function(wide, slopes, kernel, bias, size, over, factor)
        added = 0 if factor is None else factor * into
        np.testing.assert_allclose(cut(got, *size), expected + added, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("border", ["reflect", "zero"])
def test_larger_kernels_in_a_window(size, border, way, x64):
    size = max(size[0], 3), max(size[1], 3)
    x, kernel, bias, _ = drawn(*size, k=5)
    options = {"dtype": jnp.float64, "border": border, "precision": "highest"}
    function = jax.jit(functools.partial(window.conv_window, **options))
    got = function(in_a_window(x, 100.0), kernel, bias, size)
    mode = {"reflect": "reflect", "zero": "constant"}[border]
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode)
    np.testing.assert_allclose(cut(got, *size), conv(padded, kernel, 0) + bias, atol=1e-9)


def test_wide_features_are_as_exact_whatever_surrounds_the_image(way):
    """Those that the processor's short way sums up, in which rows of an image meet others."""
    size = (13, 6)
    x, kernel, bias, slopes = (a.astype(jnp.float32) for a in drawn(*size, 32, 32))
    kernel = kernel / 17
    function = convolve()
    expected = conv3x3_reflect(prelu(x, slopes), kernel, "highest") + bias
    for around in (0.0, 1.0):
        wide = in_a_window(x, around).astype(jnp.float32)
        got = function(wide, slopes, kernel, bias, size, jnp.zeros_like(wide))
        np.testing.assert_allclose(cut(got, *size), expected, atol=2e-5)


def test_strips_leave_out_what_is_below_the_image(monkeypatch):
    monkeypatch.setattr(window, "PIXELS", 1)
    ones = lambda into, first, count: jnp.ones_like(into[:, :count])  # noqa: E731
    for height, rows in ((1, 4), (4, 4), (5, 8), (16, 16)):
        out, kept = window.in_strips(jnp.zeros((1, 20, 5, 1)), (height, 5), ones, [jnp.ones(3)])
        assert out.sum() == 5 * rows and out[:, MARGIN : MARGIN + rows].all()
        np.testing.assert_array_equal(kept, np.ones((1, 3)))


@given(st.integers(5, 1100), st.integers(5, 1100))
def test_whole_strips_fill_a_window(rows, columns):
    count = window.strip_rows(rows, columns)
    assert (rows - 2 * MARGIN) % count == 0
    assert count == rows - 2 * MARGIN or count * columns >= window.PIXELS


def test_borders_are_reflected_without_the_edge():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    for width in (1, 2):
        wide = window.reflect_borders(in_a_window(x), (jnp.int32(5), jnp.int32(6)), width)
        around = MARGIN - width
        seen = wide[:, around : around + 5 + 2 * width, around : around + 6 + 2 * width]
        pad = ((0, 0), (width, width), (width, width), (0, 0))
        np.testing.assert_array_equal(seen, np.pad(x, pad, mode="reflect"))


@pytest.mark.parametrize("platform", ["cuda", "default"])
@pytest.mark.parametrize("size", SIZES)
def test_an_image_surrounded_by_its_reflection(size, platform, monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, **ways: ways[platform](*a))
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    for width in (1, 2)[: min(size) - 1]:
        lengths = jnp.int32(size[0]), jnp.int32(size[1])
        wide = jax.jit(window.surrounded, static_argnums=2)(in_a_window(x, 100.0), lengths, width)
        around = MARGIN - width
        seen = wide[:, around : MARGIN + size[0] + width, around : MARGIN + size[1] + width]
        pad = ((0, 0), (width, width), (width, width), (0, 0))
        np.testing.assert_array_equal(seen, np.pad(x, pad, mode="reflect"))


def test_what_lies_outside_of_the_image_becomes_zero():
    ones = jnp.ones((1, 9, 9, 1))
    size = jnp.int32(3), jnp.int32(4)
    np.testing.assert_array_equal(window.inside(ones, size).sum(), 12)
    np.testing.assert_array_equal(window.inside(ones, size, top=4).sum(), 4)  # its last row
