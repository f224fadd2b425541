"""What a user of this library writes for `side_by_side`: operator and way back are values."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import isrrescnet_jax as isr


class Network(nn.Module):
    """What the denoiser takes away."""

    @nn.compact
    def __call__(self, z):
        for features in (32, 32):
            z = nn.relu(isr.Conv(features)(z))
        return isr.Conv(3)(z)


def prior(params, z, sigma, alpha):
    """The network, which knows no noise level."""
    return Network().apply(params, z)


def gradient(kernel: Any, iterations: int, backward: isr.Backward) -> Callable[..., Any]:
    """(parameters, y, target) -> gradient of the mean squared error; to be compiled."""
    operator = isr.Convolution(kernel)
    no_momentum = jnp.full(iterations, -jnp.inf)

    def loss(parameters, y, target):
        image = isr.unroll(
            y,
            operator,
            jax.tree_util.Partial(prior, parameters["network"]),
            alpha=jnp.zeros(iterations),
            w=no_momentum,
            sigma=jnp.zeros(1),
            step=parameters["step"],
            constraint=isr.Unconstrained(),
            backward=backward,
        ).image
        return jnp.mean((image - target) ** 2)

    return jax.grad(loss)
