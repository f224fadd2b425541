import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from isrrescnet_jax.prior import winograd
from isrrescnet_jax.prior.conv import conv, correlate

sides = st.sampled_from([1, 2, 4, 7])


def test_the_matrices_filter():
    at, g, bt = winograd.matrices()
    rng = np.random.default_rng(0)
    rows, kernel = rng.normal(size=6), rng.normal(size=3)
    np.testing.assert_allclose(
        at @ ((g @ kernel) * (bt @ rows)), np.correlate(rows, kernel, "valid"), atol=1e-12
    )
    # The products that are left out are those by zero.
    for matrix in (at, bt):
        assert not np.any((np.abs(matrix) > 0) & (np.abs(matrix) < 0.1) & (np.abs(matrix) > 1e-9))


def direct(x, kernel, padding, precision):
    return correlate(x, kernel, padding=((padding,) * 2,) * 2, precision=precision)


def drawn(h, w, n=2, i=3, o=5):
    rng = np.random.default_rng(100 * h + w)
    return (
        rng.normal(size=(n, h, w, i)).astype(np.float32),
        rng.normal(size=(3, 3, i, o)).astype(np.float32),
    )


@given(sides, sides)
def test_correlates_like_scipy(h, w):
    x, kernel = drawn(h, w)
    expected = np.zeros((len(x), h, w, kernel.shape[-1]))
    for n, i, o in np.ndindex(len(x), x.shape[-1], kernel.shape[-1]):
        # Its "same" is about the second argument where that is larger.
        full = scipy.signal.correlate(x[n, :, :, i].astype(float), kernel[:, :, i, o], "full")
        expected[n, :, :, o] += full[1:-1, 1:-1]
    ours = jax.jit(winograd.correlate)(x, kernel)
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@given(st.sampled_from([6, 10, 14]), sides)
def test_without_zeros_above_and_below(h, w):
    x, kernel = drawn(h, w)
    ours = jax.jit(winograd.correlate, static_argnames="rows")(x, kernel, rows=0)
    np.testing.assert_allclose(ours, jax.jit(winograd.correlate)(x, kernel)[:, 1:-1], atol=2e-5)


def plain_kernel_gradient(x, g):
    x = np.pad(x.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = g.shape[1:3]
    rows = [
        [np.einsum("nhwi,nhwo->io", x[:, i : i + h, j : j + w], g) for j in range(3)]
        for i in range(3)
    ]
    return np.array(rows)


@given(sides, sides)
def test_the_kernel_gradient(h, w):
    x, _ = drawn(h, w)
    g, _ = drawn(h, w, i=4)
    ours = jax.jit(winograd.kernel_gradient)(x, g)
    np.testing.assert_allclose(ours, plain_kernel_gradient(x, g), atol=5e-5)


def test_the_kernel_gradient_in_strips():
    x, _ = drawn(22, 500)
    g, _ = drawn(22, 500, i=4)
    expected = plain_kernel_gradient(x, g)
    ours = jax.jit(winograd.kernel_gradient)(x, g)
    np.testing.assert_allclose(ours, expected, atol=2e-6 * np.abs(expected).max() + 1e-3)


def test_is_as_accurate_as_the_plain_sum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 40, 40, 64)).astype(np.float32)
    kernel = (rng.normal(size=(3, 3, 64, 64)) / 24).astype(np.float32)
    with jax.enable_x64(True):
        exact = direct(x.astype(np.float64), kernel.astype(np.float64), 1, None)
        exact = np.asarray(exact)

    def error(y):
        return np.sqrt(np.mean((np.asarray(y, np.float64) - exact) ** 2))

    plain = error(jax.jit(direct, static_argnums=(2, 3))(x, kernel, 1, "highest"))
    assert error(jax.jit(winograd.correlate)(x, kernel)) < 2 * plain


def test_narrow_types_are_widened_inside():
    x, kernel = drawn(9, 6)
    x16 = jnp.asarray(x, jnp.bfloat16)
    y = winograd.correlate(x16, jnp.asarray(kernel, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    kernel = jnp.asarray(kernel, jnp.bfloat16).astype(jnp.float32)
    wide = winograd.correlate(x16.astype(jnp.float32), kernel)
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))


@settings(max_examples=4)
@given(sides, sides)
def test_gradients_through_it_are_those_of_the_plain_convolution(h, w):
    x, kernel = drawn(h, w, 2, 32, 33)  # wide enough to be used

    def gradients(f):
        return jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(f(x, k, 1, None))), (0, 1)))(x, kernel)

    for ours, plain in zip(gradients(conv), gradients(direct), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-3)
    hlo = jax.jit(conv, static_argnums=(2, 3)).lower(x, kernel, 1, None).as_text()
    assert hlo.count("stablehlo.convolution") == 6
