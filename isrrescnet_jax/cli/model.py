"""Options of the network, shared by the commands that run it."""

import dataclasses
import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import arg

from .. import __version__
from ..files import cache_folder
from ..sizes import parse_bytes
from .startup import keep_compiled, uncollected

if TYPE_CHECKING:
    import isrrescnet_jax.upscaler


@dataclasses.dataclass(frozen=True)
class Model:
    """Options of the network, shared by the commands that run it."""

    weights: Annotated[str | None, arg(aliases=["-w"])] = None
    """Shipped name (x4), .safetensors file, or hf://user/name of the Hugging Face hub; the shipped
    ones for the scale by default."""
    ensemble: bool = False
    """Average over the 8 flips and rotations: slightly better, 8 times the work."""
    tile: int | Literal["auto", "none"] = "auto"
    """Side of tiles in high-resolution pixels; auto: what fits. Exact either way."""
    max_memory: str | None = None
    """Memory for one picture, such as 800M or 6G; what is free by default."""
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Type of the network's features; bfloat16 is faster on GPUs and TPUs. auto: the fastest."""
    noise: float | Literal["estimate"] = "estimate"
    """Noise level of the input in grey levels, if known."""
    iterations: int | None = None
    """Number of iterations; as many as were trained by default."""
    operator: Literal["bicubic", "bilinear", "decimation", "blur"] = "bicubic"
    """How the input lost its resolution."""
    physics: Literal["reference", "exact"] | None = None
    """Kind of the operator; that which the weights were trained with by default."""
    kernel: Path | None = None
    """Blur kernel for --operator blur: a .npy file, (k, k) or (3, k, k)."""
    cache: bool = True
    """Keep compiled programs between runs (in ~/.cache/isrrescnet-jax; see `isrrescnet info`)."""
    trace: Path | None = None
    """Folder for a figure of the iterates of each picture (needs matplotlib)."""

    def upscaler(
        self, scale: int | None, device: Any = None, batch: int | Literal["auto"] = "auto"
    ) -> "isrrescnet_jax.upscaler.Upscaler":
        """Load the weights, for `scale` or the one they were trained for; device work starts."""
        with uncollected():
            from ..physics import operators
            from ..upscaler import Upscaler
            from ..weights import load_weights

        if self.iterations is not None and self.iterations < 1:
            raise ValueError(f"--iterations must be at least 1, not {self.iterations}")
        if self.noise != "estimate" and not 0 <= self.noise < float("inf"):
            raise ValueError(f"--noise must be estimate or at least 0, not {self.noise}")
        if (self.operator == "blur") != (self.kernel is not None):
            raise ValueError("--operator blur and --kernel FILE go together")
        if self.cache:
            keep_compiled(cache_folder())
        weights = load_weights(self.weights or f"x{scale or 4}")
        theirs = weights.config.scale
        scale = scale or theirs or 4
        if theirs not in (None, scale):
            note = f"{self.weights} was trained for x{theirs}, and is used for x{scale}"
            warnings.warn(note, stacklevel=2)
        reference = None if self.physics is None else self.physics == "reference"
        if self.kernel is not None:
            operator = operators.Blur(scale, read_kernel(self.kernel), reference=reference)
        else:
            operator = getattr(operators, self.operator.capitalize())(scale, reference=reference)
        return Upscaler(
            weights,
            scale,
            operator,
            noise=self.noise,
            iterations=self.iterations,
            dtype=self.dtype,
            ensemble=self.ensemble,
            tile=None if self.tile == "none" else self.tile,
            max_memory=self.memory,
            batch=batch,
            device=device,
            progress=True,
        )

    @property
    def memory(self) -> int | None:
        """Bytes that one picture may take, if there is a limit."""
        return None if self.max_memory is None else parse_bytes(self.max_memory, "--max-memory")

    def anywhere(self) -> Any:
        """The same options from every working folder."""
        weights, kernel = self.weights, self.kernel
        if weights is not None and Path(weights).exists():
            weights = str(Path(weights).resolve())
        kernel = None if kernel is None else kernel.resolve()
        return dataclasses.replace(self, weights=weights, kernel=kernel)

    def software(self, upscaler: "isrrescnet_jax.upscaler.Upscaler") -> str:
        """Program, version, weights and the options that change results, without any path."""
        scale = upscaler.operator.scale
        said = {"weights": identity(self.weights or f"x{scale}"), "scale": scale}
        options = dataclasses.replace(self, dtype=upscaler.dtype)
        for field in ("ensemble", "dtype", "noise", "iterations", "operator", "physics"):
            value, default = getattr(options, field), getattr(Model, field)
            if value != default:
                said[field] = value
        if self.kernel is not None:
            said["kernel"] = _hash(self.kernel)
        options = ", ".join(f"{key} {value}" for key, value in said.items())
        return f"isrrescnet-jax {__version__} ({options})"


def identity(weights: str) -> str:
    """Of weights: the name of their file without its folder, and a hash."""
    from ..weights import weights_file

    file = weights_file(weights)
    return f"{file.stem} {_hash(file)}"


def _hash(file: Path) -> str:
    """Twelve digits that tell this file from others."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def read_kernel(path: Path) -> np.ndarray:
    """The array in a .npy file.

    Raises:
        ValueError: no such file, or another kind.
    """
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable .npy file: {error}") from None
