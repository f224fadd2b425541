"""ISRResCNet in JAX: single-image super-resolution by unrolled proximal-gradient iterations."""

import gc

_collecting = gc.isenabled()
gc.disable()  # what JAX imports stays: to search it for garbage takes a tenth of a second
try:
    from . import analysis
    from .config import ModelConfig
    from .physics.checks import adjointness, operator_norm
    from .physics.imaging import Convolution, Fourier, Mask
    from .physics.noise import noise_level
    from .physics.operator import Composition, Operator, Scaled
    from .physics.operators import Bicubic, Bilinear, Blur, Decimation
    from .prior.conv import Conv, conv
    from .prior.network import LearnedPrior, init_weights
    from .solver.acceleration import Anderson, Plain, Relaxed
    from .solver.backward import Checkpointed, Full, Random, Truncated, Until, Window
    from .solver.constraint import Box, NonNegative, Unconstrained
    from .solver.implicit import Implicit, Neumann
    from .solver.state import Iteration, State
    from .solver.unroll import Solution, reconstruct, unroll
    from .upscaler import upscale
    from .weights import Weights, load_weights, save_weights, shipped_weights
finally:
    if _collecting:
        gc.enable()

__version__ = "0.1.0"

__all__ = [
    "Anderson",
    "Bicubic",
    "Bilinear",
    "Blur",
    "Box",
    "Checkpointed",
    "Composition",
    "Conv",
    "Convolution",
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
    "Random",
    "Relaxed",
    "Scaled",
    "Solution",
    "State",
    "Truncated",
    "Unconstrained",
    "Until",
    "Weights",
    "Window",
    "adjointness",
    "analysis",
    "conv",
    "init_weights",
    "load_weights",
    "noise_level",
    "operator_norm",
    "reconstruct",
    "save_weights",
    "shipped_weights",
    "unroll",
    "upscale",
]
