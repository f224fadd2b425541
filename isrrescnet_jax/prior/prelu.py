"""The activation."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def prelu(x: Float[Array, "*b c"], slopes: Float[Array, " c"]) -> Float[Array, "*b c"]:
    """max(x, 0) + slope min(x, 0); the derivative at 0 is the slope, as in PyTorch."""
    return jnp.where(x > 0, x, x * slopes)
