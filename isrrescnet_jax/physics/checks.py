"""Checks of an operator that everyone who writes one needs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact, Key

from .operator import Operator


def adjointness(
    operator: Any, like: Inexact[Array, "n H W c"] | jax.ShapeDtypeStruct, key: Key[Array, ""]
) -> Float[Array, ""]:
    """|<A x, y> - <x, A^H y>| / (|A x| |y|) for random x and y: rounding error, or a mistake.

    About 1e-7 in single and 1e-16 in double precision for an adjoint that is one. Of operators from
    real images to complex observations the real parts are compared.

    Args:
        operator: offers `forward` and `adjoint`.
        like: an image of the shape and type that it takes.
        key: of the random numbers.

    Example:
        >>> import isrrescnet_jax as isr, jax, jax.numpy as jnp
        >>> image = jnp.zeros((1, 8, 8, 3))
        >>> blur = isr.Blur(2, jnp.ones((3, 3)) / 9, reference=False)
        >>> float(isr.adjointness(blur, image, jax.random.key(0))) < 1e-5
        True
    """
    keys = jax.random.split(key)
    x = _normal(keys[0], like)
    forward = operator.forward(x)
    y = _normal(keys[1], forward)
    left, right = jnp.vdot(forward, y), jnp.vdot(x, operator.adjoint(y))
    if not jnp.iscomplexobj(x):
        left, right = left.real, right.real
    return jnp.abs(left - right) / (_norm(forward) * _norm(y))


def operator_norm(
    operator: Any,
    like: Inexact[Array, "n H W c"] | jax.ShapeDtypeStruct,
    key: Key[Array, ""],
    steps: int = 100,
) -> Float[Array, ""]:
    """|A|, the largest singular value, by power iteration on A^H A; a bound from below.

    2 / |A|^2 bounds the step of the iterations. (Golub & Van Loan, "Matrix Computations", 2013,
    section 8.2.)

    Args:
        operator: offers `forward`; the adjoint is its transpose, whatever `adjoint` may be.
        like: an image of the shape and type that it takes.
        key: of the image to start from.
        steps: of the power iteration.

    Example:
        >>> import isrrescnet_jax as isr, jax, jax.numpy as jnp
        >>> mask = isr.Mask(3 * jnp.ones((4, 4, 1)))
        >>> round(float(isr.operator_norm(mask, jnp.zeros((1, 4, 4, 1)), jax.random.key(0))), 3)
        3.0
    """

    def step(_, x):
        x = _square(operator, x)
        return x / jnp.maximum(_norm(x), jnp.finfo(x.real.dtype).tiny)

    x = lax.fori_loop(0, steps, step, step(0, _normal(key, like)))
    return _norm(operator.forward(x))


def _square(operator: Any, x: Array) -> Array:
    return Operator.adjoint_onto(operator, x, operator.forward(x))


def _normal(key: Array, like: Any) -> Array:
    return jax.random.normal(key, like.shape, like.dtype)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x))))
