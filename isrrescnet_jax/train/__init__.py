"""Training: recipes, the step, many devices, checkpoints and the loop around them."""

from .recipe import run_recipe
from .state import TrainConfig, TrainState, init_state
from .step import objective, train_step

__all__ = [
    "TrainConfig",
    "TrainState",
    "init_state",
    "objective",
    "run_recipe",
    "train",
    "train_step",
]


def __getattr__(name: str):
    """`train` on first use: Orbax, Grain and TensorBoard take seconds to import."""
    if name == "train":
        from .loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
