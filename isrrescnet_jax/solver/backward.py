"""How gradients flow through the iterations: a choice of the caller, not a fork of the solver.

An object given as `backward=` (`protocols.Backward`) has one method,

    run(step, context, carry, xs) -> (carry, outputs)

with `step(context, carry, x) -> (carry, output)`, a pure function. Without differentiation it must
equal `lax.scan` over xs (`Window`: over the first of them). `context` holds all that the step
depends on (operator, prior, data), so that an implementation with a derivative of its own
(implicit, say) sees every input explicitly.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Int

from ..representation import in_one_line

Step = Callable[[Any, Any, Any], tuple[Any, Any]]


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

    unroll: int | bool = 1

    def __post_init__(self):
        if self.unroll is not True and self.unroll < 1:
            raise ValueError(f"unroll must be True or at least 1, not {self.unroll}")

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """`lax.scan`."""
        return lax.scan(functools.partial(step, context), carry, xs, unroll=self.unroll)


@dataclasses.dataclass(frozen=True)
class Checkpointed:
    """Each iteration is computed again on the way back.

    Only the images between iterations are kept, so that memory hardly depends on their number, for
    one more forward pass of time. The gradient is that of `Full`. (Griewank & Walther, ACM
    Transactions on Mathematical Software 26(1), 2000.)

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> def step(context, carry, x):
    ...     return context * carry + x, None
    >>> def last(c):  # from 1 in three steps: c^3 + c^2 + c + 1
    ...     return isr.Checkpointed().run(step, c, jnp.ones(()), jnp.ones(3))[0]
    >>> float(jax.grad(last)(2.0))
    17.0
    """

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """`lax.scan` over a rematerialised step."""
        # Inside a scan nothing can merge the two computations, and the barriers only cost.
        step = jax.checkpoint(step, prevent_cse=False)
        return lax.scan(functools.partial(step, context), carry, xs)


@dataclasses.dataclass(frozen=True)
class Truncated:
    """Truncated backpropagation through time, TBPTT(k1, k2) (Williams & Peng, 1990).

    After every k1 iterations, and after the last, gradients go back through the k2 iterations
    before that point and no further; iterates between these points carry no gradient. The forward
    pass runs once without derivatives, then each window of k2 iterations again with them.

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> def step(context, carry, x):
    ...     return context * carry + x, None
    >>> def last(c):  # from 1 in three steps: c^3 + c^2 + c + 1
    ...     return isr.Truncated(3, 1).run(step, c, jnp.ones(()), jnp.ones(3))[0]
    >>> float(jax.grad(last)(2.0))
    7.0

    (Of c s + 1, where s = c^2 + c + 1 is taken as constant.)

    Attributes:
        k1: iterations from one point to the next, at least 1.
        k2: iterations that gradients go back, at least 1.
    """

    k1: int
    k2: int

    def __post_init__(self):
        if self.k1 < 1 or self.k2 < 1:
            raise ValueError(f"k1 and k2 must be at least 1, not {self.k1} and {self.k2}")

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """Forward sweep, then the windows that end at k1, 2 k1, ..., K."""
        length = jax.tree.leaves(xs)[0].shape[0]
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
                x = jax.tree.map(lambda a: a[jnp.minimum(index, length - 1)], xs)
                new = remat(context, state[0], x)
                # A window cut short by the first iteration stands still at its end.
                return jax.tree.map(lambda a, b: jnp.where(index < end, a, b), new, state), None

            first = jax.tree.map(lambda a: a[start], (carries, outputs))
            state, _ = lax.scan(advance, first, jnp.arange(window))
            return state

        last_carries, last_outputs = lax.map(rerun, (starts, ends))
        outputs = jax.tree.map(lambda a, b: a.at[ends - 1].set(b), outputs, last_outputs)
        return jax.tree.map(lambda a: a[-1], last_carries), outputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """Only the first `end` iterations are run, and gradients go through the last k2 of those.

    The gradient of an image part of the way, at the cost of a forward pass and of k2 iterations
    backwards; `end` may be traced and drawn at random, so that one program trains every iterate.
    (With k2 = 1 and random ends: "progressive loss", Bansal et al., "End-to-end algorithm synthesis
    with recurrent networks", NeurIPS 2022; at a fixed point: Jacobian-free backpropagation, Fung
    et al., AAAI 2022.)

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
    """

    end: Int[ArrayLike, ""]
    k2: int = dataclasses.field(default=1, metadata={"static": True})

    __repr__ = in_one_line

    def __post_init__(self):
        if self.k2 < 1:
            raise ValueError(f"k2 must be at least 1, not {self.k2}")

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """A loop without derivatives, then `lax.scan`; keeps no iterates."""
        frozen_context, carry, frozen_xs = lax.stop_gradient((context, carry, xs))
        length = jax.tree.leaves(xs)[0].shape[0]
        end = jnp.clip(self.end, 1, length)
        window = min(self.k2, length)
        start = jnp.maximum(end - window, 0)

        def at(xs, index):
            return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, index, keepdims=False), xs)

        def forward(index, carry):
            after, output = step(frozen_context, carry, at(frozen_xs, index))
            if output is not None:
                raise ValueError("Window keeps no iterates: call it with trace=False")
            return after

        carry = lax.stop_gradient(lax.fori_loop(0, start, forward, carry))

        def advance(carry, offset):
            index = start + offset
            after, _ = step(context, carry, at(xs, index))
            # A window cut short by the first iteration stands still at its end.
            return jax.tree.map(lambda a, b: jnp.where(index < end, a, b), after, carry), None

        return lax.scan(advance, carry, jnp.arange(window))
