"""The proximal step: a projection of the residual onto a ball."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float


def shrinkage(
    squared: Float[Array | np.ndarray, "..."],
    size: Any,
    sigma: Float[Array | np.ndarray, "..."],
    alpha: Float[ArrayLike, ""],
) -> Float[Array, "..."]:
    """min(1, e / |r|), by which the projection of a residual r onto a ball multiplies it.

        e = exp(alpha) sigma sqrt(size - 1)

    Where e = 0 the result and its gradients are 0, also at r = 0, where the reference gives 0/0.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> squared = jnp.array([100.0, 1.0])  # one residual outside of its ball, one inside
    >>> isr.shrinkage(squared, 5, sigma=jnp.array([1.0, 1.0]), alpha=jnp.log(3.0))
    Array([0.6, 1. ], dtype=float32)

    Args:
        squared: |r|^2 of each image.
        size: numbers in an image, c h w; may be traced.
        sigma: noise level of each image.
        alpha: log radius.
    """
    size = jnp.asarray(size, squared.dtype)
    radius = jnp.exp(alpha) * sigma * jnp.sqrt(size - 1)
    outside = squared > jnp.square(radius)
    # Never the square root of 0: it has no gradient.
    norm = jnp.sqrt(jnp.where(outside, squared, 1))
    return jnp.where(radius > 0, jnp.where(outside, radius / norm, 1), 0)


def project(
    r: Float[Array, "n h w c"], sigma: Float[Array, " n"], alpha: Float[Array, ""]
) -> Float[Array, "n h w c"]:
    """Projection of each image's residual onto a ball: r min(1, e / |r|), see `shrinkage`."""
    squared = jnp.sum(jnp.square(jnp.abs(r) if jnp.iscomplexobj(r) else r), (1, 2, 3))
    return r * shrinkage(squared, r[0].size, sigma, alpha)[:, None, None, None]
