"""ISRResCNet in JAX: single-image super-resolution by unrolled proximal-gradient iterations."""

import gc

_collecting = gc.isenabled()
gc.disable()  # what JAX imports stays: to search it for garbage takes a tenth of a second
try:
    from .config import ModelConfig
    from .physics.noise import noise_level
    from .physics.operators import Bicubic, Bilinear, Blur, Decimation
    from .prior.conv import Conv, conv
    from .prior.network import LearnedPrior, init_weights
    from .solver.backward import Checkpointed, Full, Truncated, Window
    from .solver.unroll import Solution, reconstruct, unroll
    from .upscaler import upscale
    from .weights import Weights, load_weights, save_weights, shipped_weights
finally:
    if _collecting:
        gc.enable()

__version__ = "0.1.0"

__all__ = [
    "Bicubic",
    "Bilinear",
    "Blur",
    "Checkpointed",
    "Conv",
    "Decimation",
    "Full",
    "LearnedPrior",
    "ModelConfig",
    "Solution",
    "Truncated",
    "Weights",
    "Window",
    "conv",
    "init_weights",
    "load_weights",
    "noise_level",
    "reconstruct",
    "save_weights",
    "shipped_weights",
    "unroll",
    "upscale",
]
