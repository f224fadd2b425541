"""Blurs with a least eigenvalue, so that something can be said of how fast iterations converge."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import isrrescnet_jax as isr


def gaussian(sd: float, side: int) -> Float[np.ndarray, "side side"]:
    """A kernel whose sum is 1."""
    line = np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * sd**2))
    return np.outer(line, line) / line.sum() ** 2


def soft_focus(sharp: float = 0.5) -> isr.Convolution:
    """A share of the light is sharp, the rest in a halo: |A| is 1, and A^-1 has the norm 1 / sharp.

    Periodic, so that this is exact.
    """
    kernel = (1 - sharp) * gaussian(1.5, 9)
    kernel[4, 4] += sharp
    return isr.Convolution(jnp.asarray(kernel))


@isr.pytree
@dataclasses.dataclass(frozen=True)
class Regularised(isr.Operator):
    """(A x, sqrt(weight) x), beside (y, sqrt(weight) grey): a quadratic with a least eigenvalue.

    The data term is |A x - y|^2 / 2 + weight |x - grey|^2 / 2.
    """

    operator: isr.Convolution
    weight: Any

    def forward(self, x: Array) -> Array:
        """Two channels for each one."""
        return jnp.concatenate([self.operator.forward(x), jnp.sqrt(self.weight) * x], -1)

    def observation(self, y: Array, grey: Any) -> Array:
        """What stands beside it: y, and sqrt(weight) grey."""
        return jnp.concatenate([y, jnp.sqrt(self.weight) * grey * jnp.ones_like(y)], -1)

    def domain(self, y: Array) -> jax.ShapeDtypeStruct:
        """Half of the channels."""
        return jax.ShapeDtypeStruct((*y.shape[:3], y.shape[3] // 2), y.dtype)
