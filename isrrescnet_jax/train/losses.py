"""Distances between images, and how the iterates share in them.

All are in grey levels (images are in [0, 255]) and mean over batch, pixels and channels.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solver.backward import Truncated

Loss = Callable[[Float[Array, "... h w c"], Float[Array, "... h w c"]], Float[Array, "..."]]


def l1(x: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"]) -> Float[Array, "*b"]:
    """Mean absolute error, mean |x - target|, of each image."""
    return jnp.mean(jnp.abs(x - target), (-3, -2, -1))


def l2(x: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"]) -> Float[Array, "*b"]:
    """Mean squared error, mean (x - target)^2, of each image, in squared grey levels."""
    return jnp.mean(jnp.square(x - target), (-3, -2, -1))


def charbonnier(
    x: Float[Array, "*b h w c"], target: Float[Array, "*b h w c"], epsilon: float = 0.255
) -> Float[Array, "*b"]:
    """Smooth L1, mean sqrt((x - target)^2 + epsilon^2), of each image.

    Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed
    imaging", ICIP 1994. The default epsilon is 1e-3 of the range of the images, as is usual.
    """
    return jnp.mean(jnp.sqrt(jnp.square(x - target) + epsilon**2), (-3, -2, -1))


def make_loss(name: str, charbonnier_epsilon: float = 0.255) -> Loss:
    """The loss "l1", "l2" or "charbonnier"."""
    losses = {
        "l1": l1,
        "l2": l2,
        "charbonnier": functools.partial(charbonnier, epsilon=charbonnier_epsilon),
    }
    if name not in losses:
        raise ValueError(f"loss must be one of {', '.join(losses)}, not {name!r}")
    return losses[name]


def last_weights(weights: tuple[float, ...], iterations: int) -> np.ndarray:
    """Weights (K,) of the iterates from those of the last few: aligned at the end, zero before.

    (1.0,) is the loss on the last iterate; more weights than iterations lose their first ones.
    """
    padded = (0.0,) * iterations + tuple(weights)
    return np.asarray(padded[len(padded) - iterations :], np.float32)


def truncated_weights(backward: Truncated, intermediate: float, iterations: int) -> np.ndarray:
    """Weights (K,) for truncated backpropagation: a loss where a window ends, at k1, 2 k1, ..., K.

    The last counts 1, those before it `intermediate`; the other iterates carry no gradient. The
    recipe of the authors: k1 = k2 = 5, K = 10, intermediate = 1/2.
    """
    weights = np.zeros(iterations, np.float32)
    weights[backward.k1 - 1 :: backward.k1] = intermediate
    weights[-1] = 1
    return weights


def iterates_loss(
    iterates: Float[Array, "K n h w c"],
    target: Float[Array, "n h w c"],
    weights: np.ndarray,
    loss: Loss = l1,
) -> Float[Array, ""]:
    """sum_k weights[k] mean_n loss(x_k, target); iterates of weight zero are left out.

    Raises:
        ValueError: `loss` does not give one number per image.
    """
    used = np.flatnonzero(weights)
    each = jax.vmap(loss, (0, None))(iterates[used], target)
    if each.shape != (len(used), len(target)):
        raise ValueError(
            f"the loss must give one number per image, ({len(target)},), not {each.shape[1:]}"
        )
    each = each.mean(axis=1)
    return jnp.sum(jnp.asarray(weights[used], each.dtype) * each)
