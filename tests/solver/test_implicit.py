"""Gradients at a fixed point, against unrolling and Optimistix; and where there is none."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_problem as problems
from conftest import photo

import isrrescnet_jax as isr
from isrrescnet_jax.solver.backward import at

pytest.importorskip("lineax")


def parts(weight=0.2):
    few = problems.inputs(2)
    return few | {"prior": jnp.asarray(weight), "sigma": jnp.asarray([1.0, 1.5])}


def objective(inputs, way, **options):
    image = problems.solve(inputs, way, problems.pull, **options).image
    return jnp.mean(jnp.abs(image - 90.0) ** 2)


def unrolled(inputs):
    """The same at its fixed point: 300 iterations with the last of the schedule."""
    longer = {name: at(inputs[name], jnp.arange(300)) for name in ("alpha", "w")}
    return objective(inputs | longer, isr.Full())


@pytest.fixture
def full(x64):
    gradient = jax.jit(jax.grad(unrolled))(parts())
    del gradient["alpha"], gradient["w"]  # there the fixed point does not depend on them
    return gradient


WAYS = [
    isr.Implicit(tolerance=1e-10),
    isr.Implicit(isr.Neumann(300), tolerance=1e-10),
    isr.Implicit(isr.Neumann(300, 1e-9), tolerance=1e-10),
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_gradients_with_respect_to_every_input_are_those_of_unrolling(way, full):
    ours = jax.jit(jax.grad(lambda inputs: objective(inputs, way)))(parts())
    assert not ours.pop("alpha").any() and np.abs(ours.pop("w")).max() < 1e-6
    problems.close(ours, full, 1e-7)


def test_forward_mode_and_vmap(full):
    way = isr.Implicit(tolerance=1e-10)

    def loss(weight):
        return objective(parts() | {"prior": weight}, way)

    slopes = jax.jit(jax.vmap(lambda w: jax.jvp(loss, (w,), (1.0,))[1]))(jnp.array([0.2, 0.3]))
    np.testing.assert_allclose(slopes[0], full["prior"], rtol=1e-7)
    gradients = jax.jit(jax.vmap(jax.grad(loss)))(jnp.array([0.2, 0.3]))
    np.testing.assert_allclose(gradients, slopes, rtol=1e-7)


def test_acceleration_finds_the_same_gradient(full):
    way = isr.Implicit(tolerance=1e-10)
    quiet = parts() | {"w": jnp.full(2, -jnp.inf)}
    plain = problems.solve(quiet, way, problems.pull)
    fast = problems.solve(quiet, way, problems.pull, accelerate=isr.Anderson(5))
    assert fast.iterations < plain.iterations
    gradient = jax.jit(
        jax.grad(lambda p: objective(quiet | {"prior": p}, way, accelerate=isr.Anderson(5)))
    )(quiet["prior"])
    np.testing.assert_allclose(gradient, full["prior"], rtol=1e-6)


def test_no_terms_are_jacobian_free(x64):
    # One iteration backwards from the fixed point.
    jacobian_free = isr.Implicit(isr.Neumann(0), tolerance=1e-12)
    last = isr.Window(400, 1)
    longer = {name: at(parts()[name], jnp.arange(400)) for name in ("alpha", "w")}
    ours = jax.grad(lambda p: objective(parts() | {"prior": p}, jacobian_free))(0.2)
    theirs = jax.grad(lambda p: objective(parts() | longer | {"prior": p}, last))(0.2)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_agrees_with_optimistix(x64):
    optimistix = pytest.importorskip("optimistix")
    y, sigma = parts()["lr"], parts()["sigma"]

    def iteration(weight):
        operator = isr.Blur(2, parts()["kernel"], reference=False)
        prior = jax.tree_util.Partial(problems.pull, weight)
        return isr.Iteration(y, operator, prior, sigma, parts()["step"])

    def theirs(weight):
        def step(x, weight):
            return iteration(weight).as_map(0.0, -jnp.inf)((x, x))[0]

        solver = optimistix.FixedPointIteration(rtol=1e-12, atol=1e-12)
        x = optimistix.fixed_point(step, solver, iteration(weight).start().image, weight)
        return jnp.mean((x.value - 90) ** 2)

    def ours(weight):
        return objective(parts() | {"prior": weight}, isr.Implicit(tolerance=1e-11))

    for a, b in zip(*(jax.jit(jax.value_and_grad(f))(0.2) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


def test_complex_images(x64):
    turn = jax.tree_util.Partial(lambda p, z, s, a: p * jnp.conj(z) + 0.2 * z, 0.1 + 0.05j)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 1)) * (1 + 2j))
    operator = isr.Fourier(jnp.ones((4, 4, 1)).at[1].set(0.5))

    def loss(y, way, count):
        quiet = {"alpha": jnp.zeros(count), "w": jnp.full(count, -jnp.inf), "sigma": jnp.ones(1)}
        quiet |= {"constraint": isr.Unconstrained(), "backward": way}
        return jnp.sum(jnp.abs(isr.unroll(y, operator, turn, **quiet).image + 1j) ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=(1, 2))
    problems.close(
        gradient(y, isr.Implicit(tolerance=1e-11), 1), gradient(y, isr.Full(), 200), 1e-8
    )


# --- where there is no fixed point ----------------------------------------------------------------


def test_without_a_fixed_point_there_is_an_error_with_the_residual(x64):
    wild = parts(-3.0)  # away from grey, until the constraint stops it
    way = isr.Implicit(steps=20, tolerance=1e-6)
    options = {"constraint": isr.Unconstrained()}
    for run in (
        lambda p: problems.solve(p, way, problems.pull, **options).image,
        jax.jit(lambda p: problems.solve(p, way, problems.pull, **options).image),
        jax.grad(lambda p: objective(p, way, **options)),
        # Nothing that is asked for depends on the image.
        jax.jit(jax.grad(lambda p: problems.solve(p, way, problems.pull, **options).image.sum())),
    ):
        with pytest.raises(Exception, match=r"no fixed point in 20 steps.* about 1e"):
            jax.block_until_ready(run(wild))


@pytest.mark.slow
def test_the_shipped_weights_have_no_fixed_point():
    # Iterated beyond the ten that were trained they leave the image again.
    weights, lr = isr.load_weights("x2_k10"), jnp.asarray(photo(8, 8), jnp.float32)
    with pytest.raises(RuntimeError, match="no fixed point in 60 steps"):
        isr.reconstruct(weights, lr, backward=isr.Implicit(steps=60)).image.block_until_ready()


def test_standing_still_is_no_fixed_point(x64):
    way = isr.Implicit(tolerance=1e-6)
    with pytest.raises(Exception, match="no fixed point|linear solve"):
        problems.solve(parts(), way, problems.pull, accelerate=isr.Relaxed(1e-9)).image.sum()


def test_without_errors_the_solution_says_so_and_gradients_are_nan(x64):
    wild, options = parts(-3.0), {"constraint": isr.Unconstrained()}
    way = isr.Implicit(steps=20, tolerance=1e-6, throw=False)
    solution = problems.solve(wild, way, problems.pull, **options)
    assert not solution.converged.any() and int(solution.iterations) == 20
    assert (solution.residual > 0.1).all() and np.isfinite(solution.image).all()
    gradient = jax.jit(jax.grad(lambda p: objective(p, way, **options)))(wild)
    assert np.isnan(gradient["lr"]).all() and np.isnan(gradient["prior"])


@pytest.mark.parametrize("throw", [True, False])
def test_a_linear_solve_that_fails_is_an_error_too(throw, x64):
    way = isr.Implicit(isr.Neumann(2, 1e-8), tolerance=1e-9, throw=throw)
    gradient = jax.jit(jax.grad(lambda p: objective(parts() | {"prior": p}, way)))
    if throw:
        with pytest.raises(Exception, match="linear solve of Implicit fails: .* about 1e"):
            jax.block_until_ready(gradient(0.2))
    else:
        assert np.isnan(gradient(0.2))


def unstable(b, x, _):
    return 2 * x + b, None


def test_a_series_that_diverges_is_noticed(x64):
    # x = 2 x + b has a fixed point that no iteration finds, unless it starts there.
    def at_rest(way):
        return jax.grad(lambda b: way.run(unstable, b, jnp.zeros(3), jnp.zeros(1))[0].sum())

    zeros = jnp.zeros(3)
    np.testing.assert_allclose(at_rest(isr.Implicit())(zeros), -1)
    np.testing.assert_allclose(at_rest(isr.Implicit(isr.Neumann(0)))(zeros), 1)  # as it is defined
    with pytest.raises(Exception, match="linear solve"):
        jax.block_until_ready(at_rest(isr.Implicit(isr.Neumann(5)))(zeros))


def test_what_cannot_be_had():
    with pytest.raises(ValueError, match="steps must be at least the 2"):
        problems.solve(parts(), isr.Implicit(steps=1), problems.pull)
    with pytest.raises(ValueError, match="Implicit keeps no iterates"):
        problems.solve(parts(), isr.Implicit(), problems.pull, trace=True)
    with pytest.raises(ValueError, match="terms must be"):
        isr.Neumann(-1)


def test_the_extra_is_imported_on_first_use():
    code = """
import sys
import isrrescnet_jax as isr
assert not {"lineax", "equinox", "optimistix"} & set(sys.modules)
sys.modules["lineax"] = None
try:
    isr.Implicit().run(None, None, None, None)
except ImportError as error:
    assert "isrrescnet-jax[implicit]" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gradients_are_nan_without_a_fixed_point_at_the_bounds_too():
    """Where images are clipped, 0 times NaN is 0 to JAX."""
    y = jnp.full((1, 4, 4, 1), 100.0)
    quiet = {"alpha": jnp.zeros(3), "w": jnp.full(3, -jnp.inf), "sigma": jnp.ones(1)}
    way = isr.Implicit(steps=7, throw=False)

    def loss(p, y):
        prior = jax.tree_util.Partial(lambda p, z, s, a: 1.1 * p * (2 * z - 255), p)  # to and fro
        solution = isr.unroll(y, isr.Mask(0 * y), prior, backward=way, start=y, **quiet)
        return jnp.sum(solution.image), solution.converged

    (value, converged), slopes = jax.value_and_grad(loss, (0, 1), has_aux=True)(1.0, y)
    assert np.isfinite(value) and not converged.any()
    assert all(np.isnan(slope).all() for slope in slopes)
    slope = jax.jvp(lambda p: loss(p, y)[0], (1.0,), (1.0,))[1]
    assert np.isnan(slope)


def expands(p, z, sigma, alpha):
    """x - N(x) leaves 50 by a fifth of the distance."""
    return -p * (z - 50)


@pytest.mark.parametrize("solver", [None, isr.Neumann(0), isr.Neumann(5)])
def test_what_grows_beyond_all_numbers_has_not_converged(solver):
    y, free = jnp.full((1, 6, 6, 1), 90.0), {"constraint": isr.Unconstrained()}
    quiet = {"alpha": jnp.zeros(1), "w": jnp.full(1, -jnp.inf), "sigma": jnp.ones(1), "start": y}

    def end(p, way):
        prior = jax.tree_util.Partial(expands, p)
        return isr.unroll(y, isr.Mask(0 * y), prior, backward=way, **quiet, **free)

    assert not end(0.2, isr.Until(steps=1000)).converged.any()
    with pytest.raises(Exception, match="no fixed point|linear solve"):
        jax.jit(jax.grad(lambda p: end(p, isr.Implicit(solver)).image.mean()))(0.2)


def test_a_drift_has_no_fixed_point_though_its_relative_change_gets_small():
    y = jnp.full((1, 2, 2, 1), 90.0)
    quiet = {"alpha": jnp.zeros(1), "w": jnp.full(1, -jnp.inf), "sigma": jnp.ones(1), "start": y}
    quiet |= {"constraint": isr.Unconstrained()}

    def end(p):
        prior = jax.tree_util.Partial(lambda p, z, s, a: 0 * z - p, p)
        way = isr.Implicit(isr.Neumann(5), steps=40_000)
        return isr.unroll(y, isr.Mask(0 * y), prior, backward=way, **quiet).image.mean()

    with pytest.raises(Exception, match="linear solve"):
        jax.grad(end)(0.5)


def test_deblurring_with_the_shipped_prior_and_momentum():
    y = jnp.asarray(photo(16, 16)[0][None], jnp.float32) / 2 + 60
    side = jnp.arange(-4, 5)
    kernel = jnp.exp(-0.5 * (side[:, None] ** 2 + side**2) / 1.6**2)
    blur = isr.Convolution(kernel / kernel.sum())
    quiet = {"alpha": jnp.zeros(1), "w": jnp.full(1, jnp.log(0.9)), "sigma": jnp.full(1, 1.5)}

    def end(y, solver):
        way = isr.Implicit(solver, steps=5000)
        return isr.unroll(y, blur, isr.ConvexRidge.shipped(), backward=way, **quiet).image.std()

    gradient = jax.grad(end)
    a, b = gradient(y, None), gradient(y, isr.Neumann(3000))
    assert np.linalg.norm(a - b) < 1e-2 * np.linalg.norm(b)
