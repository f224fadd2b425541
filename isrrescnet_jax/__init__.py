"""ISRResCNet in JAX: single-image super-resolution by unrolled proximal-gradient iterations."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; the same is imported below, when asked for
    from .config import ModelConfig
    from .physics.noise import noise_level
    from .physics.operators import Bicubic, Bilinear, Blur, Decimation
    from .prior.conv import Conv, conv
    from .prior.network import LearnedPrior, init_weights
    from .prior.projection import shrinkage
    from .protocols import Backward, Operator, Prior
    from .solver.backward import Checkpointed, Full, Truncated, Window
    from .solver.iteration import accept, propose
    from .solver.unroll import Solution, reconstruct, unroll
    from .upscaler import Upscaler, upscale
    from .weights import Weights, load_weights, save_weights, shipped_weights

__version__ = "0.1.0"

__all__ = [
    "Backward",
    "Bicubic",
    "Bilinear",
    "Blur",
    "Checkpointed",
    "Conv",
    "Decimation",
    "Full",
    "LearnedPrior",
    "ModelConfig",
    "Operator",
    "Prior",
    "Solution",
    "Truncated",
    "Upscaler",
    "Weights",
    "Window",
    "accept",
    "conv",
    "init_weights",
    "load_weights",
    "noise_level",
    "propose",
    "reconstruct",
    "save_weights",
    "shipped_weights",
    "shrinkage",
    "unroll",
    "upscale",
]

_MODULES = {
    "config": ["ModelConfig"],
    "physics.noise": ["noise_level"],
    "physics.operators": ["Bicubic", "Bilinear", "Blur", "Decimation"],
    "prior.conv": ["Conv", "conv"],
    "prior.network": ["LearnedPrior", "init_weights"],
    "prior.projection": ["shrinkage"],
    "protocols": ["Backward", "Operator", "Prior"],
    "solver.backward": ["Checkpointed", "Full", "Truncated", "Window"],
    "solver.iteration": ["accept", "propose"],
    "solver.unroll": ["Solution", "reconstruct", "unroll"],
    "upscaler": ["Upscaler", "upscale"],
    "weights": ["Weights", "load_weights", "save_weights", "shipped_weights"],
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, imported on its first use: JAX takes most of a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
