"""Which types images may have, and what programs are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_problem as problems
from conftest import photo

import isrrescnet_jax as isr
from experiments.harness import compiled_programs
from isrrescnet_jax.solver.constraint import NonNegative, Unconstrained
from isrrescnet_jax.solver.state import inexact


@pytest.fixture(scope="module")
def tiny():
    config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    return isr.init_weights(config, jax.random.key(0))


@pytest.mark.parametrize("name", ["uint8", "int32", "bool", "float16", "bfloat16"])
def test_half_precision_and_integers_are_computed_in_float32(name, tiny):
    lr = jnp.asarray(photo(8, 8)).astype(name)
    assert inexact(lr).dtype == jnp.float32
    if name != "bool":
        image = isr.reconstruct(tiny, lr, noise=3.0).image
        expected = isr.reconstruct(tiny, lr.astype(jnp.float32), noise=3.0).image
        assert image.dtype == jnp.float32
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("name", ["float32", "float64", "complex64", "complex128"])
def test_other_types_stay(name, x64):
    parts = problems.inputs()
    parts["lr"] = parts["lr"].astype(name)
    solution = problems.solve(parts, isr.Full(), constraint=Unconstrained())
    assert solution.image.dtype == parts["lr"].dtype
    assert solution.sigma.dtype == parts["lr"].real.dtype


class Phase:
    """Real images, seen through a phase: y = exp(i p) x."""

    def initial(self, y):
        return y.real

    def gradient(self, v, y):
        return ((v * jnp.exp(1j) - y) * jnp.exp(-1j)).real


def test_complex_observations_of_real_images(tiny):
    x = jnp.asarray(photo(8, 8), jnp.float32)
    solution = isr.reconstruct(tiny, x * jnp.exp(1j), operator=Phase(), noise=0.0)
    np.testing.assert_allclose(solution.image, x, rtol=1e-4)
    estimated = isr.reconstruct(tiny, x * (1 + 1j), operator=Phase()).sigma
    np.testing.assert_allclose(estimated, isr.noise_level(x), rtol=1e-5)


def test_complex_images_need_a_constraint_and_a_prior_that_take_them(tiny, unchecked):
    lr = jnp.ones((1, 8, 8, 3), jnp.complex64)
    with pytest.raises(ValueError, match="give prior="):
        isr.reconstruct(tiny, lr, noise=1.0)
    parts = problems.inputs()
    parts["lr"] = parts["lr"] * (1 + 1j)
    for constraint in (isr.solver.constraint.Box(), NonNegative()):
        with pytest.raises(ValueError, match="give constraint=Unconstrained"):
            problems.solve(parts, isr.Full(), constraint=constraint)
    with pytest.raises(ValueError, match="make a real image complex"):
        problems.solve(
            problems.inputs(), isr.Full(), lambda p, z, s, a: 1j * z, constraint=Unconstrained()
        )


def test_the_gradient_of_complex_images_is_that_of_differences(x64):
    parts = problems.inputs()
    parts["lr"] = parts["lr"] * (1 + 0.5j)

    @jax.jit
    def loss(lr):
        image = problems.solve(parts | {"lr": lr}, isr.Full(), constraint=Unconstrained()).image
        return jnp.mean(jnp.abs(image - 100) ** 2)

    gradient = jax.jit(jax.grad(loss))(parts["lr"])
    for direction in (1.0, 1j):
        move = direction * jnp.cos(jnp.arange(gradient.size)).reshape(gradient.shape)
        difference = (loss(parts["lr"] + 1e-4 * move) - loss(parts["lr"] - 1e-4 * move)) / 2e-4
        # JAX's gradient of a real function is d/dRe - i d/dIm.
        np.testing.assert_allclose(jnp.sum(gradient * move).real, difference, rtol=1e-6)


def test_the_gradient_through_the_noise_level_is_offered(tiny, x64):
    lr = jnp.asarray(photo(8, 8), jnp.float64)
    sigma = lambda y: isr.noise_level(y, differentiable=True).sum()  # noqa: E731
    move = jnp.cos(jnp.arange(lr.size)).reshape(lr.shape)
    difference = (sigma(lr + 1e-5 * move) - sigma(lr - 1e-5 * move)) / 2e-5
    np.testing.assert_allclose(jnp.vdot(jax.grad(sigma)(lr), move), difference, rtol=1e-6)
    assert abs(difference) > 1e-3
    assert not jax.grad(lambda y: isr.noise_level(y).sum())(lr).any()
    # reconstruct's gradient, with sigma a function of lr, is the sum of both paths.
    parts = problems.inputs()

    def loss(lr, sigma):
        return problems.solve(parts | {"lr": lr, "sigma": sigma}, isr.Full()).image.mean()

    y = parts["lr"]
    level = lambda y: isr.noise_level(y, differentiable=True)  # noqa: E731
    whole = jax.grad(lambda y: loss(y, level(y)))(y)
    direct, at_sigma = jax.grad(loss, (0, 1))(y, level(y))
    problems.close(whole, direct + jax.vjp(level, y)[1](at_sigma)[0])


def test_an_eager_gradient_is_compiled_once(tiny):
    lr = jnp.asarray(photo(8, 8), jnp.float32)
    gradient = jax.grad(lambda w, y: isr.reconstruct(w, y, noise=2.0).image.mean())
    other = lr + 1
    gradient(tiny, lr)
    with compiled_programs() as compiled:
        gradient(tiny, other)
    assert not compiled


def test_a_closure_that_changes_is_computed_anew():
    parts, weight = problems.inputs(), 0.0

    def prior(z, sigma, alpha):
        return weight * z

    options = {name: parts[name] for name in ("alpha", "w", "sigma")}
    operator = isr.Bilinear(2, reference=False)
    for way in (isr.Full(), isr.Checkpointed(), isr.Truncated(1, 1)):
        weight = 0.0
        first = isr.unroll(parts["lr"], operator, prior, backward=way, **options).image
        weight = 0.5
        second = isr.unroll(parts["lr"], operator, prior, backward=way, **options).image
        assert np.abs(first - second).max() > 1


def test_gradients_reach_what_a_closure_captures(x64):
    parts = problems.inputs() | {"prior": jnp.asarray(0.1)}
    options = {name: parts[name] for name in ("alpha", "w", "sigma")}
    operator = isr.Blur(2, parts["kernel"], reference=False)

    def loss(weight, way, closure):
        prior = jax.tree_util.Partial(problems.pull, weight)
        if closure:
            prior = lambda z, s, a: problems.pull(weight, z, s, a)  # noqa: E731
        return isr.unroll(parts["lr"], operator, prior, backward=way, **options).image.mean()

    for way in (isr.Full(), isr.Checkpointed()):
        gradients = [jax.grad(loss)(parts["prior"], way, closure) for closure in (False, True)]
        np.testing.assert_allclose(*gradients, rtol=1e-12)
        assert gradients[0]


def test_loaded_weights_are_jax_arrays():
    weights = isr.load_weights("x2")
    assert weights.params["alpha"].at[0].set(1.0)[0] == 1


def test_blurs_are_compared_by_value():
    one, other = isr.Blur(2, jnp.ones((3, 3))), isr.Blur(2, np.ones((3, 3)))
    assert one == other and one != isr.Blur(2, jnp.zeros((3, 3))) and one != isr.Blur(3, one.kernel)
    assert one != isr.Bicubic(2)
    assert jax.jit(lambda k: isr.Blur(2, k) == one)(one.kernel) == False  # noqa: E712


def test_programs_with_weights_and_solutions_can_be_exported(tiny):
    lr = jnp.asarray(photo(8, 8), jnp.float32)
    run = jax.jit(lambda weights, lr: isr.reconstruct(weights, lr, noise=2.0))
    data = jax.export.export(run)(tiny, lr).serialize()
    again = jax.export.deserialize(data).call(tiny, lr)
    assert isinstance(again, isr.Solution)
    np.testing.assert_allclose(again.image, run(tiny, lr).image, atol=1e-3)
    assert again.iterates is None and int(again.iterations) == 2
