"""Where iterates must lie: a value given to the solver, called on each new iterate."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact

from ..trees import pytree


@pytree
@dataclasses.dataclass(frozen=True)
class Box:
    """low <= x <= high, the projection clip(x, low, high); [0, 255] by default.

    On the bounds the gradient passes, as in PyTorch (`jnp.clip` halves it).

    Raises:
        ValueError: on use, a complex image, which has no order.

    Example:
        >>> import jax.numpy as jnp, isrrescnet_jax as isr
        >>> print(isr.Box(0.0, 1.0)(jnp.array([-1.0, 0.5, 2.0])))
        [0.  0.5 1. ]
    """

    low: Float[ArrayLike, ""] = 0.0
    high: Float[ArrayLike, ""] = 255.0

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Clip."""
        _must_be_real(x)
        return jnp.where(x < self.low, self.low, jnp.where(x > self.high, self.high, x))


@pytree
@dataclasses.dataclass(frozen=True)
class NonNegative:
    """x >= 0, the projection max(x, 0); at 0 the gradient passes.

    Raises:
        ValueError: on use, a complex image, which has no order.

    Example:
        >>> import jax.numpy as jnp, isrrescnet_jax as isr
        >>> print(isr.NonNegative()(jnp.array([-1.0, 2.0])))
        [0. 2.]
    """

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """max(x, 0)."""
        _must_be_real(x)
        return jnp.where(x < 0, 0, x)


@pytree
@dataclasses.dataclass(frozen=True)
class Unconstrained:
    """Iterates as they come, real or complex.

    Example:
        >>> import jax.numpy as jnp, isrrescnet_jax as isr
        >>> print(isr.Unconstrained()(jnp.array([-1.0])))
        [-1.]
    """

    def __call__(self, x: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """x."""
        return x


def _must_be_real(x: Array) -> None:
    if jnp.iscomplexobj(x):
        raise ValueError("complex images have no order: give constraint=Unconstrained()")
