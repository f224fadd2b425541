"""ISRResCNet in JAX: single-image super-resolution by unrolled proximal-gradient iterations."""

import gc

_collecting = gc.isenabled()
gc.disable()  # what JAX imports stays: to search it for garbage takes a tenth of a second
try:
    from .backward import Checkpointed, Full, Truncated, Window
    from .config import ModelConfig
    from .network import LearnedPrior, init_weights
    from .noise import noise_level
    from .operators import Bicubic, Bilinear, Blur, Decimation
    from .unroll import Solution, reconstruct, unroll
    from .upscale import upscale
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
    "Decimation",
    "Full",
    "LearnedPrior",
    "ModelConfig",
    "Solution",
    "Truncated",
    "Weights",
    "Window",
    "init_weights",
    "load_weights",
    "noise_level",
    "reconstruct",
    "save_weights",
    "shipped_weights",
    "unroll",
    "upscale",
]
