"""The proximal step: the projection of a residual onto a ball."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def project(
    r: Float[Array, "n h w c"], sigma: Float[Array, " n"], alpha: Float[Array, ""]
) -> Float[Array, "n h w c"]:
    """Projection of each image's residual onto a ball: r min(1, e / |r|).

        e = exp(alpha) sigma sqrt(c h w - 1)

    Where e = 0 the result and its gradients are 0, also at r = 0, where the reference gives 0/0.
    """
    size = r[0].size
    radius = jnp.exp(alpha) * sigma * np.sqrt(size - 1).astype(r.dtype)
    squared = jnp.sum(jnp.square(r), (1, 2, 3))
    outside = squared > jnp.square(radius)
    # Never the square root of 0: it has no gradient.
    norm = jnp.sqrt(jnp.where(outside, squared, 1))
    shrink = jnp.where(outside, radius / norm, 1)
    return r * jnp.where(radius > 0, shrink, 0)[:, None, None, None]
