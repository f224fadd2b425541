import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_problem as problems
from conftest import photo
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.solver.backward import Random, Until

LENGTH = 7


def step(context, carry, x):
    """A smooth recurrence that is easy to differentiate by hand-made truncation."""
    new = jnp.tanh(context * carry + x)
    return new, new


CONTEXT, START = jnp.float32(0.9), jnp.float32(0.5)
XS = jnp.linspace(-0.5, 0.5, LENGTH)


def gradient(backward):
    def loss(context, xs):
        last, outputs = backward.run(step, context, START, xs)
        return last + (outputs**2).sum()

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(CONTEXT, XS)


def close(a, b):
    def tensor(a, b):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b) + 1e-7

    jax.tree.map(tensor, a, b)


def test_checkpointing_changes_no_gradient():
    close(gradient(isr.Checkpointed()), gradient(isr.Full()))


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 9))
def test_truncation_equals_the_definition(k1, k2):
    def loss(context, xs):
        # After every k1 steps, and after the last, go back k2 steps from a frozen state.
        states = [START]
        for x in XS:
            states.append(step(CONTEXT, states[-1], x)[0])
        total = 0.0
        for end in [*range(k1, LENGTH, k1), LENGTH]:
            state = states[max(end - k2, 0)]
            for k in range(max(end - k2, 0), end):
                state, _ = step(context, state, xs[k])
            total += state**2
        return total + state

    value, grads = gradient(isr.Truncated(k1, k2))
    close(grads, jax.jit(jax.grad(loss, (0, 1)))(CONTEXT, XS))
    close(value, gradient(isr.Full())[0])


def test_truncation_rejects_nonsense():
    with pytest.raises(ValueError, match="at least 1"):
        isr.Truncated(0, 5)


def tail(context, carry, x):
    return step(context, carry, x)[0], None


@settings(max_examples=10)
@given(st.integers(1, LENGTH), st.integers(1, 9))
def test_window_equals_the_definition(end, k2):
    def window(context, xs, end):
        return isr.Window(end, k2).run(tail, context, START, xs)[0]

    def loss(context, xs):
        state = START
        for k in range(end):
            state, _ = step(context if k >= end - k2 else CONTEXT, state, xs[k])
            if k < end - k2:
                state = jax.lax.stop_gradient(state)
        return state

    ours = jax.jit(jax.value_and_grad(window, (0, 1)))(CONTEXT, XS, end)  # end is traced
    close(ours, jax.jit(jax.value_and_grad(loss, (0, 1)))(CONTEXT, XS))


def test_window_beyond_the_iterations_ends_with_them():
    value, _ = isr.Window(99, 2).run(tail, CONTEXT, START, XS)
    close(value, isr.Full().run(tail, CONTEXT, START, XS)[0])


def test_window_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="k2 must be at least 1"):
        isr.Window(3, 0)
    with pytest.raises(ValueError, match="trace=False"):
        isr.Window(3).run(step, CONTEXT, START, XS)


def test_gradients_through_reconstruction_agree(small):
    lr = jnp.asarray(photo(8, 9, n=2), jnp.float32)

    def gradients(backward):
        def loss(weights):
            trace = not isinstance(backward, isr.Window)
            solution = isr.reconstruct(weights, lr, backward=backward, trace=trace)
            return (solution.iterates[-1] if trace else solution.image).mean()

        return jax.jit(jax.grad(loss))(small)

    full = gradients(isr.Full())
    close(gradients(isr.Checkpointed()), full)
    close(gradients(isr.Truncated(3, 3)), full)  # one window over all three iterations
    close(gradients(isr.Window(3, 3)), full)


def test_memory_of_checkpointing_hardly_depends_on_iterations(small):
    lr = jnp.zeros((1, 24, 24, 3))

    def memory(backward, iterations):
        def loss(weights):
            run = isr.reconstruct(weights, lr, backward=backward, iterations=iterations)
            return run.image.sum()

        compiled = jax.jit(jax.grad(loss)).lower(small).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(isr.Checkpointed(), 12) < 1.3 * memory(isr.Checkpointed(), 4)
    assert memory(isr.Full(), 12) > 2 * memory(isr.Full(), 4)


def gradients(backward, parts, trace=False):
    def loss(parts):
        solution = problems.solve(parts, backward, trace=trace)
        image = (solution.iterates * jnp.arange(1.0, 4)[:, None, None, None, None]).sum(0)
        return jnp.mean((image - 100) ** 2)

    def last(parts):
        return jnp.mean((problems.solve(parts, backward).image - 100) ** 2)

    return jax.jit(jax.grad(loss if trace else last))(parts)


WAYS = [
    isr.Full(unroll=True),
    isr.Checkpointed(every=2),
    isr.Truncated(3, 3),
    isr.Window(3, 3),
    isr.Window(9, 5, checkpoint=True),
    isr.Truncated(1, 3),
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_has_the_limit_of_full_for_every_input(way, x64):
    parts = problems.inputs()
    full = gradients(isr.Full(), parts)
    assert all(np.linalg.norm(leaf) > 1e-6 for leaf in jax.tree.leaves(full))
    problems.close(gradients(way, parts), full)


@pytest.mark.parametrize("way", [isr.Checkpointed(every=2), isr.Truncated(1, 3)], ids=str)
def test_a_loss_on_all_iterates_has_it_too(way, x64):
    parts = problems.inputs()
    problems.close(gradients(way, parts, True), gradients(isr.Full(), parts, True))


@pytest.mark.parametrize(
    "way", [isr.Checkpointed(every=2), isr.Window(2, 1, True), isr.Truncated(2, 1)], ids=str
)
def test_forward_mode_is_the_transpose_of_reverse_mode(way, x64):
    parts = problems.inputs()
    tangent = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size) + 1.0).reshape(a.shape), parts)
    run = lambda parts: problems.solve(parts, way).image  # noqa: E731

    @jax.jit
    def both(parts):
        image, moved = jax.jvp(run, (parts,), (tangent,))
        back = jax.vjp(run, parts)[1](image)[0]
        inner = lambda a, b: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))  # noqa: E731
        return inner(image, moved), inner(back, tangent)

    np.testing.assert_allclose(*both(parts), rtol=1e-9)


def test_truncation_outside_of_jit_with_weights_from_a_file():
    # NumPy's arrays of alpha and w cannot be indexed by a traced number.
    parts = jax.tree.map(np.asarray, problems.inputs())
    problems.close(
        problems.solve(parts, isr.Truncated(2, 2)).image,
        problems.solve(parts, isr.Full()).image,
        1e-6,
    )


def test_random_is_a_window_that_ends_at_k_with_likelihood_1_over_k():
    keys = jax.random.split(jax.random.key(0), 2000)
    ends = np.asarray(jax.jit(jax.vmap(lambda key: Random(2, key).window(3).end))(keys))
    expected = np.array([1, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3)
    np.testing.assert_allclose(np.bincount(ends, minlength=4)[1:] / 2000, expected, atol=0.03)
    parts = problems.inputs()
    way = Random(2, keys[0])
    problems.close(gradients(way, parts), gradients(isr.Window(int(ends[0]), 2), parts), 1e-6)
    counts = jax.vmap(lambda key: problems.solve(parts, Random(1, key)).iterations)(keys[:5])
    np.testing.assert_array_equal(counts, ends[:5])
    with pytest.raises(ValueError, match="k2 must be at least 1"):
        Random(0, keys[0])


def test_until_ends_where_nothing_changes():
    parts = problems.inputs(2) | {"prior": jnp.float32(0.1)}
    quick = problems.solve(parts, Until(1e-4), problems.pull)
    assert 2 < int(quick.iterations) < 100 and quick.converged.all()
    assert (
        float(quick.residual.max())
        <= 1e-4
        < float(
            problems.solve(
                parts, Until(0.0, int(quick.iterations) - 1), problems.pull
            ).residual.max()
        )
    )
    one_more = problems.solve(parts, Until(1e-4, 1), problems.pull)
    assert int(one_more.iterations) == 2 and not one_more.converged.any()  # the schedule has two
    moved = jax.jvp(
        lambda w: problems.solve(parts | {"prior": w}, Until(1e-6), problems.pull).image,
        (parts["prior"],),
        (jnp.float32(1),),
    )[1]
    assert np.isfinite(moved).all() and np.abs(moved).max() > 1
    with pytest.raises(ValueError, match="trace=False"):
        problems.solve(parts, Until(), problems.pull, trace=True)


class Damped:
    """A way of one's own: gradients shrink by a half in every iteration that they pass."""

    def run(self, step, context, carry, xs):
        def damped(carry, x):
            half = lambda a: a / 2 + jax.lax.stop_gradient(a) / 2 if a.ndim else a  # noqa: E731
            return step(context, jax.tree.map(half, carry), x)

        return jax.lax.scan(damped, carry, xs)


def test_a_way_of_ones_own(x64):
    parts = problems.inputs()
    np.testing.assert_allclose(
        problems.solve(parts, Damped()).image, problems.solve(parts, isr.Full()).image
    )
    initial = jax.jit(
        jax.grad(lambda x, way: problems.solve(parts, way, start=x).image.sum()), static_argnums=1
    )
    x = jnp.full((2, 10, 8, 3), 100.0)
    problems.close(initial(x, Damped()), initial(x, isr.Full()) / 8)


def test_checkpointing_rejects_nonsense():
    with pytest.raises(ValueError, match="every must be at least 1"):
        isr.Checkpointed(0)
