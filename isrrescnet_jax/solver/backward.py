"""How gradients flow through the iterations: a choice of the caller, not a fork of the solver.

An object given as `backward=` (`protocols.Backward`) has one method,

    run(step, context, carry, xs) -> (carry, outputs)

with `step(context, carry, x) -> (carry, output)`, a pure function. Without differentiation it must
equal `lax.scan` over xs, or over the first of them (`Window`, `Until`, `Implicit`: and then as long
as they say). `context` holds all arrays that the step depends on (operator, prior, data), so that
an implementation with a derivative of its own sees every input explicitly; `carry` is a `State`,
`xs` are the schedule's (alpha, w). A way of one's own is a class with that method: as a frozen
dataclass and a pytree (`isr.pytree`) its programs are kept between calls.
CONTRIBUTING.md has one, which is a test.

Every way but `Until` works in reverse mode, and all in forward mode, under `jit` and `vmap`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int, Key

from ..representation import in_one_line
from ..trees import pytree

Step = Callable[[Any, Any, Any], tuple[Any, Any]]


def _static(default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


def length_of(xs: Any) -> int:
    """How many iterations the schedule is for."""
    return jax.tree.leaves(xs)[0].shape[0]


def at(xs: Any, index: Int[ArrayLike, "*k"]) -> Any:
    """The schedule of one iteration; the last one's beyond the end."""
    return jax.tree.map(lambda a: jnp.asarray(a)[jnp.minimum(index, len(a) - 1)], xs)


def select(condition: Bool[ArrayLike, ""], new: Any, old: Any) -> Any:
    """One of two states."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


@pytree
@dataclasses.dataclass(frozen=True)
class Full:
    """Plain reverse mode: the activations of all iterations are kept. Fastest, most memory.

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> def step(context, carry, x):
    ...     return context * carry + x, None
    >>> def last(c):  # from 1 in three steps: c^3 + c^2 + c + 1
    ...     return isr.Full().run(step, c, jnp.ones(()), jnp.ones(3))[0]
    >>> float(jax.grad(last)(2.0))
    17.0

    Attributes:
        unroll: how many iterations become one piece of program, or True for all of them: XLA then
            optimises across iterations, and takes that much longer to compile. A prior whose
            gradient is slow inside a loop, as convolutions other than `isr.conv` are on a CPU, is
            as fast as outside with True.
    """

    unroll: int | bool = _static(1)

    def __post_init__(self):
        if self.unroll is not True and self.unroll < 1:
            raise ValueError(f"unroll must be True or at least 1, not {self.unroll}")

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """`lax.scan`."""
        return lax.scan(functools.partial(step, context), carry, xs, unroll=self.unroll)


@pytree
@dataclasses.dataclass(frozen=True)
class Checkpointed:
    """Iterations are computed again on the way back, in blocks.

    Only the images between blocks are kept, and the activations of one block while it is gone
    through backwards, for one more forward pass of time. The gradient is that of `Full`. (Griewank
    & Walther, ACM TOMS 26(1), 2000.)

    Attributes:
        every: iterations in a block, static, at least 1. With 1 memory hardly depends on the
            number of iterations K, as images are small beside activations; sqrt(K) takes least
            where the prior keeps next to nothing.

    Example:
        >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
        >>> def step(context, carry, x):
        ...     return context * carry + x, None
        >>> def last(c):  # from 1 in three steps: c^3 + c^2 + c + 1
        ...     return isr.Checkpointed().run(step, c, jnp.ones(()), jnp.ones(3))[0]
        >>> float(jax.grad(last)(2.0))
        17.0
    """

    every: int = _static(1)

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every must be at least 1, not {self.every}")

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """`lax.scan` over rematerialised blocks, and a shorter block for what is left over."""
        length, every = length_of(xs), self.every
        whole = length // every * every

        # Inside a scan nothing can merge the two computations, and the barriers only cost.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def block(context, carry, xs):
            if every == 1:
                return step(context, carry, xs)
            return lax.scan(functools.partial(step, context), carry, xs)

        if every == 1:
            return lax.scan(functools.partial(block, context), carry, xs)
        xs = jax.tree.map(jnp.asarray, xs)
        blocks = jax.tree.map(lambda a: a[:whole].reshape(-1, every, *a.shape[1:]), xs)
        carry, outputs = lax.scan(functools.partial(block, context), carry, blocks)
        outputs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), outputs)
        if whole == length:
            return carry, outputs
        carry, rest = block(context, carry, jax.tree.map(lambda a: a[whole:], xs))
        return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, rest)


@pytree
@dataclasses.dataclass(frozen=True)
class Truncated:
    """Truncated backpropagation through time, TBPTT(k1, k2) (Williams & Peng, 1990).

    After every k1 iterations, and after the last, gradients go back through the k2 iterations
    before that point and no further; iterates between these points carry no gradient. The forward
    pass runs once without derivatives, then each window of k2 iterations again with them.

    A window that reaches the first iteration goes on through the initial image, so that
    Truncated(K, K), and with k1 = 1 and k2 = K every iterate, has the gradient of `Full`.

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> def step(context, carry, x):
    ...     return context * carry + x, None
    >>> def last(c):  # from 1 in three steps: c^3 + c^2 + c + 1
    ...     return isr.Truncated(3, 1).run(step, c, jnp.ones(()), jnp.ones(3))[0]
    >>> float(jax.grad(last)(2.0))
    7.0

    (Of c s + 1, where s = c^2 + c + 1 is taken as constant.)

    Attributes:
        k1: iterations from one point to the next, static, at least 1.
        k2: iterations that gradients go back, static, at least 1.
    """

    k1: int = _static()
    k2: int = _static()

    def __post_init__(self):
        if self.k1 < 1 or self.k2 < 1:
            raise ValueError(f"k1 and k2 must be at least 1, not {self.k1} and {self.k2}")

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """Forward sweep, then the windows that end at k1, 2 k1, ..., K."""
        xs = jax.tree.map(jnp.asarray, xs)  # NumPy's arrays take no traced index
        first, length = carry, length_of(xs)
        frozen_context, carry, frozen_xs = lax.stop_gradient((context, carry, xs))

        def sweep(carry, x):
            after, output = step(frozen_context, carry, x)
            return after, (carry, output)

        _, (carries, outputs) = lax.scan(sweep, carry, frozen_xs)
        carries, outputs = lax.stop_gradient((carries, outputs))
        window = min(self.k2, length)
        ends = jnp.asarray([*range(self.k1, length, self.k1), length])
        starts = jnp.maximum(ends - window, 0)
        remat = jax.checkpoint(step, prevent_cse=False)

        def rerun(bounds):
            start, end = bounds

            def advance(state, offset):
                index = start + offset
                # A window cut short by the first iteration stands still at its end.
                return select(index < end, remat(context, state[0], at(xs, index)), state), None

            before, output = jax.tree.map(lambda a: a[start], (carries, outputs))
            state, _ = lax.scan(
                advance, (select(start == 0, first, before), output), jnp.arange(window)
            )
            return state

        last_carries, last_outputs = lax.map(rerun, (starts, ends))
        outputs = jax.tree.map(lambda a, b: a.at[ends - 1].set(b), outputs, last_outputs)
        return jax.tree.map(lambda a: a[-1], last_carries), outputs


@pytree
@dataclasses.dataclass(frozen=True)
class Window:
    """Only the first `end` iterations are run, and gradients go through the last k2 of those.

    The gradient of an image part of the way, at the cost of a forward pass and of k2 iterations
    backwards; `end` may be traced and drawn at random, so that one program trains every iterate.
    (With k2 = 1 and random ends: "progressive loss", Bansal et al., "End-to-end algorithm synthesis
    with recurrent networks", NeurIPS 2022; at a fixed point: Jacobian-free backpropagation, Fung
    et al., AAAI 2022.)

    A window that reaches the first iteration goes on through the initial image: Window(K, K) has
    the gradient of `Full`.

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> def step(context, carry, x):
    ...     return context * carry + x, None
    >>> def last(c):  # from 1 in two of three steps: c^2 + c + 1
    ...     return isr.Window(end=2, k2=2).run(step, c, jnp.ones(()), jnp.ones(3))[0]
    >>> float(jax.grad(last)(2.0))
    5.0

    Attributes:
        end: clipped to lie from 1 to the number of iterations.
        k2: static, at least 1.
        checkpoint: compute each iteration of the window again on the way back; static.

    Raises:
        ValueError: on use, with `trace` or `observe`: it keeps no iterates.
    """

    end: Int[ArrayLike, "..."]  # of stacked windows more than one number
    k2: int = _static(1)
    checkpoint: bool = _static(False)

    __repr__ = in_one_line

    def __post_init__(self):
        if self.k2 < 1:
            raise ValueError(f"k2 must be at least 1, not {self.k2}")

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """A loop without derivatives, then `lax.scan`; keeps no iterates."""
        first = carry
        frozen_context, carry, frozen_xs = lax.stop_gradient((context, carry, xs))
        length = length_of(xs)
        end = jnp.clip(self.end, 1, length)
        window = min(self.k2, length)
        start = jnp.maximum(end - window, 0)

        def forward(index, carry):
            return _without_output(self, step, frozen_context, carry, at(frozen_xs, index))

        carry = lax.stop_gradient(lax.fori_loop(0, start, forward, carry))
        last = jax.checkpoint(step, prevent_cse=False) if self.checkpoint else step

        def advance(carry, offset):
            index = start + offset
            after, _ = last(context, carry, at(xs, index))
            # A window cut short by the first iteration stands still at its end.
            return select(index < end, after, carry), None

        return lax.scan(advance, select(start == 0, first, carry), jnp.arange(window))


@pytree
@dataclasses.dataclass(frozen=True)
class Random:
    """`Window` with an end that is drawn at random: iteration k with a likelihood of 1 / k.

    The first iterations, through which all others pass, are trained most, and those that are seldom
    trained are those that cost most: the expected number is K / (1 + 1/2 + ... + 1/K).

    Attributes:
        k2: iterations through which gradients go, static, at least 1.
        key: of the draw; a new one for each call.

    Raises:
        ValueError: on use, with `trace` or `observe`: it keeps no iterates.

    Example:
        >>> import isrrescnet_jax as isr, jax
        >>> int(isr.Random(2, jax.random.key(0)).window(10).end) in range(1, 11)
        True
    """

    k2: int = dataclasses.field(metadata={"static": True})
    key: Key[Array, "..."]  # of stacked draws more than one

    def __post_init__(self):
        if self.k2 < 1:
            raise ValueError(f"k2 must be at least 1, not {self.k2}")

    def window(self, length: int) -> Window:
        """The window that is drawn among `length` iterations."""
        likelihood = -jnp.log(jnp.arange(1, length + 1, dtype="float32"))
        return Window(1 + jax.random.categorical(self.key, likelihood), self.k2)

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """Of the window."""
        return self.window(length_of(xs)).run(step, context, carry, xs)


@pytree
@dataclasses.dataclass(frozen=True)
class Until:
    """Iterate until little changes: a loop of as many iterations as it takes, forward mode only.

    All iterations of the schedule are run; then the last (alpha, w) is repeated until the relative
    change of every image, |x_k - x_(k-1)| / |x_k|, is at most `tolerance`, but no more than `steps`
    in all. JAX cannot go backwards through such a loop: `Implicit` can.

    Attributes:
        tolerance: of the change; may be traced.
        steps: iterations in all, at most; never fewer than the schedule has.

    Raises:
        ValueError: on use, with `trace` or `observe`: it keeps no iterates.

    Example:
        >>> import isrrescnet_jax as isr
        >>> isr.Until(tolerance=1e-5).steps
        1000
    """

    tolerance: float | Array = 1e-4
    steps: int | Array = 1000

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """`lax.while_loop`."""
        (_, carry, _) = self.iterate(self, step, context, carry, xs)
        return carry, None

    def iterate(
        self, way: Any, step: Step, context: Any, carry: Any, xs: Any
    ) -> tuple[Array, Any, Array]:
        """(iterations, carry, residual), for a way that messages name."""
        length = length_of(xs)

        def going(loop):
            index, _, residual = loop
            return (index < length) | ((residual > self.tolerance) & (index < self.steps))

        def advance(loop):
            index, carry, _ = loop
            after = _without_output(way, step, context, carry, at(xs, index))
            return index + 1, after, change(after, carry)

        start = jnp.full_like(change(carry, carry), jnp.inf)
        return lax.while_loop(going, advance, (jnp.int32(0), carry, start))


def change(new: Any, old: Any) -> Array:
    """|new - old| / |new| of the image that changes most, or of any pytree of numbers."""
    if hasattr(new, "residual"):
        return jnp.max(new.residual())
    pairs = [
        (jnp.ravel(a - b), jnp.ravel(a))
        for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
        if jnp.issubdtype(jnp.result_type(a), jnp.inexact)
    ]
    difference, size = (
        jnp.linalg.norm(jnp.concatenate(parts)) for parts in zip(*pairs, strict=True)
    )
    relative = difference / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    return jnp.where(jnp.isinf(size), jnp.inf, relative)


def _without_output(way: Any, step: Step, context: Any, carry: Any, x: Any) -> Any:
    after, output = step(context, carry, x)
    if jax.tree.leaves(output):
        name = type(way).__name__
        raise ValueError(f"{name} keeps no iterates: call it with trace=False and observe=None")
    return after
