"""`reconstruct`: the iterations of `iteration`, unrolled, and differentiable in every way."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from ..physics.noise import noise_level
from ..physics.operators import Bicubic, for_weights
from ..prior.network import LearnedPrior
from ..weights import Weights
from .backward import Full
from .iteration import accept, propose


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """What the iterations found; a pytree.

    Attributes:
        image: the last iterate, in [0, 255].
        iterates: x_1 ... x_K with `trace=True`, else None.
        initial: x_0.
        sigma: the noise level of each image that was used.
    """

    image: Float[Array | np.ndarray, "*n H W c"]
    iterates: Float[Array | np.ndarray, "K *n H W c"] | None
    initial: Float[Array | np.ndarray, "*n H W c"] | None
    sigma: Float[ArrayLike, "*n"]


def unroll(
    y: Float[Array, "n h w c"],
    operator: Any,
    prior: Callable[[Array, Array, Array], Array],
    *,
    alpha: Float[Array | np.ndarray, " K"],
    w: Float[Array | np.ndarray, " K"],
    sigma: Float[Array, " n"],
    step: float | Float[Array, ""] = 1.0,
    trace: bool = False,
    backward: Any = Full(),  # noqa: B008 (frozen)
) -> Solution:
    """Run the iterations with any operator and any prior.

    Args:
        y: low-resolution images, in [0, 255].
        operator: offers `initial(y)` and `gradient(v, y)`; a pytree (see `operators`).
        prior: N, called as prior(z, sigma, alpha_k); a pytree (see `network.LearnedPrior`), or
            `jax.tree_util.Partial` of a function and its parameters.
        alpha, w: log radius and log momentum of each iteration; their length is the number of
            iterations. w[0] has no effect.
        sigma: noise level of each image, in grey levels.
        step: length of the gradient step; below 2 / |D^T D| the iterations converge without prior.
        trace: keep every iterate.
        backward: how gradients flow (see `backward`).
    """
    initial = operator.initial(y)

    def iterate(context, carry, schedule):
        operator, prior, y, sigma, step = context
        current, previous = carry
        alpha_k, w_k = schedule
        z, r = propose(
            operator, lambda z: prior(z, sigma, alpha_k), current, previous, y, w_k, step
        )
        new = accept(z, r)
        return (new, current), (new if trace else None)

    context = (operator, prior, y, sigma, step)
    (image, _), iterates = backward.run(iterate, context, (initial, initial), (alpha, w))
    return Solution(image, iterates, initial, sigma)


def schedule(
    weights: Weights, iterations: int | None = None
) -> tuple[Float[Array | np.ndarray, " K"], Float[Array | np.ndarray, " K"]]:
    """(alpha, w) of the first `iterations`; beyond the trained K the last pair is repeated."""
    iterations = weights.config.iterations if iterations is None else iterations
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    index = np.minimum(np.arange(iterations), weights.config.iterations - 1)
    return weights.params["alpha"][index], weights.params["w"][index]


def reconstruct(
    weights: Weights,
    lr: Real[ArrayLike, "n h w c"],
    *,
    operator: Any = None,
    noise: Literal["estimate"] | Real[ArrayLike, ""] | Real[ArrayLike, "#n"] = "estimate",
    iterations: int | None = None,
    trace: bool = False,
    backward: Any = Full(),  # noqa: B008 (frozen)
    prior: Callable[[Array, Array, Array], Array] | None = None,
    dtype: Any = None,
    precision: Any = "highest",
) -> Solution:
    """Super-resolve a batch of images; works under `jit`, `grad` and `vmap`.

    Args:
        weights: a pytree, so gradients may be taken with respect to it.
        lr: low-resolution images with values in [0, 255]; integers become float32.
        operator: how they came about; `Bicubic` at the scale of the weights by default. Of the
            physics of the weights, unless it was made with another `reference` (with a warning).
        noise: "estimate" (see `noise.noise_level`), or a known level in grey levels, one number or
            one for each image.
        iterations: how many to run; all that were trained by default. Beyond those the last
            (alpha, w) is repeated.
        trace: keep every iterate in the solution.
        backward: `Full()`, `Checkpointed()`, `Truncated(k1, k2)` or one's own.
        prior: takes the place of the learned one; alpha and w still come from the weights.
        dtype: of the features, "bfloat16" for speed; image arithmetic stays in the type of `lr`.
        precision: of convolutions. GPU and TPU would else run float32 in TF32 or bfloat16.

    Raises:
        ValueError: shapes that do not fit, or neither an operator nor a scale to make one of.
    """
    lr = jnp.asarray(lr)
    if not jnp.issubdtype(lr.dtype, jnp.floating):
        lr = lr.astype(jnp.float32)
    if lr.ndim != 4 or lr.shape[3] != weights.config.channels or 0 in lr.shape:
        raise ValueError(
            f"images must be (n, h, w, {weights.config.channels}) for these weights, "
            f"not {tuple(lr.shape)}"
        )
    if operator is None:
        if weights.config.scale is None:
            raise ValueError("these weights name no scale: give operator=Bicubic(scale)")
        operator = Bicubic(weights.config.scale)
    operator = for_weights(operator, weights.config)
    if isinstance(noise, str):
        if noise != "estimate":
            raise ValueError(f"noise must be 'estimate' or a number, not {noise!r}")
        sigma = noise_level(lr)
    else:
        sigma = jnp.broadcast_to(jnp.asarray(noise, lr.dtype), lr.shape[:1])
    prior = LearnedPrior.from_weights(weights, dtype, precision) if prior is None else prior
    alpha, w = schedule(weights, iterations)
    options = {"sigma": sigma, "step": weights.config.step, "trace": trace, "backward": backward}
    return unroll(lr, operator, prior, alpha=alpha, w=w, **options)
