import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.physics import sampling as resample


def make(name: str, scale: int, reference: bool):
    if name == "Blur":
        kernel = np.random.default_rng(scale).uniform(size=(3, 5, 5))
        kernel /= kernel.sum((1, 2), keepdims=True)
        return isr.Blur(scale, kernel, reference=reference)
    return getattr(isr, name)(scale, reference=reference)


def dense(taps: resample.Taps) -> np.ndarray:
    out = np.zeros((len(taps.index), len(taps.back_index)))
    np.add.at(out, (np.arange(len(out))[:, None], taps.index), taps.weight)
    return out


names = st.sampled_from(["Bicubic", "Bilinear", "Blur", "Decimation"])
scales = st.sampled_from([2, 3, 4])
sides = st.integers(1, 7)


@settings(max_examples=15)
@given(names, scales, st.booleans(), sides, sides)
def test_adjoint_passes_the_dot_product_test(name, scale, reference, h, w):
    with jax.enable_x64(True):
        operator = make(name, scale, reference)
        rng = np.random.default_rng(h * 7 + w)
        x = jnp.asarray(rng.normal(size=(2, h * scale, w * scale, 3)))
        y = jnp.asarray(rng.normal(size=(2, h, w, 3)))
        both = jax.jit(lambda x, y: (operator.forward(x), operator.adjoint(y)))(x, y)
        left, right = np.vdot(both[0], y), np.vdot(x, both[1])
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-10)


@settings(max_examples=15)
@given(names, scales, sides, sides)
def test_gradient_is_that_of_half_the_squared_error(name, scale, h, w):
    with jax.enable_x64(True):
        operator = make(name, scale, reference=False)
        rng = np.random.default_rng(h * 7 + w)
        v = jnp.asarray(rng.uniform(0, 255, (1, h * scale, w * scale, 3)))
        y = jnp.asarray(rng.uniform(0, 255, (1, h, w, 3)))
        half = jax.grad(lambda v: jnp.sum((operator.forward(v) - y) ** 2) / 2)
        ours, autodiff = jax.jit(lambda v: (operator.gradient(v, y), half(v)))(v)
        np.testing.assert_allclose(ours, autodiff, atol=1e-9)


@settings(max_examples=15)
@given(names, scales, st.booleans(), sides, sides)
def test_initial_image_and_gradient_have_the_size_of_the_image(name, scale, reference, h, w):
    operator = make(name, scale, reference)
    y = jnp.full((1, h, w, 3), 100.0)
    x = jax.jit(operator.initial)(y)
    gradient = jax.jit(operator.gradient)(x, y)
    assert x.shape == gradient.shape == (1, h * scale, w * scale, 3)
    assert np.isfinite(x).all() and np.isfinite(gradient).all()
    if not reference:
        np.testing.assert_allclose(x, 100, rtol=1e-5)  # no dark borders


@pytest.mark.parametrize("name", ["Bicubic", "Bilinear", "Blur"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_corrected_operators_are_pixel_centred(name, scale):
    # A linear ramp, reduced, is the ramp at the centres of the large pixels.
    n = 24
    ramp = np.arange(n * scale, dtype=np.float64)
    kernel = np.ones((scale | 1, scale | 1))
    if scale % 2 == 0:
        kernel = np.ones((scale, scale))
    operator = (
        isr.Blur(scale, kernel / kernel.sum(), reference=False)
        if name == "Blur"
        else getattr(isr, name)(scale, reference=False)
    )
    with jax.enable_x64(True):
        x = jnp.broadcast_to(jnp.asarray(ramp)[None, :, None, None], (1, n * scale, n * scale, 1))
        y = np.asarray(operator.forward(x))[0, 4:-4, 5, 0]
    np.testing.assert_allclose(y, (np.arange(n) * scale + (scale - 1) / 2)[4:-4], atol=1e-9)


def test_corrected_bicubic_makes_the_benchmarks_images():
    # MATLAB's imresize but for its rounding to uint8, once between the passes and once after.
    hr = photo(48, 60)[0]
    lr = isr.Bicubic(4, reference=False).forward(jnp.asarray(hr[None], jnp.float32))
    assert np.abs(np.asarray(lr)[0] - degrade(hr, 4)).max() < 1.2


@pytest.mark.parametrize("border", ["symmetric", "replicate"])
def test_the_exact_bicubic_is_matlabs_at_every_border_and_size(border):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        for scale, h, w in ((2, 1, 5), (3, 9, 11), (4, 13, 2)):
            operator = isr.Bicubic(scale, reference=False, border=border)
            x, y = rng.normal(size=(2, h * scale, w * scale, 3)), rng.normal(size=(2, h, w, 3))
            down, up = operator.forward(x), operator.initial(y)
            for taps, got, image in (
                ([resample.imresize_taps(n * scale, n, border) for n in (h, w)], down, x),
                ([resample.imresize_taps(n, n * scale, border) for n in (h, w)], up, y),
            ):
                rows, columns = (dense(t) for t in taps)
                expected = np.einsum("ih,jw,nhwc->nijc", rows, columns, image)
                np.testing.assert_allclose(got, expected, atol=1e-12)
            left, right = np.vdot(down, y), np.vdot(x, operator.adjoint(y))
            np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("unchecked")
def test_another_border_is_refused():
    with pytest.raises(ValueError, match="border must be"):
        isr.Bicubic(2, border="zero")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_exact_bicubic_has_the_norm_of_its_docstring(scale):
    documented = {"symmetric": (0.250, 0.111, 0.0625), "replicate": (0.251, 0.112, 0.0628)}
    for border, norms in documented.items():
        operator = isr.Bicubic(scale, reference=False, border=border)

        @jax.jit
        def power(v, operator=operator):
            def step(_, v):
                v = operator.adjoint(operator.forward(v))
                return v / jnp.linalg.norm(v)

            v = jax.lax.fori_loop(0, 500, step, v)
            return jnp.linalg.norm(operator.adjoint(operator.forward(v)))

        found = float(power(jax.random.normal(jax.random.key(0), (1, 48, 48, 1))))
        np.testing.assert_allclose(found, norms[scale - 2], rtol=6e-3)
    np.testing.assert_allclose(documented["symmetric"][scale - 2], 1 / scale**2, rtol=2e-3)


def flips(x):
    """An image in its four reflections, and those of its transpose: two batches."""

    def four(x):
        return jnp.concatenate([x, x[:, ::-1], x[:, :, ::-1], x[:, ::-1, ::-1]])

    return four(x), four(x.swapaxes(1, 2))


def apart(method, *images):
    """By how much it matters whether an image is flipped before the method, or after."""
    flipped = zip(*map(flips, images), strict=True)
    before = [method(*batches) for batches in flipped]
    after = flips(before[0][:1])
    return [jnp.abs(a - b).max((1, 2, 3)) for a, b in zip(before, after, strict=True)]


@settings(max_examples=12)
@given(st.sampled_from(["Bicubic", "replicate", "Bilinear", "Blur"]), scales, sides, sides)
def test_exact_operators_commute_with_the_flips_of_the_ensemble(name, scale, h, w):
    if name == "Blur":
        # Symmetric, and of the parity of the scale, so that its centre is that of the pixel.
        offset = np.arange(4 + scale % 2) - (3 + scale % 2) / 2
        kernel = np.exp(-(offset**2 + offset[:, None] ** 2) / 3)
        operator = isr.Blur(scale, kernel / kernel.sum(), reference=False)
    elif name == "replicate":
        operator = isr.Bicubic(scale, reference=False, border="replicate")
    else:
        operator = getattr(isr, name)(scale, reference=False)
    rng = np.random.default_rng(h * 7 + w)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.uniform(0, 255, (1, h * scale, w * scale, 3)))
        y = jnp.asarray(rng.uniform(0, 255, (1, h, w, 3)))

        @jax.jit
        def all_apart(x, y):
            return {
                "forward": apart(operator.forward, x),
                "adjoint": apart(operator.adjoint, y),
                "initial": apart(operator.initial, y),
                "gradient": apart(operator.gradient, x, y),
            }

        for name, values in all_apart(x, y).items():
            np.testing.assert_allclose(values, 0, atol=1e-9, err_msg=name)


def test_the_reference_does_not_commute_with_them():
    # So that the test above is known to notice.
    rng = np.random.default_rng(0)
    operator, y = isr.Bicubic(2, reference=True), rng.uniform(0, 255, (1, 6, 6, 1))
    assert np.max(apart(operator.upsample, y)) > 1


def test_an_operator_by_itself_has_to_be_told_its_physics():
    y = np.ones((1, 4, 4, 3), np.float32)
    for method in ("forward", "adjoint", "upsample", "initial"):
        with pytest.raises(ValueError, match="reference=False"):
            getattr(isr.Bicubic(2), method)(y)
    with pytest.raises(ValueError, match="reference=False"):
        isr.Bilinear(2).gradient(np.ones((1, 8, 8, 3), np.float32), y)


def test_operators_are_pytrees():
    operator = isr.Blur(2, jnp.ones((3, 3)), reference=True)
    assert jax.tree.leaves(operator)[0].shape == (3, 3)
    assert jax.tree.leaves(isr.Bicubic(3)) == []
    x = jnp.ones((1, 8, 8, 3))
    grad = jax.grad(lambda op: op.forward(x).sum())(operator)
    assert grad.kernel.shape == (3, 3) and grad.scale == 2
    kernels = jnp.stack([jnp.ones((3, 3)), jnp.zeros((3, 3))])
    many = jax.vmap(lambda k: isr.Blur(2, k, reference=True).forward(x))(kernels)
    assert many.shape == (2, 1, 4, 4, 3) and not many[1].any()


@pytest.mark.usefixtures("unchecked")
def test_bad_operators_say_what_is_wrong():
    with pytest.raises(ValueError, match="scale must be"):
        isr.Bicubic(5)
    x = jnp.ones((1, 8, 8, 3))
    with pytest.raises(ValueError, match="reference must be True, False or None, not 'exact'"):
        isr.Bicubic(4, reference="exact")
    for kernel, scale in ((np.ones((4, 4)), 2), (np.ones((3, 3)), 4)):
        with pytest.raises(ValueError, match="reference=False"):
            isr.Blur(scale, kernel, reference=True).forward(x)
        assert isr.Blur(scale, kernel, reference=False).forward(x).shape[1] == 8 // scale
    with pytest.raises(ValueError, match="kernel must be"):
        isr.Blur(2, np.ones((3, 5)), reference=True).forward(x)
    with pytest.raises(ValueError, match=r"\(3, k, l\), not \(2, 3, 3\)"):
        isr.Blur(2, np.ones((2, 3, 3)), reference=True).forward(x)
