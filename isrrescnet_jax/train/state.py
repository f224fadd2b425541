"""What a training run carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..representation import in_one_line
from ..trees import pytree
from .config import Recipe, TrainConfig
from .optimizer import make_optimizer


@pytree
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes; a pytree, of arrays, their shapes or where they are.

    Attributes:
        step: optimiser steps made so far, int32.
        params: of `Weights`.
        opt_state: of Optax.
        ema: moving average of `params`.
    """

    step: Any
    params: dict[str, Any]
    opt_state: Any
    ema: dict[str, Any]

    __repr__ = in_one_line


def init_state(recipe: Recipe | TrainConfig, params: dict[str, Any]) -> TrainState:
    """The state before the first step."""

    def copy(tree):
        # Never weakly typed (a step compiled for that would be compiled again for its own result),
        # and no two leaves one buffer (a step may be given the whole state to use up).
        return jax.tree.map(lambda a: jnp.array(a, jnp.result_type(a)), tree)

    params = copy(params)
    opt_state = copy(make_optimizer(recipe).init(params))
    return TrainState(jnp.int32(0), params, opt_state, copy(params))
