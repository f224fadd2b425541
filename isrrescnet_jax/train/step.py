"""One optimiser step, a pure function: for one device or, with a named axis, for many."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from ..unroll import reconstruct
from ..weights import Weights
from .losses import iterates_loss, make_loss
from .state import TrainConfig, TrainState, learning_rate, make_optimizer

Batch = dict[str, Array]
Metrics = dict[str, Array]


def objective(
    params: dict[str, Any],
    batch: Batch,
    *,
    config: TrainConfig,
    iterations: int | None = None,
    step: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "n H W c"]]:
    """The loss of a batch, and the images it was computed on.

    Args:
        params: of `Weights`; the loss may be differentiated with respect to them.
        batch: `lr` (n, h, w, c) and `hr` (n, s h, s w, c) in [0, 255], of any type.
        iterations: to be run, static; all of the model by default.
        step: of the run, which decides the number drawn with `backward="random"`.
    """
    real = params["alpha"].dtype
    lr, hr = batch["lr"].astype(real), batch["hr"].astype(real)
    weights = config.loss_weights(iterations or config.model.iterations)
    solution = reconstruct(
        Weights(params, config.model),
        lr,
        iterations=len(weights),
        trace=bool(weights[:-1].any()),
        backward=config.backward_rule(len(weights), step),
        dtype=None if config.dtype == "float32" else config.dtype,
        precision=config.precision,
    )
    iterates, weights = (
        (solution.image[None], weights[-1:])
        if solution.iterates is None
        else (solution.iterates, weights)
    )
    loss = make_loss(config.loss, config.charbonnier_epsilon)
    return iterates_loss(iterates, hr, weights, loss), solution.image


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    config: TrainConfig,
    iterations: int | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Gradient of the loss, optimiser, moving average.

    Args:
        state: before the step.
        batch: `lr` (n, h, w, c) and `hr` (n, s h, s w, c) in [0, 255]; this device's share, all
            shares of one size.
        config: static.
        iterations: to be run, static; all of the model by default.
        axis_name: the axis of the devices, over which gradients and metrics are averaged.

    Returns:
        The state after the step, and the metrics `loss`, `psnr` (dB, RGB, the mean over the
        images), `grad_norm` (before clipping) and `learning_rate`.
    """
    (loss, image), grads = jax.value_and_grad(objective, has_aux=True)(
        state.params, batch, config=config, iterations=iterations, step=state.step
    )
    error = jnp.mean(jnp.square(image - batch["hr"].astype(image.dtype)), (1, 2, 3))
    psnr = jnp.mean(10 * jnp.log10(255**2 / jnp.maximum(error, 1e-6)))
    if axis_name is not None:
        grads, loss, psnr = lax.pmean((grads, loss, psnr), axis_name)

    updates, opt_state = make_optimizer(config).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # A young average follows closely, so that it soon forgets where the run started.
    decay = jnp.minimum(config.ema_decay, (1 + state.step) / (10 + state.step))
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    metrics = {
        "loss": loss,
        "psnr": psnr,
        "grad_norm": optax.tree.norm(grads),
        "learning_rate": learning_rate(config)(state.step),
    }
    return TrainState(state.step + 1, params, opt_state, ema), metrics
