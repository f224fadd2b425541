"""Where a run begins: from weights, or fresh."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
from etils import epath

from .. import tensors
from ..prior.network import init_weights
from ..solver.unroll import schedule
from ..trained import check_like
from ..weights import Weights, load_weights, with_noise_input
from .checkpoint import read_average
from .config import Params, Recipe, TrainConfig, as_recipe


def fresh_params(recipe: Recipe | TrainConfig) -> Params:
    """Random parameters of the recipe's model."""
    recipe = as_recipe(recipe)
    key = jax.random.key(recipe.config.seed)
    if recipe.init is None:
        return jax.jit(init_weights, static_argnums=0)(recipe.config.model, key).params
    try:
        params = jax.jit(recipe.init)(key)
        names: Any = tensors.flatten(params)
        if jax.tree.structure(tensors.unflatten(names)) != jax.tree.structure(params):
            raise TypeError("not nested dictionaries with names without dots")
    except Exception as error:
        raise ValueError(f"init(key) fails: {type(error).__name__}: {error}") from error
    for name, array in names.items():
        if not (isinstance(array, jax.Array) and array.dtype.kind == "f"):
            raise ValueError(f"init(key): {name} is no array of real numbers")
    return params


def initial_params(recipe: Recipe | TrainConfig) -> Params:
    """The weights `config.init`, made to fit the recipe's model; fresh ones if it is None.

    Of a workdir they are the average in its last checkpoint. Those of a recipe's own model must fit
    as they are. Tensors of the library's network are the same for any scale, physics, step and
    feedback steps. Iterations beyond theirs start with their last (alpha, w), as in `reconstruct`,
    and a noise input that they lack with zeros.

    Raises:
        ValueError: they are of another network.
    """
    recipe = as_recipe(recipe)
    config, model = recipe.config, recipe.config.model
    if config.init is None:
        return fresh_params(recipe)
    run = epath.Path(config.init)
    of_run = read_average(run) if run.is_dir() else None
    if recipe.init is not None:
        params = of_run[0] if of_run else tensors.unflatten(tensors.read(Path(config.init))[0])
        try:
            check_like(params, jax.eval_shape(lambda: fresh_params(recipe)))
        except ValueError as error:
            raise ValueError(f"{config.init} does not fit the recipe: {error}") from None
        return params
    weights = load_weights(config.init) if of_run is None else Weights(*of_run)
    for name in ("physics", "step"):
        theirs, ours = getattr(weights.config, name), getattr(model, name)
        if theirs != ours:
            warnings.warn(
                f"{config.init} was trained with {name} {theirs}, and goes on with {ours}",
                stacklevel=2,
            )
    if model.noise_input:
        weights = with_noise_input(weights)
    theirs, ours = dataclasses.asdict(weights.config), dataclasses.asdict(model)
    different = [
        f"{name} is {theirs[name]}, not {ours[name]}"
        for name in ("channels", "features", "depth", "noise_input")
        if theirs[name] != ours[name]
    ]
    if different:
        raise ValueError(f"{config.init} does not fit the model: {', '.join(different)}")
    alpha, w = schedule(weights, model.iterations)
    return weights.params | {"alpha": alpha, "w": w}
