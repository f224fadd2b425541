import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.physics import axis, sampling

borders = st.sampled_from(["symmetric", "replicate"])
scales = st.sampled_from([2, 3, 4])


def dense(taps: axis.Taps) -> np.ndarray:
    out = np.zeros((taps.outputs, taps.inputs))
    np.add.at(out, (np.arange(len(out))[:, None], taps.index), taps.weight)
    return out


@settings(max_examples=25)
@given(st.integers(1, 9), scales, borders, st.booleans())
def test_a_band_is_the_matrix_of_its_taps_both_ways_and_in_all_derivatives(n, s, border, enlarge):
    # From one pixel on: there the border mirrors the image several times.
    sizes = (n, s * n) if enlarge else (s * n, n)
    matrix = dense(sampling.imresize_taps(*sizes, border))
    band = sampling.imresize_band(n, s, border, enlarge)
    assert (band.outputs, band.inputs) == matrix.shape
    rng = np.random.default_rng(n * 13 + s)
    with jax.enable_x64(True):
        x, y = (rng.normal(size=(2, side, 3)) for side in matrix.shape[::-1])
        z = jnp.asarray(x + 1j * rng.normal(size=x.shape))
        expected = np.einsum("ij,njc->nic", matrix, x)

        @jax.jit
        def everything(x, y, z):
            apply = lambda x: band(x, 1)  # noqa: E731
            half = lambda x: jnp.sum(apply(x) ** 2) / 2  # noqa: E731
            return {
                "forth": apply(x),
                "tangent": jax.jvp(apply, (x,), (2 * x,))[1] / 2,
                "vmap": jax.vmap(jax.vmap(lambda x: band(x, 0), 1, 1))(x),
                "complex": apply(z),
                "back": jax.linear_transpose(apply, x)(y)[0],
                "curvature": jax.jvp(jax.grad(half), (x,), (x,))[1],
            }

        got = everything(x, y, z)
    for name in ("forth", "tangent", "vmap"):
        np.testing.assert_allclose(got[name], expected, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(got["complex"], np.einsum("ij,njc->nic", matrix, z), atol=1e-12)
    np.testing.assert_allclose(got["back"], np.einsum("ij,nic->njc", matrix, y), atol=1e-12)
    np.testing.assert_allclose(
        got["curvature"], np.einsum("ij,nic->njc", matrix, expected), atol=1e-12
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_parts_of_a_band_are_those_of_the_whole_but_at_their_ends(scale):
    n, first, count, reach = 20, 5, 11, 4
    x = np.random.default_rng(0).normal(size=(n * scale, 2)).astype(np.float32)
    for enlarge in (False, True):
        band = sampling.imresize_band(n, scale, enlarge=enlarge)
        ins, outs = (1, scale) if enlarge else (scale, 1)
        inside = slice(first * ins, (first + count) * ins)
        inner = slice(reach * outs, (count - reach) * outs)
        whole = band(jnp.asarray(x[: n * ins]), 0)[first * outs : (first + count) * outs]
        part = band.part(first, count)(jnp.asarray(x[: n * ins][inside]), 0)
        assert part.shape == whole.shape
        np.testing.assert_allclose(part[inner], whole[inner], atol=1e-5)


def test_the_passes_stay_apart_on_a_cpu():
    # Fused, the first would be computed again for each term of the second: see `_on_cpu`.
    x, operator = jnp.zeros((1, 32, 32, 3)), isr.Bicubic(2, reference=False)
    compiled = jax.jit(operator.forward).lower(x).compile()
    if jax.default_backend() == "cpu":
        assert compiled.as_text().count(" call(") >= 2


@pytest.mark.parametrize("enlarge", [False, True])
def test_maps_of_several_sizes_at_once(enlarge):
    bands = [sampling.imresize_band(n, 2, "symmetric", enlarge) for n in (4, 6)]
    wide = np.stack([np.pad(b.weight, ((0, 6 - len(b.weight)), (0, 0))) for b in bands])
    x = jax.random.normal(jax.random.key(0), (2, 6 if enlarge else 12, 3))
    apply = lambda weight, x: axis.Band(weight, 2, enlarge)(x, 0)  # noqa: E731
    for weight, x_of_it, own in zip(wide, x, jax.vmap(apply)(wide, x), strict=True):
        np.testing.assert_allclose(own, apply(weight, x_of_it), atol=1e-6)
    for weight, own in zip(wide, jax.vmap(apply, (0, None))(wide, x[0]), strict=True):
        np.testing.assert_allclose(own, apply(weight, x[0]), atol=1e-6)
    leaves, tree = jax.tree.flatten(sampling.bilinear_taps(4, 8))
    each = [leaves, [2 * leaf if leaf.dtype == "float32" else leaf for leaf in leaves]]
    found = jax.vmap(lambda leaves, x: jax.tree.unflatten(tree, leaves)(x, 0))(
        [np.stack(leaf) for leaf in zip(*each, strict=True)], x[:, :4]
    )
    taps = jax.tree.unflatten(tree, leaves)
    np.testing.assert_allclose(found[1], 2 * taps(x[1, :4], 0), atol=1e-6)
