"""Priors with which iterations contract: a small network, and smoothed total variation.

The network is held by spectral normalisation,

    N(z) = e f(z / 255) 255,    |f(a) - f(b)| <= |a - b|,    e < 1

where f is three convolutions, each divided by its norm where that is above 1, with leaky rectifiers
between them. Then z - N(z) stretches distances by at most 1 + e. Where |A v|^2 >= mu |v|^2 a
gradient step shrinks them by 1 - step mu, and both together by (1 + e) (1 - step mu). (Miyato et
al., "Spectral normalization for generative adversarial networks", ICLR 2018; Ryu et al.,
"Plug-and-play methods provably converge with properly trained denoisers", ICML 2019.)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import isrrescnet_jax as isr

GRID = 16  # frequencies along an axis at which a convolution is looked at
POWER = 5  # of 2


def norm(kernel: Float[Array, "k l i o"]) -> Float[Array, ""]:
    """About the norm of a convolution, of periodic images or with zeros around them.

    The largest Schatten norm, of order 2^6, of its matrices at a grid of frequencies: never more
    than 5 % above the spectral norm for 16 channels, and below it by what the grid misses, under
    1 %. It is smooth, as the spectral norm is not.
    """
    size = jnp.sqrt(jnp.sum(kernel**2))
    matrices = jnp.fft.rfft2(kernel / size, (GRID, GRID), axes=(0, 1))
    gram = jnp.einsum("uvio,uvip->uvop", jnp.conj(matrices), matrices)
    log = jnp.zeros(gram.shape[:2])
    for _ in range(POWER):  # gram^(2^k), and the logarithm of what it was divided by
        trace = jnp.trace(gram, axis1=2, axis2=3).real
        gram, log = gram / trace[..., None, None], log + jnp.log(trace)
        gram, log = gram @ gram, 2 * log
    log = log + jnp.log(jnp.trace(gram, axis1=2, axis2=3).real)
    return size * jnp.exp(jnp.max(log) / 2 ** (POWER + 1))


def init(key: Key[Array, ""], features: int = 16, channels: int = 1) -> dict[str, Any]:
    """Kernels whose norms are 1, and biases of 0."""
    widths = (channels, features, features, channels)
    params = {}
    for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        kernel = jax.random.normal(jax.random.fold_in(key, i), (3, 3, a, b))
        params[f"layer{i}"] = {"kernel": kernel / norm(kernel), "bias": jnp.zeros(b)}
    return params


def normalised(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a network that stretches no distance; once, not in each iteration."""
    return {
        name: {"kernel": p["kernel"] / jnp.maximum(1, norm(p["kernel"])), "bias": p["bias"]}
        for name, p in params.items()
    }


def residual(
    parts: tuple[dict[str, Any], Any],
    z: Float[Array, "n h w c"],
    sigma: Float[Array, " n"],
    alpha: Float[Array, ""],
) -> Float[Array, "n h w c"]:
    """N(z), the same at every noise level and in every iteration."""
    layers, e = parts
    h = z / 255 - 0.5
    for i in range(len(layers)):
        layer = layers[f"layer{i}"]
        h = isr.conv(jax.nn.leaky_relu(h, 0.2) if i else h, layer["kernel"]) + layer["bias"]
    return 255 * e * h


def network(params: dict[str, Any], e: Any) -> jax.tree_util.Partial:
    """What `isr.unroll` takes, with gradients that reach the parameters before normalisation."""
    return jax.tree_util.Partial(residual, (normalised(params), e))


def edges(weight: Any, z: Array, sigma: Array, alpha: Array) -> Array:
    """Gradient of smoothed total variation, which is not linear; |N'| is at most 8 weight."""
    total = jnp.zeros_like(z)
    for axis in (1, 2):
        d = jnp.roll(z, -1, axis) - z
        slope = weight * d / jnp.sqrt(1 + (d / 5) ** 2)
        total += jnp.roll(slope, 1, axis) - slope
    return total
