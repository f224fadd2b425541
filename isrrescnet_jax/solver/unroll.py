"""`reconstruct`: the iterations of `iteration`, unrolled, and differentiable in every way."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from ..physics.noise import noise_level
from ..physics.operators import Bicubic, for_weights
from ..prior.network import LearnedPrior
from ..protocols import Backward, Operator, Prior
from ..representation import in_one_line
from ..weights import Weights
from .backward import Full
from .iteration import accept, propose


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """What the iterations found; a pytree.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> x = jnp.zeros((1, 8, 8, 3))
    >>> isr.Solution(image=x, iterates=None, initial=x, sigma=jnp.ones(1))
    Solution(image=f32[1,8,8,3], iterates=None, initial=f32[1,8,8,3], sigma=f32[1])

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

    __repr__ = in_one_line


def unroll(
    y: Float[Array, "n h w c"],
    operator: Operator,
    prior: Prior,
    *,
    alpha: Float[Array | np.ndarray, " K"],
    w: Float[Array | np.ndarray, " K"],
    sigma: Float[Array, " n"],
    step: float | Float[Array, ""] = 1.0,
    trace: bool = False,
    backward: Backward = Full(),  # noqa: B008 (frozen)
) -> Solution:
    """Run the iterations with any operator and any prior.

        v_k     = x_k + exp(w_k) (x_k - x_(k-1))
        z_k     = v_k - step operator.gradient(v_k, y)
        x_(k+1) = clip(z_k - prior(z_k, sigma, alpha_k), 0, 255)

    Without a prior and with no momentum, iterative back projection (Irani & Peleg, 1991):

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> y = jax.random.uniform(jax.random.key(0), (1, 5, 6, 3), minval=100, maxval=150)
    >>> operator = isr.Bicubic(2, reference=False)
    >>> none = jax.tree_util.Partial(lambda z, sigma, alpha: jnp.zeros_like(z))
    >>> options = {"alpha": jnp.zeros(9), "w": jnp.full(9, -jnp.inf), "sigma": jnp.ones(1)}
    >>> image = isr.unroll(y, operator, none, step=4.0, **options).image
    >>> bool(jnp.abs(operator.forward(image) - y).mean() < 0.1)
    True

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

    Returns:
        Images `scale` times as high and wide as y, in [0, 255].
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
    operator: Operator | None = None,
    noise: Literal["estimate"] | Real[ArrayLike, ""] | Real[ArrayLike, "#n"] = "estimate",
    iterations: int | None = None,
    trace: bool = False,
    backward: Backward = Full(),  # noqa: B008 (frozen)
    prior: Prior | None = None,
    dtype: Any = None,
    precision: Any = "highest",
) -> Solution:
    """Super-resolve a batch of images; works under `jit`, `grad` and `vmap`.

    The iterations of `unroll`, with the operator, prior and schedule of the weights (Umer, Foresti
    & Micheloni, "Deep Iterative Residual Convolutional Network for Single Image Super-Resolution",
    ICPR 2020).

    >>> import jax, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> lr = jax.random.uniform(jax.random.key(1), (1, 8, 9, 3), maxval=255)
    >>> isr.reconstruct(weights, lr, trace=True)  # doctest: +NORMALIZE_WHITESPACE
    Solution(image=f32[1,16,18,3], iterates=f32[2,1,16,18,3], initial=f32[1,16,18,3],
             sigma=f32[1])

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
    physics: Operator = for_weights(operator, weights.config)
    if isinstance(noise, str):
        if noise != "estimate":
            raise ValueError(f"noise must be 'estimate' or a number, not {noise!r}")
        sigma = noise_level(lr)
    else:
        sigma = jnp.broadcast_to(jnp.asarray(noise, lr.dtype), lr.shape[:1])
    prior = LearnedPrior.from_weights(weights, dtype, precision) if prior is None else prior
    alpha, w = schedule(weights, iterations)
    options = {"sigma": sigma, "step": weights.config.step, "trace": trace, "backward": backward}
    return unroll(lr, physics, prior, alpha=alpha, w=w, **options)
