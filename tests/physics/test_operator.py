"""Operators of which only `forward` is written, in double precision, real and complex."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isrrescnet_jax as isr

KEY = jax.random.key(0)
SHAPE = (2, 6, 4, 3)
RNG = np.random.default_rng(0)


def numbers(*shape, kind=complex):
    values = RNG.normal(size=shape) + 1j * RNG.normal(size=shape)
    return values if kind is complex else values.real


@isr.pytree
@dataclasses.dataclass(frozen=True)
class Mixed(isr.Operator):
    """An operator of one's own: channels are mixed, and every third column is seen."""

    matrix: jax.Array

    def forward(self, x):
        return (x @ self.matrix)[:, :, ::3]

    def domain(self, y):
        return jax.ShapeDtypeStruct((*y.shape[:2], 4, 3), y.dtype)


def make(name, kind):
    if name == "Mask":
        return isr.Mask(numbers(6, 4, 1, kind=kind))
    if name == "Fourier":
        return isr.Fourier(RNG.uniform(size=(6, 4, 1)) < 0.5, real=kind is float)
    if name == "Mixed":
        return Mixed(numbers(3, 2, kind=kind))
    if name == "Scaled":
        return isr.Scaled(make("Mask", kind), 0.3)
    if name == "Composition":
        return isr.Fourier(RNG.uniform(size=(6, 4, 1)), real=kind is float) @ isr.Mask(
            numbers(6, 4, 3, kind=kind)
        )
    if name == "Blur":
        return isr.Blur(2, numbers(3, 3, kind=float), reference=False)
    if name == "Bicubic":
        return isr.Bicubic(2, reference=False)
    return isr.Convolution(numbers(3, 3, 4, kind=kind), border=name)


NAMES = ["Mask", "Fourier", "Mixed", "Scaled", "Composition", "Blur", "Bicubic"]
BORDERS = ["wrap", "symmetric", "edge", "constant", "reflect"]


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize("name", NAMES + BORDERS)
def test_adjoint_and_norm_are_those_of_the_matrix(name, kind, x64):
    if name == "reflect":
        kind = complex
    operator = make(name, kind)
    like = jax.ShapeDtypeStruct((1, *SHAPE[1:]), jnp.zeros(0, kind).dtype)
    assert isr.adjointness(operator, like, KEY) < 1e-13
    size = np.prod(like.shape)
    basis = jnp.eye(size, dtype=like.dtype).reshape(size, *like.shape)
    columns = jax.jit(jax.vmap(operator.forward))(basis).reshape(size, -1)
    y = operator.forward(basis[0])
    expected = (jnp.conj(columns) @ (y + 1).ravel()).reshape(like.shape)
    expected = expected if kind is complex else expected.real
    np.testing.assert_allclose(operator.adjoint(y + 1), expected, atol=1e-12)
    norm = isr.operator_norm(operator, like, KEY, steps=8000)
    if kind is float:  # over the real numbers, as images are
        columns = jnp.concatenate([columns.real, columns.imag], 1)
    np.testing.assert_allclose(norm, jnp.linalg.norm(columns, 2), rtol=1e-4)


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize("name", NAMES[:5] + BORDERS[:2])
def test_gradient_is_that_of_half_the_squared_error(name, kind, x64):
    operator = make(name, kind)
    v = jnp.asarray(numbers(*SHAPE, kind=kind))
    y = operator.forward(v) + 1
    half = lambda v: jnp.sum(jnp.abs(operator.forward(v) - y) ** 2) / 2  # noqa: E731
    expected = jnp.conj(jax.grad(half)(v))  # JAX's gradient is the conjugate of the direction
    factor = 0.3 if name == "Scaled" else 1.0
    np.testing.assert_allclose(operator.gradient(v, y), factor * expected, atol=1e-12)
    assert operator.initial(y).shape == v.shape


def test_a_wrong_adjoint_is_noticed(x64):
    class Wrong(isr.Mask):
        def adjoint(self, y):
            return self.mask * y  # without conj

    wrong = Wrong(numbers(6, 4, 1))
    assert isr.adjointness(wrong, jnp.zeros(SHAPE, complex), KEY) > 1e-3


def test_convolution_is_that_of_scipy(x64):
    from scipy import ndimage, signal

    kernel, x = numbers(3, 5, kind=float), numbers(1, 9, 8, 1, kind=float)
    for border, mode in (("wrap", "wrap"), ("symmetric", "reflect"), ("constant", "constant")):
        ours = isr.Convolution(kernel, border=border).forward(jnp.asarray(x))[0, :, :, 0]
        np.testing.assert_allclose(ours, ndimage.convolve(x[0, :, :, 0], kernel, mode=mode))
    zero = isr.Convolution(kernel, border="constant").forward(jnp.asarray(x))[0, :, :, 0]
    np.testing.assert_allclose(zero, signal.convolve2d(x[0, :, :, 0], kernel, "same"), atol=1e-12)
    with pytest.raises(ValueError, match="kernel must be"):
        isr.Convolution(numbers(2, 3, 3)).forward(jnp.asarray(x))


def test_inside_of_other_operators_the_physics_of_the_weights_is_known_too():
    config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=1, scale=2)
    weights = isr.init_weights(config, jax.random.key(0))
    y = jnp.full((1, 6, 6, 3), 100.0)
    plain = isr.reconstruct(weights, y, operator=isr.Bicubic(2), noise=1.0).image
    same = isr.reconstruct(weights, y, operator=isr.Scaled(isr.Bicubic(2), 1.0), noise=1.0).image
    np.testing.assert_allclose(same, plain, atol=1e-4)


def test_undersampled_mri_through_the_solver(x64):
    # Complex images from the operator to the gradient, which is that of differences.
    x = jnp.asarray(100 * numbers(1, 6, 4, 1))
    scanner = isr.Fourier(jnp.asarray(RNG.uniform(size=(6, 4, 1)) < 0.6, float))
    y = scanner.forward(x)
    shrink = jax.tree_util.Partial(lambda p, z, sigma, alpha: p * jnp.abs(z) * z / 1e3, 0.4)
    quiet = {"alpha": jnp.zeros(5), "w": jnp.zeros(5), "sigma": jnp.ones(1)}

    @jax.jit
    def loss(y, mask):
        solution = isr.unroll(y, isr.Fourier(mask), shrink, constraint=isr.Unconstrained(), **quiet)
        return jnp.mean(jnp.abs(solution.image - x) ** 2)

    gradient, by_mask = jax.jit(jax.grad(loss, (0, 1)))(y, scanner.mask)
    for direction in (1, 1j):
        move = direction * numbers(*y.shape, kind=float)
        slope = (loss(y + 1e-5 * move, scanner.mask) - loss(y - 1e-5 * move, scanner.mask)) / 2e-5
        np.testing.assert_allclose(jnp.sum(gradient * move).real, slope, rtol=1e-6)
    move = numbers(6, 4, 1, kind=float)
    slope = (loss(y, scanner.mask + 1e-5 * move) - loss(y, scanner.mask - 1e-5 * move)) / 2e-5
    np.testing.assert_allclose(jnp.vdot(by_mask, move), slope, rtol=1e-6)
