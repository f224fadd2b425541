"""The whole upscaler as one file of StableHLO, for programs that have JAX and nothing of ours.

Height, width and number of the images are symbolic, and one file has the program for CPUs, CUDA
and TPUs. What runs it, with `pip install jax flatbuffers pillow`, Pillow for the pictures alone:

    import sys
    import jax.export
    import numpy as np
    from PIL import Image

    with open(sys.argv[1], "rb") as file:
        program = jax.export.deserialize(bytearray(file.read()))
    picture = np.asarray(Image.open(sys.argv[2]).convert("RGB"), np.float32)
    result = np.asarray(jax.jit(program.call)(picture[None]))[0]
    Image.fromarray(np.rint(result).astype(np.uint8)).save(sys.argv[3])

JAX compiles it anew for each size, and the image is done at once: `Upscaler` has neither limit.
Later releases of JAX read such a file for at least six months, earlier ones may not: 0.11 does
what 0.10 wrote, but not the other way round.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax import export
from jaxtyping import Array, Float

from .messages import needed
from .physics.operators import Bicubic, for_weights
from .physics.symbolic import SHORTEST, at_any_size
from .prior.network import LearnedPrior
from .prior.parameters import fuse
from .solver.unroll import reconstruct
from .version import __version__
from .weights import Weights, load_weights

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_program(
    weights: Weights | str,
    scale: int | None = None,
    *,
    noise: Literal["estimate"] | float = "estimate",
    iterations: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    name: str | None = None,
) -> bytes:
    """`reconstruct` with weights and operator inside, as `jax.export` serializes it.

    The program takes images (n, h, w, c), float32 in [0, 255] with sides of at least 8 pixels, and
    gives (n, scale h, scale w, c), in [0, 255] and not rounded.

    >>> import json, jax, numpy as np, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> data = isr.export_program(weights, platforms=["cpu"], name="untrained")
    >>> program = jax.export.deserialize(bytearray(data))
    >>> program.call(np.zeros((1, 8, 9, 3), np.float32)).shape
    (1, 16, 18, 3)
    >>> about = json.loads(program.fun_name)  # what the file says of itself
    >>> about["weights"], about["scale"], about["iterations"], about["physics"]
    ('untrained', 2, 2, 'reference')

    Args:
        weights: what to run; a shipped name or a file, too.
        scale: the factor; that of the weights by default.
        noise: "estimate", or the known noise level in grey levels.
        iterations: all that were trained by default.
        dtype: of the features.
        platforms: for which the file has a program: "cpu", "cuda", "rocm" and "tpu".
        name: of the weights, for the file; by default what `weights` was given as, if not values.

    Raises:
        ValueError: neither scale nor weights name one, or no such platform, scale or weights.
        ModuleNotFoundError: `flatbuffers`, which JAX writes such files with, is not installed.
    """
    needed("flatbuffers")
    if not isinstance(weights, Weights):
        name, weights = name or weights, load_weights(weights)
    config = weights.config
    scale = scale or config.scale
    if scale is None:
        raise ValueError("these weights name no scale: give one")
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise ValueError(f"platforms must be of {', '.join(PLATFORMS)}, not {unknown or 'none'}")
    operator: Bicubic = for_weights(Bicubic(scale), config)
    # As constants of the program; |v| would else be divided by in each run.
    prior = LearnedPrior(fuse(jax.tree.map(np.asarray, weights.params["network"])), config, dtype)
    rest = Weights({name: np.asarray(weights.params[name]) for name in ("alpha", "w")}, config)

    def run(y: Float[Array, "n h w c"]) -> Float[Array, "n H W c"]:
        placed = at_any_size(operator, y.shape[1], y.shape[2])
        options: dict[str, Any] = {"noise": noise, "iterations": iterations, "prior": prior}
        return reconstruct(rest, y, operator=placed, **options).image

    about = {
        "program": f"isrrescnet-jax {__version__}",
        "weights": name,
        "scale": scale,
        "iterations": iterations or config.iterations,
        "physics": config.physics,
        "noise": noise,
        "dtype": dtype,
    }
    run.__name__ = json.dumps(about)  # the one text that `jax.export` keeps
    bounds = ["n >= 1", f"h >= {SHORTEST}", f"w >= {SHORTEST}"]
    n, h, width = export.symbolic_shape("n, h, w", constraints=bounds)
    images = jax.ShapeDtypeStruct((n, h, width, config.channels), np.float32)
    return bytes(export.export(jax.jit(run), platforms=list(platforms))(images).serialize())
