import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.physics import sampling

sizes = st.integers(1, 40)


def matrix(taps: sampling.Taps, n_in: int) -> np.ndarray:
    dense = np.zeros((len(taps.index), n_in))
    rows = np.broadcast_to(np.arange(len(taps.index))[:, None], taps.index.shape)
    np.add.at(dense, (rows, taps.index), taps.weight)
    return dense


@given(sizes, sizes, st.sampled_from(["symmetric", "replicate"]))
def test_imresize_keeps_constants_and_is_symmetric(n_in, n_out, border):
    dense = matrix(sampling.imresize_taps(n_in, n_out, border), n_in)
    np.testing.assert_allclose(dense.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(dense, dense[::-1, ::-1], atol=1e-12)


@given(st.integers(8, 30), st.integers(2, 4))
def test_imresize_upscaling_reproduces_lines_inside(n, scale):
    # Keys' kernel interpolates polynomials up to the second degree exactly.
    dense = matrix(sampling.imresize_taps(n, n * scale), n)
    centre = (np.arange(n * scale) + 0.5) / scale - 0.5
    inside = slice(2 * scale, -2 * scale)
    for power in (1, 2):
        np.testing.assert_allclose((dense @ np.arange(n) ** power)[inside], centre[inside] ** power)


@given(st.integers(2, 4), st.integers(2, 12))
def test_imresize_reducing_uses_the_stretched_kernel(scale, n):
    # An antialiased reduction by s is a correlation with one kernel of length 4 s.
    dense = matrix(sampling.imresize_taps(n * scale + 40 * scale, n + 40), n * scale + 40 * scale)
    middle = dense[20]
    np.testing.assert_allclose(dense[21], np.roll(middle, scale), atol=1e-12)
    assert np.count_nonzero(np.abs(middle) > 1e-12) <= 4 * scale


def test_imresize_rejects_other_borders():
    with pytest.raises(ValueError, match="symmetric"):
        sampling.imresize_taps(4, 2, "wrap")


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([2, 4]))
def test_bicubic_upsample_is_blockwise_transposed(h, w, scale):
    # The documented defect: exact interpolation with every s x s block transposed.
    y = np.random.default_rng(h * 13 + w).uniform(0, 255, (1, h, w, 1)).astype(np.float32)
    got = np.asarray(isr.Bicubic(scale, reference=True).upsample(y))[0, :, :, 0]
    blocks = got.reshape(h, scale, w, scale).transpose(0, 3, 2, 1).reshape(h * scale, w * scale)

    def dense(n):  # Catmull-Rom at i / s, indices clamped
        rows = np.arange(n * scale)
        base, t = rows // scale, (rows % scale) / scale
        out = np.zeros((n * scale, n))
        kernel = sampling._keys
        for a in (-1, 0, 1, 2):
            np.add.at(out, (rows, np.clip(base + a, 0, n - 1)), kernel(a - t))
        return out

    np.testing.assert_allclose(blocks, dense(h) @ y[0, :, :, 0] @ dense(w).T, atol=2e-4)


def test_bicubic_positions_at_scale_3_are_those_of_float32():
    # Exact thirds would be off by 0.013 grey levels at 1000 pixels: the weights must know.
    weights = sampling.bicubic_weights(1000, 3, "float32")
    exact = sampling.bicubic_weights(1000, 3, "float64")
    drift = np.abs(weights - exact).max()
    assert 1e-6 < drift < 1e-3


@given(st.integers(2, 30), st.sampled_from([2, 3, 4]))
def test_bilinear_taps_darken_the_border(n, scale):
    dense = matrix(sampling.bilinear_taps(n, n * scale, "float64"), n)
    np.testing.assert_allclose(dense[[0, -1]].sum(1), 0.5)
    np.testing.assert_allclose(dense.sum(1).max(), 1)


def test_nothing_is_traced_that_numpy_could_compute():
    upsample = isr.Bicubic(3, reference=True).upsample
    closed = jax.make_jaxpr(upsample)(jnp.zeros((1, 9, 8, 3)))
    assert not {"floor", "sin", "iota"} & {e.primitive.name for e in closed.eqns}


@given(st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_both_ways_and_all_derivatives_of_taps_are_those_of_the_matrix(n, m, reduce):
    with jax.enable_x64(True):
        taps = sampling.imresize_taps(n * m, m) if reduce else sampling.bilinear_taps(m, n * m)
        dense = matrix(taps, n * m if reduce else m)
        rng = np.random.default_rng(n * 13 + m)
        x, y = (jnp.asarray(rng.normal(size=(2, side, 3))) for side in dense.shape[::-1])
        expected = np.einsum("ij,njc->nic", dense, x)
        np.testing.assert_allclose(taps(x, 1), expected, atol=1e-12)
        forth, tangent = jax.jvp(lambda x: taps(x, 1), (x,), (2 * x,))
        np.testing.assert_allclose(forth, expected, atol=1e-12)
        np.testing.assert_allclose(tangent, 2 * expected, atol=1e-12)
        (back,) = jax.vjp(lambda x: taps(x, 1), x)[1](y)
        np.testing.assert_allclose(back, np.einsum("ij,nic->njc", dense, y), atol=1e-12)
        curvature = jax.jvp(jax.grad(lambda x: jnp.sum(taps(x, 1) ** 2) / 2), (x,), (x,))[1]
        np.testing.assert_allclose(curvature, np.einsum("ij,nic->njc", dense, forth), atol=1e-12)
        many = jax.vmap(jax.vmap(lambda x: taps(x, 0), 1, 1))(x)
        np.testing.assert_allclose(many, expected, atol=1e-12)
