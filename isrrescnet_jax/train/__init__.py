"""Training: recipes, the step, many devices, checkpoints and the loop around them."""

from typing import TYPE_CHECKING

from .config import Recipe, TrainConfig
from .optimizer import learning_rate, make_optimizer, muon
from .recipe import load_recipe, run_recipe
from .state import TrainState, init_state
from .step import objective, psnr, train_step

if TYPE_CHECKING:
    from .loop import train

__all__ = [
    "Recipe",
    "TrainConfig",
    "TrainState",
    "init_state",
    "learning_rate",
    "load_recipe",
    "make_optimizer",
    "muon",
    "objective",
    "psnr",
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
