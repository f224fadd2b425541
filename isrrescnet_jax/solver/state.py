"""The iteration as a value: what it depends on, what it carries, and one step of it.

    iteration = Iteration(y, operator, prior, sigma)
    state = iteration.start()
    for alpha_k, w_k in zip(alpha, w):
        state = iteration.step(state, alpha_k, w_k)

is what `unroll` does, there in one compiled loop. Both values are pytrees, so that `jit`, `vmap`,
`jvp` and `vjp` of a step are the usual ones.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, Real

from ..representation import in_one_line
from ..trees import pytree
from .acceleration import Plain
from .constraint import Box
from .iteration import accept, propose


@pytree
@dataclasses.dataclass(frozen=True)
class State:
    """Where the iterations are; a pytree.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> x = jnp.full((1, 2, 2, 1), 4.0)
    >>> isr.State(image=x, previous=x - 1, count=3).residual()
    Array([0.25], dtype=float32)

    Attributes:
        image: x_k.
        previous: x_(k-1), and x_0 at the start.
        count: k, the iterations done so far.
        memory: of the acceleration.
    """

    # In front, the axes of stacked states; JAX also makes states of what only has a shape.
    image: Inexact[Any, "*stack n H W c"]
    previous: Inexact[Any, "*stack n H W c"]
    count: Any = 0
    memory: Any = None

    __repr__ = in_one_line

    def residual(self) -> Float[Array, " n"]:
        """|x_k - x_(k-1)| / |x_k| of each image: how much the last iteration has changed.

        Infinite before the first iteration. No gradient flows through it: the norm has none at 0.
        """
        image, previous = jax.lax.stop_gradient((self.image, self.previous))
        change = norms(image - previous)
        size = jnp.maximum(norms(image), jnp.finfo(change.dtype).tiny)
        known = (jnp.asarray(self.count) > 0) & ~jnp.isinf(size)
        return jnp.where(known, change / size, jnp.inf)


@pytree
@dataclasses.dataclass(frozen=True)
class Iteration:
    """All that the iterations depend on; a pytree wherever operator and prior are.

    Attributes:
        y: the observation, one image of the batch along its first axis.
        operator: offers `initial(y)` and `gradient(v, y)` (see `physics.operator`).
        prior: N, called as prior(z, sigma, alpha_k).
        sigma: noise level of each image.
        length: of the gradient step; below 2 / |D|^2 the iterations converge without a prior.
        constraint: called on each new iterate (see `constraint`).
        accelerate: what becomes of it (see `acceleration`).

    Example:
        >>> import isrrescnet_jax as isr, jax, jax.numpy as jnp
        >>> y, nothing = jnp.full((1, 4, 4, 1), 7.0), jax.tree_util.Partial(lambda z, s, a: 0 * z)
        >>> mask = isr.Mask(jnp.ones((4, 4, 1)))
        >>> iteration = isr.Iteration(y, mask, nothing, jnp.zeros(1))
        >>> state = iteration.step(iteration.start(jnp.zeros_like(y)), 0.0, -jnp.inf)
        >>> int(state.count), float(state.image.mean())
        (1, 7.0)
    """

    y: Inexact[Array, "n ..."]
    operator: Any
    prior: Callable[[Array, Array, Array], Array]
    sigma: Float[ArrayLike, "#n"]
    length: Real[ArrayLike, ""] = 1.0
    constraint: Callable[[Array], Array] = Box()
    accelerate: Any = Plain()

    def start(self, image: Inexact[ArrayLike, "n H W c"] | None = None) -> State:
        """The state before the first iteration, at `image` or at the operator's initial one."""
        x = inexact(self.operator.initial(self.y) if image is None else image)
        return State(x, x, jnp.int32(0), self.accelerate.start(x))

    def step(self, state: State, alpha: Float[ArrayLike, ""], w: Float[ArrayLike, ""]) -> State:
        """One iteration, with the log radius `alpha` and the log momentum `w`.

        The new image is of the type of the old one, whatever the types of operator and prior.

        Raises:
            ValueError: operator or prior make a real image complex.
        """
        z, r = propose(
            self.operator,
            lambda z: self.prior(z, jnp.asarray(self.sigma), jnp.asarray(alpha)),
            state.image,
            state.previous,
            self.y,
            w,
            self.length,
        )
        proposed = self._typed(accept(z, r, 1.0, self.constraint), state.image)
        memory, new = self.accelerate.mix(state.memory, state.image, proposed)
        if not isinstance(self.accelerate, Plain):
            new = self._typed(self.constraint(new), state.image)  # extrapolation may leave it
        return State(new, state.image, state.count + 1, memory)

    def as_map(
        self, alpha: Float[ArrayLike, ""], w: Float[ArrayLike, ""] | None = None
    ) -> Callable[[Any], Any]:
        """An iteration without acceleration as a map, for `analysis`.

        With momentum, log w, of a pair of images: (x_k, x_(k-1)) -> (x_(k+1), x_k), whose norm is
        at least 1, as the first image is copied. Without, of one image: x_k -> x_(k+1).
        """
        plain = dataclasses.replace(self, accelerate=Plain())
        if w is None:
            return lambda x: plain.step(State(x, x), alpha, -jnp.inf).image

        def step(pair: tuple[Array, Array]) -> tuple[Array, Array]:
            new = plain.step(State(*pair), alpha, w)
            return new.image, new.previous

        return step

    def _typed(self, new: Array, like: Array) -> Array:
        if jnp.iscomplexobj(new) and not jnp.iscomplexobj(like):
            raise ValueError(
                "operator or prior make a real image complex: return a complex one from initial(y)"
            )
        return new.astype(like.dtype)


def inexact(x: ArrayLike) -> Inexact[Array, "..."]:
    """The type in which images are computed: x's own, or float32 where that is too coarse.

    float32, float64, complex64 and complex128 stay; integers, booleans, float16 and bfloat16, with
    less than the 24 bits that a sum over an image needs, become float32.
    """
    x = jnp.asarray(x)
    wide = jnp.issubdtype(x.dtype, jnp.inexact) and x.dtype.itemsize >= 4
    return x if wide else x.astype(jnp.float32)


def norms(x: Inexact[Array, "n ..."]) -> Float[Array, " n"]:
    """Euclidean norm of each image, also where its square is out of range."""
    axes = tuple(range(1, x.ndim))
    largest = jnp.max(jnp.abs(x), axes, initial=0, keepdims=True)
    unit = jnp.where(largest > 0, largest, 1)
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x / unit)), axes)) * largest.reshape(-1)
