"""The iteration as a value: stepped by hand, observed, continued, constrained, accelerated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_problem as problems
from conftest import photo

import isrrescnet_jax as isr


def test_steps_by_hand_are_the_loop(x64):
    parts = problems.inputs()
    operator = isr.Blur(2, parts["kernel"], reference=False)
    prior = jax.tree_util.Partial(problems.wavy, parts["prior"])
    iteration = isr.Iteration(parts["lr"], operator, prior, parts["sigma"], parts["step"])
    state, images = iteration.start(), []
    assert np.isinf(state.residual()).all()
    for alpha, w in zip(parts["alpha"], parts["w"], strict=True):
        pair = iteration.as_map(alpha, w)((state.image, state.previous))
        state = jax.jit(type(iteration).step)(iteration, state, alpha, w)
        problems.close((state.image, state.previous), pair)
        images.append(state.image)
    solution = problems.solve(parts, isr.Full(), trace=True)
    problems.close(solution.iterates, jnp.stack(images))
    assert int(state.count) == int(solution.iterations) == 3
    change = np.linalg.norm((images[2] - images[1]).reshape(2, -1), axis=1)
    expected = change / np.linalg.norm(images[2].reshape(2, -1), axis=1)
    np.testing.assert_allclose(solution.residual, expected)
    np.testing.assert_array_equal(solution.converged, expected <= 1e-4)


def test_observations_are_stacked_without_the_iterates():
    parts = problems.inputs()
    truth = jnp.full((2, 10, 8, 3), 90.0)
    see = jax.tree_util.Partial(lambda truth, x: {"mse": jnp.mean((x - truth) ** 2)}, truth)
    for way in (isr.Full(), isr.Checkpointed(2), isr.Truncated(2, 1)):
        traced = problems.solve(parts, way, trace=True)
        seen = problems.solve(parts, way, observe=see)
        expected = jnp.mean((traced.iterates - truth) ** 2, (1, 2, 3, 4))
        np.testing.assert_allclose(seen.observed["mse"], expected, rtol=1e-5)
        assert seen.iterates is None and traced.observed is None
    gradient = jax.grad(
        lambda y: problems.solve(parts | {"lr": y}, isr.Full(), observe=see).observed["mse"].sum()
    )(parts["lr"])
    assert np.isfinite(gradient).all() and gradient.any()
    with pytest.raises(ValueError, match="observe=None"):
        problems.solve(parts, isr.Window(2), observe=jnp.mean)


def test_solutions_go_on_from_their_state():
    config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=4, scale=2)
    weights = isr.init_weights(config, jax.random.key(0))
    prior = jax.tree_util.Partial(problems.pull, jnp.float32(0.1))
    lr = jnp.asarray(photo(8, 8), jnp.float32)
    run = lambda **how: isr.reconstruct(weights, lr, prior=prior, noise=2.0, **how)  # noqa: E731
    whole, first = run(iterations=6), run(iterations=3)
    second = run(iterations=3, start=first.state)
    np.testing.assert_allclose(second.image, whole.image, atol=1e-4)
    assert int(second.state.count) == 6 and int(second.iterations) == 3
    again = run(iterations=3, start=first.initial)  # an image starts anew
    np.testing.assert_allclose(again.image, first.image, atol=1e-4)


@pytest.mark.parametrize(
    "constraint, low, high",
    [(isr.Box(), 0, 255), (isr.Box(50.0, 90.0), 50, 90), (isr.NonNegative(), 0, None)],
)
def test_constraints_hold_for_every_iterate(constraint, low, high):
    parts = problems.inputs() | {"prior": (jnp.full(3, 90.0), jnp.zeros(3))}
    free = problems.solve(parts, isr.Full(), trace=True, constraint=isr.Unconstrained()).iterates
    assert free.min() < low and free.max() > 255
    for accelerate in (isr.Plain(), isr.Relaxed(1.5), isr.Anderson(2)):
        held = problems.solve(
            parts, isr.Full(), trace=True, constraint=constraint, accelerate=accelerate
        ).iterates
        assert held.min() >= low and (high is None or held.max() <= high)


def deblurring(**how):
    """A problem with a known solution: Tikhonov, (A^H A + weight) x = A^H y + 128 weight."""
    with jax.enable_x64(True):
        offset = jnp.arange(5.0) - 2
        kernel = jnp.exp(-(offset**2 + offset[:, None] ** 2) / 4)
        operator = isr.Convolution(kernel / kernel.sum())
        y = operator.forward(jnp.asarray(photo(12, 12, n=2), float))
        prior = jax.tree_util.Partial(problems.pull, jnp.float64(0.01))
        quiet = {"alpha": jnp.zeros(1), "w": jnp.full(1, -jnp.inf), "sigma": jnp.ones(2)}
        quiet |= {"step": 0.99, "constraint": isr.Unconstrained()}
        found = isr.unroll(y, operator, prior, **quiet | how)
        # `pull` acts on z = x - step gradient: the fixed point, one Fourier coefficient at a time.
        transfer = jnp.fft.fft2(
            operator.forward(jnp.zeros((1, 12, 12, 1)).at[0, 0, 0, 0].set(1.0)), axes=(1, 2)
        )
        power, hat = jnp.abs(transfer) ** 2, jnp.fft.fft2(y - 128, axes=(1, 2))
        ratio = 0.99 * 0.99 * jnp.conj(transfer) / (1 - 0.99 * (1 - 0.99 * power))
        return found, 128 + jnp.fft.ifft2(ratio * hat, axes=(1, 2)).real


def test_anderson_acceleration_reaches_the_solution_in_fewer_iterations():
    plain, exact = deblurring(backward=isr.Until(1e-5))
    fast, _ = deblurring(backward=isr.Until(1e-5), accelerate=isr.Anderson(5))
    assert plain.converged.all() and fast.converged.all()
    assert 2 * int(fast.iterations) < int(plain.iterations) < 1000
    error = lambda x: np.linalg.norm(x.image - exact) / np.linalg.norm(exact)  # noqa: E731
    assert error(fast) < 1e-3 and error(fast) < error(plain)
    far, _ = deblurring(backward=isr.Until(1e-12, 5000), accelerate=isr.Anderson(5))
    assert error(far) < 1e-9


def test_anderson_of_one_iterate_is_the_plain_iteration_and_images_are_independent():
    plain, _ = deblurring(backward=isr.Until(0.0, 7))
    same, _ = deblurring(backward=isr.Until(0.0, 7), accelerate=isr.Anderson(1))
    np.testing.assert_allclose(same.image, plain.image, rtol=1e-12)
    with jax.enable_x64(True):
        x, new = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 3, 1)))
        way = isr.Anderson(3)
        memory, _ = way.mix(way.start(x), x, new)
        together = way.mix(memory, new, x * new)[1]
        alone, _ = way.mix(way.start(x[1:]), x[1:], new[1:])
        np.testing.assert_allclose(way.mix(alone, new[1:], (x * new)[1:])[1], together[1:])
    with pytest.raises(ValueError, match="memory must be"):
        isr.Anderson(0)


def test_gmres_in_disguise():
    # On a linear map in m dimensions m + 1 iterates are enough. (Walker & Ni, 2011.)
    with jax.enable_x64(True):
        matrix = jnp.diag(jnp.array([0.9, 0.5, -0.8]))
        way, x = isr.Anderson(5, ridge=0.0), jnp.zeros((1, 3))
        memory = way.start(x)
        for _ in range(5):
            memory, x = way.mix(memory, x, x @ matrix + 1)
        np.testing.assert_allclose(x[0], 1 / (1 - jnp.diagonal(matrix)), rtol=1e-6)


def test_relaxation_makes_a_reflection_converge():
    turned = lambda z, s, a: 2 * z - 100.0  # noqa: E731 (x -> 100 - x: back and forth for ever)
    y = jnp.full((1, 4, 4, 1), 10.0)
    blind = isr.Mask(jnp.zeros((4, 4, 1)))
    quiet = {"alpha": jnp.zeros(50), "w": jnp.full(50, -jnp.inf), "sigma": jnp.ones(1)}
    back_and_forth = isr.unroll(y, blind, turned, start=y, **quiet)
    still = isr.unroll(y, blind, turned, start=y, accelerate=isr.Relaxed(0.6), **quiet)
    assert not back_and_forth.converged.any() and still.converged.all()
    np.testing.assert_allclose(still.image, 50, rtol=1e-4)


@pytest.mark.parametrize("before", [isr.Plain(), isr.Relaxed(0.5), isr.Anderson(3)])
@pytest.mark.parametrize("after", [isr.Plain(), isr.Relaxed(0.5), isr.Anderson(2)])
def test_a_state_goes_on_with_any_acceleration(before, after):
    parts = problems.inputs()
    first = problems.solve(parts, isr.Full(), accelerate=before)
    go_on = jax.jit(lambda state: problems.solve(parts, isr.Full(), accelerate=after, start=state))
    problems.close(go_on(first.state).initial, first.image)
    if before is not after:  # what the other one remembers is forgotten
        forgetful = isr.State(first.state.image, first.state.previous, first.state.count)
        problems.close(go_on(first.state).image, go_on(forgetful).image)
