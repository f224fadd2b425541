import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr

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
