"""The iteration: two local parts, and one number of the whole image between them.

    v   = x + exp(w) (x - previous)
    z   = v - step gradient(v, y),    r = N(z, sigma)              propose
    mu  = min(1, e / |r|)                                          shrinkage (`prior.projection`)
    new = clip(z - mu r, 0, 255)                                   accept

(Umer, Foresti & Micheloni, "Deep Iterative Residual Convolutional Network for Single Image
Super-Resolution", ICPR 2020, section III.) `propose` can be done on any part of an image that has
the margin which operator and prior see, `accept` on any part at all: `unroll` does both on whole
images, `canvas` on images of all sizes in one program, `stream` on bands of rows.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from ..protocols import Operator

Image = Float[Array, "n H W c"]


def propose(
    operator: Operator,
    residual: Callable[[Array], Array],
    x: Image,
    previous: Image,
    y: Float[Array, "n h w c"],
    w: Float[ArrayLike, ""],
    step: Real[ArrayLike, ""] = 1.0,
) -> tuple[Image, Image]:
    """A step along the momentum and down the data term, and the residual there: (z, r).

        v = x + exp(w) (x - previous),    z = v - step gradient(v, y),    r = residual(z)

    One iteration, with a prior that halves what it is given:

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> operator = isr.Decimation(2, reference=False)
    >>> y = jnp.full((1, 4, 4, 3), 100.0)
    >>> x = operator.initial(y)
    >>> z, r = isr.propose(operator, lambda z: z / 2, x, x, y, w=-1.0)
    >>> new = isr.accept(z, r)
    >>> new.shape, round(float(new.mean()), 3)
    ((1, 8, 8, 3), 50.0)

    Args:
        operator: offers `gradient(v, y)`.
        residual: z -> r, before the projection, at the noise level of the observation.
        x, previous: the last two iterates, in [0, 255].
        y: the observation, in [0, 255].
        w: log momentum.
        step: length of the gradient step.
    """
    v = x + jnp.exp(w) * (x - previous)
    z = v - step * operator.gradient(v, y)
    return z, residual(z)


def accept(
    z: Float[Array, "*n H W c"],
    r: Float[Array, "*n H W c"],
    shrink: Float[ArrayLike, "..."] = 1.0,
) -> Float[Array, "*n H W c"]:
    """The new iterate, clip(z - shrink r, 0, 255).

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> z = jnp.array([-5.0, 100.0, 270.0]).reshape(1, 1, 3, 1)
    >>> isr.accept(z, jnp.full_like(z, 10.0), 0.5).ravel()
    Array([  0.,  95., 255.], dtype=float32)

    Args:
        z, r: what `propose` gives.
        shrink: of each image, (n, 1, 1, 1), or one number: what `isr.shrinkage` gives for |r|^2.
    """
    return clip(z - shrink * r)


def clip(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Clip to [0, 255]; on the bounds the gradient passes, as in PyTorch (`jnp.clip` halves it)."""
    return jnp.where(x < 0, 0, jnp.where(x > 255, 255, x))
