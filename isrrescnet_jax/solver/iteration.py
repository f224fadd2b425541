"""The iteration: two local parts, and one number of the whole image between them.

    v   = x + exp(w) (x - previous)
    z   = v - step gradient(v, y),    r = N(z, sigma)              propose
    mu  = min(1, e / |r|)                                          shrinkage (`prior.projection`)
    new = clip(z - mu r, 0, 255)                                   accept

(Umer, Foresti & Micheloni, "Deep Iterative Residual Convolutional Network for Single Image
Super-Resolution", ICPR 2020, section III.) `propose` can be done on any part of an image that has
the margin which operator and prior see, `accept` on any part at all: `state` does both on whole
images, `canvas` on images of all sizes in one program, `stream` on bands of rows.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact

from .constraint import Box

Image = Inexact[Array, "n H W c"]
clip = Box()


def propose(
    operator: Any,
    residual: Callable[[Array], Array],
    x: Image,
    previous: Image,
    y: Inexact[Array, "n ..."],
    w: Float[ArrayLike, ""],
    step: Float[ArrayLike, ""] = 1.0,
) -> tuple[Image, Image]:
    """A step along the momentum and down the data term, and the residual there: (z, r).

    Args:
        operator: offers `gradient(v, y)`.
        residual: z -> r, before the projection, at the noise level of the observation.
        x, previous: the last two iterates.
        y: the observation.
        w: log momentum.
        step: length of the gradient step.
    """
    v = x + jnp.exp(w) * (x - previous)
    z = v - step * operator.gradient(v, y)
    return z, residual(z)


def accept(
    z: Image,
    r: Image,
    shrink: Float[ArrayLike, "..."] = 1.0,
    constraint: Callable[[Array], Array] = clip,
) -> Image:
    """The new iterate, constraint(z - shrink r): clip(z - shrink r, 0, 255) by default."""
    return constraint(z - shrink * r)
