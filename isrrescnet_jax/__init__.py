"""ISRResCNet in JAX: single-image super-resolution by unrolled proximal-gradient iterations."""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:  # what type checkers and editors see; the same is imported below, when asked for
    from . import analysis
    from .config import ModelConfig
    from .export import export_program
    from .physics.checks import adjointness, operator_norm
    from .physics.imaging import Convolution, Fourier, Mask
    from .physics.noise import noise_level
    from .physics.operator import Composition, Operator, Scaled
    from .physics.operators import Bicubic, Bilinear, Blur, Decimation
    from .prior.conv import Conv, conv
    from .prior.network import LearnedPrior, init_weights
    from .prior.projection import shrinkage
    from .prior.ridge import ConvexRidge, init_ridge
    from .protocols import Backward, DataTerm, Prior
    from .publish import model_card, save_to_hub
    from .solver.acceleration import Anderson, Plain, Relaxed
    from .solver.backward import Checkpointed, Full, Random, Truncated, Until, Window
    from .solver.constraint import Box, NonNegative, Unconstrained
    from .solver.implicit import Implicit, Neumann
    from .solver.iteration import accept, propose
    from .solver.state import Iteration, State
    from .solver.unroll import Solution, reconstruct, unroll
    from .trained import Trained
    from .trees import pytree
    from .upscaler import Upscaler, upscale
    from .weights import Weights, load_weights, save_weights, shipped_weights

__all__ = [
    "Anderson",
    "Backward",
    "Bicubic",
    "Bilinear",
    "Blur",
    "Box",
    "Checkpointed",
    "Composition",
    "Conv",
    "ConvexRidge",
    "Convolution",
    "DataTerm",
    "Decimation",
    "Fourier",
    "Full",
    "Implicit",
    "Iteration",
    "LearnedPrior",
    "Mask",
    "ModelConfig",
    "Neumann",
    "NonNegative",
    "Operator",
    "Plain",
    "Prior",
    "Random",
    "Relaxed",
    "Scaled",
    "Solution",
    "State",
    "Trained",
    "Truncated",
    "Unconstrained",
    "Until",
    "Upscaler",
    "Weights",
    "Window",
    "accept",
    "adjointness",
    "analysis",
    "conv",
    "export_program",
    "init_ridge",
    "init_weights",
    "load_weights",
    "model_card",
    "noise_level",
    "operator_norm",
    "propose",
    "pytree",
    "reconstruct",
    "save_to_hub",
    "save_weights",
    "shipped_weights",
    "shrinkage",
    "unroll",
    "upscale",
]

_MODULES = {
    "config": ["ModelConfig"],
    "export": ["export_program"],
    "physics.checks": ["adjointness", "operator_norm"],
    "physics.imaging": ["Convolution", "Fourier", "Mask"],
    "physics.noise": ["noise_level"],
    "physics.operator": ["Composition", "Operator", "Scaled"],
    "physics.operators": ["Bicubic", "Bilinear", "Blur", "Decimation"],
    "prior.conv": ["Conv", "conv"],
    "prior.network": ["LearnedPrior", "init_weights"],
    "prior.projection": ["shrinkage"],
    "prior.ridge": ["ConvexRidge", "init_ridge"],
    "protocols": ["Backward", "DataTerm", "Prior"],
    "publish": ["model_card", "save_to_hub"],
    "solver.acceleration": ["Anderson", "Plain", "Relaxed"],
    "solver.backward": ["Checkpointed", "Full", "Random", "Truncated", "Until", "Window"],
    "solver.constraint": ["Box", "NonNegative", "Unconstrained"],
    "solver.implicit": ["Implicit", "Neumann"],
    "solver.iteration": ["accept", "propose"],
    "solver.state": ["Iteration", "State"],
    "solver.unroll": ["Solution", "reconstruct", "unroll"],
    "trained": ["Trained"],
    "trees": ["pytree"],
    "upscaler": ["Upscaler", "upscale"],
    "weights": ["Weights", "load_weights", "save_weights", "shipped_weights"],
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, imported on its first use: JAX takes most of a second."""
    if name == "analysis":
        return importlib.import_module(".analysis", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
