"""Every instrument against a dense matrix, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_problem as problems

import isrrescnet_jax as isr
from isrrescnet_jax import analysis

KEY = jax.random.key(0)


@pytest.fixture
def one(x64):
    """One iteration on tiny images, where it is, and its Jacobian."""
    parts = problems.inputs()
    operator = isr.Blur(2, parts["kernel"], reference=False)
    prior = jax.tree_util.Partial(problems.wavy, (jnp.full(3, 5.0), jnp.zeros(3)))
    y = parts["lr"][:1, :3, :2]
    iteration = isr.Iteration(y, operator, prior, parts["sigma"][:1], parts["step"])
    x = iteration.start().image
    pair = (x, 0.9 * x)
    step = iteration.as_map(0.0, jnp.log(0.5))

    def flat(v):
        return jnp.concatenate([a.ravel() for a in step(tuple(v.reshape(2, *x.shape)))])

    jacobian = jax.jit(jax.jacobian(flat))(jnp.concatenate([a.ravel() for a in pair]))
    return iteration, step, pair, np.asarray(jacobian)


def test_spectral_norm_and_radius_are_those_of_the_jacobian(one):
    _, step, pair, jacobian = one
    norm = analysis.spectral_norm(step, pair, KEY, 1500)
    np.testing.assert_allclose(norm, np.linalg.norm(jacobian, 2), rtol=1e-4)
    radius = np.abs(np.linalg.eigvals(jacobian)).max()
    np.testing.assert_allclose(analysis.spectral_radius(step, pair, KEY, 144), radius, rtol=1e-6)
    np.testing.assert_allclose(analysis.spectral_radius(step, pair, KEY, 40), radius, rtol=0.05)
    assert radius < norm  # not normal


def test_radius_of_a_rotation_and_of_complex_maps(x64):
    # Power iteration never settles on a pair of complex eigenvalues.
    turn = jnp.array([[0.0, -1.1, 0], [1.1, 0.0, 0], [0, 0, 0.3]])
    np.testing.assert_allclose(
        analysis.spectral_radius(lambda x: turn @ x, jnp.ones(3), KEY), 1.1, rtol=1e-9
    )
    conj = lambda x: 0.7j * jnp.conj(x)  # noqa: E731 (not linear over the complex numbers)
    np.testing.assert_allclose(
        analysis.spectral_radius(conj, jnp.ones(3, complex), KEY), 0.7, rtol=1e-6
    )
    np.testing.assert_allclose(analysis.spectral_norm(conj, jnp.ones(2, complex), KEY), 0.7)


def test_adjoint_states_are_the_gradients_of_the_tail(x64):
    parts = problems.inputs() | {"w": jnp.full(3, -jnp.inf)}
    operator = isr.Blur(2, parts["kernel"], reference=False)
    prior = jax.tree_util.Partial(problems.wavy, parts["prior"])
    iteration = isr.Iteration(parts["lr"], operator, prior, parts["sigma"], parts["step"])
    loss = lambda x: jnp.mean((x - 100) ** 2)  # noqa: E731
    states = analysis.adjoint_states(iteration, loss, parts["alpha"], parts["w"])
    whole = problems.solve(parts, isr.Full(), trace=True)
    for k, x in enumerate([whole.initial, *whole.iterates]):
        rest = parts | {name: parts[name][k:] for name in ("alpha", "w")}
        tail = (
            loss if k == 3 else lambda x, r=rest: loss(problems.solve(r, isr.Full(), start=x).image)
        )
        problems.close(states[k], jax.grad(tail)(x))


def test_adjoint_of_the_initial_image_with_momentum(x64):
    parts = problems.inputs()
    operator = isr.Blur(2, parts["kernel"], reference=False)
    prior = jax.tree_util.Partial(problems.wavy, parts["prior"])
    iteration = isr.Iteration(parts["lr"], operator, prior, parts["sigma"], parts["step"])
    states = analysis.adjoint_states(iteration, jnp.sum, parts["alpha"], parts["w"])
    x = iteration.start().image
    expected = jax.grad(lambda x: problems.solve(parts, isr.Full(), start=x).image.sum())(x)
    problems.close(states[0], expected)


def test_adjoint_states_do_not_ask_how_the_state_came_about(one):
    iteration = one[0]
    state = iteration.start()
    schedule = jnp.zeros(2), jnp.full(2, -0.5)
    first, again = (
        analysis.adjoint_states(iteration, lambda x: jnp.sum(x**2), *schedule, start=start)
        for start in (state, jax.jit(lambda s: s)(state))
    )
    np.testing.assert_allclose(first, again, rtol=1e-12)


def test_lipschitz_along_a_trajectory(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
    ratios = analysis.lipschitz(lambda x: 3 * jnp.abs(x), x)
    moves = np.linalg.norm(np.diff(np.abs(x), axis=0), axis=1)
    expected = 3 * moves / np.linalg.norm(np.diff(x, axis=0), axis=1)
    np.testing.assert_allclose(ratios, expected)
    assert not analysis.lipschitz(jnp.sin, jnp.ones((3, 2))).any()


@pytest.mark.parametrize("kind", [float, complex])
def test_sensitivity_is_the_norm_of_the_jacobians_columns(kind, x64):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 4)) + (1j * rng.normal(size=(6, 4)) if kind is complex else 0)
    found = analysis.sensitivity(lambda y: matrix @ y, jnp.ones(4, kind), KEY, 20000)
    columns = np.linalg.norm(matrix, axis=0)
    np.testing.assert_allclose(found, columns * (2**0.5 if kind is complex else 1), rtol=0.03)


def test_a_gradient_comes_with_its_residuals(x64):
    pytest.importorskip("lineax")
    parts = problems.inputs(1) | {"prior": jnp.asarray(0.2), "sigma": jnp.ones(2)}
    quiet = parts | {"w": jnp.full(1, -jnp.inf)}

    def f(weight, x):
        prior = jax.tree_util.Partial(problems.pull, weight)
        operator = isr.Blur(2, parts["kernel"], reference=False)
        iteration = isr.Iteration(parts["lr"], operator, prior, parts["sigma"], parts["step"])
        return iteration.as_map(0.0, -jnp.inf)((x, x))[0]

    loss = lambda x: jnp.mean((x - 90) ** 2)  # noqa: E731
    way = isr.Implicit(tolerance=1e-11)
    solution = problems.solve(quiet, way, problems.pull)
    expected = jax.grad(
        lambda p: loss(problems.solve(quiet | {"prior": p}, way, problems.pull).image)
    )(parts["prior"])
    exact = analysis.fixed_point_gradient(f, parts["prior"], solution.image, loss, tolerance=1e-10)
    np.testing.assert_allclose(exact.gradient, expected, rtol=1e-8)
    assert exact.forward < 1e-10 and exact.backward < 1e-10
    rough = analysis.fixed_point_gradient(f, parts["prior"], solution.image, loss, isr.Neumann(1))
    assert 1e-3 < rough.backward < 1
    apart = analysis.fixed_point_gradient(f, parts["prior"], solution.initial, loss, isr.Neumann(9))
    assert apart.forward > 1e-3


def test_ways_are_compared_in_one_table(x64):
    parts = problems.inputs(6)

    def loss(inputs, way):
        return jnp.mean((problems.solve(inputs, way).image - 100) ** 2)

    ways = {
        "checkpointed": isr.Checkpointed(),
        "one": isr.Truncated(6, 1),
        "two": isr.Truncated(6, 2),
    }
    table = analysis.agreement(loss, parts, ways)
    exact, one, two = table
    assert exact.error < 1e-10 and np.isclose(exact.cosine, 1) and exact.seconds > 0
    assert one.error > two.error > 1e-4 and one.cosine < 1 and exact.bytes > 0
    gradients = [jax.grad(loss)(parts, way) for way in (isr.Truncated(6, 1), isr.Full())]
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(g)]) for g in gradients)
    np.testing.assert_allclose(one.error, np.linalg.norm(a - b) / np.linalg.norm(b), rtol=1e-9)
    np.testing.assert_allclose(one.cosine, a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    lines = str(table).splitlines()
    assert len(lines) == 4 and "cosine" in lines[0] and "checkpointed" in lines[1]


def test_without_momentum_an_iteration_is_a_map_of_one_image(one):
    iteration, _, (x, _), _ = one
    step = iteration.as_map(0.0)
    np.testing.assert_array_equal(step(x), iteration.as_map(0.0, -jnp.inf)((x, 2 * x))[0])
    pair = analysis.spectral_norm(iteration.as_map(0.0, -jnp.inf), (x, x), KEY, 300)
    assert pair > 1 and analysis.spectral_norm(step, x, KEY, 300) < pair
