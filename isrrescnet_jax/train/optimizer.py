"""Optimisers and their learning rates."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ..messages import one_line
from .config import Recipe, TrainConfig, as_recipe


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """Learning rate of each step: linear warm-up, then constant, stepped or cosine."""
    peak = config.learning_rate
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(config.steps - config.warmup_steps, 1))
    elif config.schedule == "stepped":
        # Milestones count from the first step of the run, the schedule from the end of the warm-up.
        drops = {m - config.warmup_steps: config.milestone_factor for m in config.milestones}
        after = optax.piecewise_constant_schedule(peak, drops)
    else:
        after = optax.constant_schedule(peak)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def _amsgrad(b1: float, b2: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """AMSGrad as PyTorch computes it, m_hat / (sqrt(max_t v_t / (1 - b2^t)) + eps).

    The maximum is over the v before their bias is corrected. Optax by default corrects first, and
    the large v_hat of the first steps then hold the steps down for good.
    (Reddi, Kale & Kumar, "On the convergence of Adam and beyond", ICLR 2018.)
    """
    moments = optax.scale_by_amsgrad(b1, b2, bias_correction_nu=False)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = moments.update(updates, state, params)
        assert isinstance(state, optax.ScaleByAmsgradState)
        m = optax.tree.bias_correction(state.mu, b1, state.count)
        v = optax.tree.bias_correction(state.nu_max, b2, state.count)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), m, v), state

    return optax.GradientTransformation(moments.init, update)


def muon(
    learning_rate: float | optax.Schedule,
    *,
    beta: float = 0.95,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> optax.GradientTransformation:
    """Muon for the directions v (or kernels) of the convolutions, Adam for everything else.

    The momentum of v, as a matrix of all (height, width, in) by out, is replaced by the nearest
    one whose singular values are all the same, near 1 (more exactly 0.7 to 1.2, by five
    Newton-Schulz steps): all directions of the matrix learn at one speed. As w = g v / |v|, the
    lengths g and the rest keep Adam's, with Nesterov's momentum as Optax couples the two.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024,
    https://kellerjordan.github.io/posts/muon.

    Args:
        learning_rate: of both, constant or by step.
        beta: decay of the momentum of v.
        beta1, beta2: decays in Adam.
    """
    return contrib.muon(
        learning_rate,
        beta=beta,
        adam_b1=beta1,
        adam_b2=beta2,
        muon_weight_dimension_numbers=_matrices,
    )


def _matrices(params: Any) -> Any:
    """How a leaf is a matrix for Muon, or None; Flax calls kernels without a length `kernel`."""
    as_matrix = contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)

    def one(path, leaf):
        named = path[-1].key in ("v", "kernel")
        return as_matrix if named and getattr(leaf, "ndim", 0) == 4 else None

    return jax.tree_util.tree_map_with_path(one, params)


def make_optimizer(recipe: Recipe | TrainConfig) -> optax.GradientTransformation:
    """Clipping, then the optimiser, then the learning rate.

    Raises:
        ValueError: the recipe's function of the configuration fails, or gives no optimiser.
    """
    recipe = as_recipe(recipe)
    config, parts = recipe.config, []
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if recipe.optimizer is None:
        parts += _of_fields(config)
    elif isinstance(recipe.optimizer, optax.GradientTransformation):
        parts.append(recipe.optimizer)
    else:
        try:
            parts.append(recipe.optimizer(config))
        except Exception as error:
            raise ValueError(f"optimizer(config) fails: {_reason(error)}") from error
        if not isinstance(parts[-1], optax.GradientTransformation):
            kind = type(parts[-1]).__name__
            raise ValueError(f"optimizer(config) gives no optax.GradientTransformation but {kind}")
    optimizer = optax.chain(*parts)
    if config.train_schedule:
        return optimizer
    return optax.partition({"trained": optimizer, "fixed": optax.set_to_zero()}, _fixed)


def _of_fields(config: TrainConfig) -> list[optax.GradientTransformation]:
    """The optimiser that the configuration names, and its learning rate."""
    rate = learning_rate(config)
    if config.optimizer == "muon":
        return [muon(rate, beta1=config.beta1, beta2=config.beta2)]
    if config.optimizer == "sgd":
        parts = [optax.trace(config.beta1) if config.beta1 else optax.identity()]
    elif config.optimizer == "amsgrad":
        parts = [_amsgrad(config.beta1, config.beta2)]
    else:
        parts = [optax.scale_by_adam(config.beta1, config.beta2)]
    if config.optimizer == "adamw":
        # w = g v / |v|: only g scales the weight, shrinking v would but raise its learning rate.
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_lengths))
    return [*parts, optax.scale_by_learning_rate(rate)]


def _fixed(params: dict[str, Any]) -> dict[str, str]:
    """What `train_schedule=False` leaves as it is."""
    return {name: "fixed" if name in ("alpha", "w") else "trained" for name in params}


def _lengths(params: Any) -> Any:
    """True where a leaf is a length g of a weight-normalised convolution."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "g", params)


def check_optimizer(optimizer: optax.GradientTransformation, params: dict[str, Any]) -> None:
    """A step in shapes alone, to find out before the first one.

    Args:
        optimizer: of Optax.
        params: arrays or their shapes.

    Raises:
        ValueError: it fails, its updates are not like the parameters, or a step changes the
            structure of its state.
    """
    try:
        state = jax.eval_shape(optimizer.init, params)
        updates, after = jax.eval_shape(optimizer.update, params, state, params)
    except Exception as error:
        reason = _reason(error)
    else:
        reason = (
            _difference("an update", updates, params)
            or _difference("after a step the state", after, state)
            or _unsaved(state)
        )
    if reason:
        raise ValueError(f"the optimizer does not fit the parameters: {reason}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:500]}"


def _difference(what: str, found: Any, expected: Any) -> str | None:
    """Where two trees of shapes differ, if they do."""
    found, expected = structure(found), structure(expected)
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            parts = f"{name} is {found.get(name)}, not {expected.get(name)}"
            return f"{what} has another structure: {parts}"
    return None


def _unsaved(state: Any) -> str | None:
    """Why it could not be written to a checkpoint."""
    for name, kind in structure(state).items():
        if "key<" in kind:
            return f"its state {name} is a random key, which cannot be saved"
    return None


def structure(tree: Any) -> dict[str, str]:
    """Shape and type of every leaf, by its path: {"[0].count": "() int32", ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.shape} {leaf.dtype}"
        for path, leaf in leaves
    }
