"""One optimiser step, a pure function: for one device or, with a named axis, for many."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from ..physics.operators import Bicubic
from ..prior.network import LearnedPrior
from ..solver.unroll import reconstruct
from ..weights import Weights
from .config import Recipe, TrainConfig, as_recipe
from .losses import iterates_loss, make_loss
from .optimizer import learning_rate, make_optimizer
from .state import TrainState

Batch = dict[str, Array | np.ndarray]
Metrics = dict[str, Array]


def objective(
    params: dict[str, Any],
    batch: Batch,
    *,
    recipe: Recipe | TrainConfig,
    iterations: int | None = None,
    step: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "n H W c"]]:
    """The loss of a batch, and the images it was computed on.

    Args:
        params: of `Weights`; the loss may be differentiated with respect to them.
        batch: `lr` (n, h, w, c) and `hr` (n, s h, s w, c) in [0, 255], of any type. Their sizes say
            which scale this is.
        recipe: or a bare configuration.
        iterations: to be run, static; all of the model by default.
        step: of the run, which decides the number drawn with `backward="random"`.

    Raises:
        ValueError: `hr` is not a multiple of `lr`, or the recipe's loss does not give (n,).
    """
    recipe = as_recipe(recipe)
    config = recipe.config
    real = params["alpha"].dtype
    lr, hr = (jnp.asarray(batch[name], real) for name in ("lr", "hr"))
    scale = hr.shape[1] // lr.shape[1]
    if hr.shape[1:3] != (scale * lr.shape[1], scale * lr.shape[2]):
        raise ValueError(f"hr {hr.shape} is not a multiple of lr {lr.shape}")
    if not config.train_schedule:
        params = params | lax.stop_gradient({name: params[name] for name in ("alpha", "w")})
    weights = Weights(params, config.model)
    if recipe.prior is None:
        dtype = None if config.dtype == "float32" else config.dtype
        prior = LearnedPrior.from_weights(weights, dtype, config.precision)
    else:
        prior = recipe.prior(weights)
    counts = config.loss_weights(iterations or config.model.iterations)
    solution = reconstruct(
        weights,
        lr,
        operator=Bicubic(scale) if recipe.operator is None else recipe.operator,
        prior=prior,
        iterations=len(counts),
        trace=bool(counts[:-1].any()),
        backward=config.backward_rule(len(counts), step),
    )
    image = jnp.asarray(solution.image)
    iterates, counts = (
        (image[None], counts[-1:])
        if solution.iterates is None
        else (jnp.asarray(solution.iterates), counts)
    )
    loss = recipe.loss or make_loss(config.loss, config.charbonnier_epsilon)
    return iterates_loss(iterates, hr, counts, loss), image


def group_norms(tree: Any) -> dict[str, Float[Array, ""]]:
    """Norm of all directions v, of all lengths g, and of all other parameters together."""
    groups: dict[str, list[Array]] = {"v": [], "g": [], "other": []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        groups.get(path[-1].key, groups["other"]).append(leaf)
    return {name: optax.tree.norm(leaves) for name, leaves in groups.items()}


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    recipe: Recipe | TrainConfig,
    iterations: int | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Gradient of the loss, optimiser, moving average.

    Args:
        state: before the step.
        batch: `lr` (n, h, w, c) and `hr` (n, s h, s w, c) in [0, 255]; this device's share, all
            shares of one size.
        recipe: static, or a bare configuration.
        iterations: to be run, static; all of the model by default.
        axis_name: the axis of the devices, over which gradients and metrics are averaged.

    Returns:
        The state after the step, and the metrics `loss`, `psnr` (dB, RGB, the mean over the
        images), `grad_norm` (before clipping), `learning_rate` (not with an optimizer of the
        recipe's own), and `update_ratio_v`, `_g` and `_other`: |update| / |parameters| of all
        directions, of all lengths and of the rest.
    """
    recipe = as_recipe(recipe)
    config = recipe.config
    (loss, image), grads = jax.value_and_grad(objective, has_aux=True)(
        state.params, batch, recipe=recipe, iterations=iterations, step=state.step
    )
    error = jnp.mean(jnp.square(image - batch["hr"].astype(image.dtype)), (1, 2, 3))
    psnr = jnp.mean(10 * jnp.log10(255**2 / jnp.maximum(error, 1e-6)))
    if axis_name is not None:
        grads, loss, psnr = lax.pmean((grads, loss, psnr), axis_name)

    updates, opt_state = make_optimizer(recipe).update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    # A young average follows closely, so that it soon forgets where the run started.
    decay = jnp.minimum(config.ema_decay, (1 + state.step) / (10 + state.step))
    ema: Any = optax.incremental_update(params, state.ema, 1 - decay)
    metrics = {"loss": loss, "psnr": psnr, "grad_norm": optax.tree.norm(grads)}
    if recipe.optimizer is None:
        metrics["learning_rate"] = learning_rate(config)(state.step)
    sizes = group_norms(state.params)
    for name, change in group_norms(updates).items():
        metrics[f"update_ratio_{name}"] = change / jnp.maximum(sizes[name], 1e-12)
    return TrainState(state.step + 1, params, opt_state, ema), metrics
