"""One optimiser step, a pure function: for one device or, with a named axis, for many."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact, Int, Num

from ..physics.operators import Bicubic
from ..prior.network import LearnedPrior
from ..solver.unroll import reconstruct
from ..weights import Weights
from .config import Batch, Params, Recipe, TrainConfig, as_recipe
from .losses import iterates_loss, make_loss
from .optimizer import learning_rate, make_optimizer
from .state import TrainState

Metrics = dict[str, Array]


def objective(
    params: Params,
    batch: Batch,
    *,
    recipe: Recipe | TrainConfig,
    iterations: int | None = None,
    step: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of a batch, and what else is known of it: `psnr` in dB, the mean over the images.

    Args:
        params: of `Weights`, or of the recipe's own model; the loss may be differentiated with
            respect to them.
        batch: `lr` (n, h, w, c) and `hr` (n, s h, s w, c) in [0, 255], of any type. Their sizes say
            which scale this is. For a model of the recipe's own, what it takes.
        recipe: or a bare configuration.
        iterations: to be run, static; all of the model by default.
        step: of the run, which decides the number drawn with `backward="random"`.

    Raises:
        ValueError: `hr` is not a multiple of `lr`, or the recipe's loss does not give (n,).
    """
    recipe = as_recipe(recipe)
    if recipe.objective is not None:
        return recipe.objective(params, batch)
    config = recipe.config
    if recipe.solve is None:
        hr = jnp.asarray(batch["hr"], params["alpha"].dtype)
        iterates, counts = _iterates(params, batch, recipe, iterations, step)
    else:
        iterates, counts = recipe.solve(params, batch)[None], np.ones(1)
        hr = jnp.asarray(batch["hr"], iterates.dtype)
    loss = recipe.loss or make_loss(config.loss, config.charbonnier_epsilon)
    return iterates_loss(iterates, hr, counts, loss), {"psnr": jnp.mean(psnr(iterates[-1], hr))}


def _iterates(
    params: Params,
    batch: Batch,
    recipe: Recipe,
    iterations: int | None,
    step: Int[Array, ""] | None,
) -> tuple[Float[Array, "K n H W c"], np.ndarray]:
    """Those that are in the loss, or all, and their weights in it."""
    config = recipe.config
    lr, shape = jnp.asarray(batch["lr"], params["alpha"].dtype), batch["hr"].shape
    scale = shape[1] // lr.shape[1]
    if shape[1:3] != (scale * lr.shape[1], scale * lr.shape[2]):
        raise ValueError(f"hr {shape} is not a multiple of lr {lr.shape}")
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
    if solution.iterates is None:
        return jnp.asarray(solution.image)[None], counts[-1:]
    return jnp.asarray(solution.iterates), counts


def psnr(image: Inexact[Array, "n h w c"], target: Num[ArrayLike, "n h w c"]) -> Float[Array, " n"]:
    """10 log10(255^2 / mean |image - target|^2) of each image, in dB; 108 at most."""
    error = jnp.mean(jnp.square(jnp.abs(image - jnp.asarray(target))), (1, 2, 3))
    return 10 * jnp.log10(255**2 / jnp.maximum(error, 1e-6))


def group_norms(tree: Any) -> dict[str, Float[Array, ""]]:
    """Norm of all directions v, of all lengths g, and of all other parameters together."""
    groups: dict[str, list[Array]] = {"v": [], "g": [], "other": []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        groups.get(path[-1].key, groups["other"]).append(leaf)
    return {name: optax.tree.norm(leaves) for name, leaves in groups.items() if leaves}


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
        batch: as `objective` takes it; this device's share, all shares of one size.
        recipe: static, or a bare configuration.
        iterations: to be run, static; all of the model by default.
        axis_name: the axis of the devices, over which gradients and metrics are averaged.

    Returns:
        The state after the step, and the metrics `loss`, those of the objective, `grad_norm`
        (before clipping), `learning_rate` (not with an optimizer of the recipe's own), and
        `update_ratio_v`, `_g` and `_other`: |update| / |parameters| of all directions, of all
        lengths and of the rest (each where there are any).
    """
    recipe = as_recipe(recipe)
    config = recipe.config
    (loss, found), grads = jax.value_and_grad(objective, has_aux=True)(
        state.params, batch, recipe=recipe, iterations=iterations, step=state.step
    )
    if axis_name is not None:
        grads, loss, found = lax.pmean((grads, loss, found), axis_name)

    updates, opt_state = make_optimizer(recipe).update(grads, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    # A young average follows closely, so that it soon forgets where the run started.
    decay = jnp.minimum(config.ema_decay, (1 + state.step) / (10 + state.step))
    ema: Any = optax.incremental_update(params, state.ema, 1 - decay)
    metrics = found | {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    if recipe.optimizer is None:
        metrics["learning_rate"] = learning_rate(config)(state.step)
    sizes = group_norms(state.params)
    for name, change in group_norms(updates).items():
        metrics[f"update_ratio_{name}"] = change / jnp.maximum(sizes[name], 1e-12)
    return TrainState(state.step + 1, params, opt_state, ema), metrics
