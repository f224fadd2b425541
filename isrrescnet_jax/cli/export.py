"""`isrrescnet export`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from ..files import atomic_path
from .model import identity
from .reports import check_out
from .startup import uncollected


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the upscaler as StableHLO, which JAX and flatbuffers run alone, at any size."""

    out: Annotated[Path, arg(aliases=["-o"])]
    """The file, such as x4.stablehlo."""
    scale: Annotated[
        Literal[2, 3, 4] | None, arg(aliases=["-s"], help_behavior_hint="(default: 4)")
    ] = None
    """Factor by which height and width grow; that of --weights where these are given."""
    weights: Annotated[str | None, arg(aliases=["-w"])] = None
    """Shipped name (x4), .safetensors file, or hf://user/name of the Hugging Face hub; the shipped
    ones for the scale by default."""
    iterations: int | None = None
    """Number of iterations; as many as were trained by default."""
    noise: float | Literal["estimate"] = "estimate"
    """Noise level of the input in grey levels, if known."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the network's features; bfloat16 is faster on GPUs and TPUs, and slower on CPUs."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """What the file can run on."""
    overwrite: bool = False
    """Replace the file if it exists."""

    def run(self) -> int:
        """Write it."""
        check_out(self.out, self.overwrite, [Path(self.weights)] if self.weights else ())
        if self.iterations is not None and self.iterations < 1:
            raise ValueError(f"--iterations must be at least 1, not {self.iterations}")
        if self.noise != "estimate" and not 0 <= self.noise < float("inf"):
            raise ValueError(f"--noise must be estimate or at least 0, not {self.noise}")
        with uncollected():
            from ..export import export_program
            from ..weights import load_weights

        name = self.weights or f"x{self.scale or 4}"
        weights = load_weights(name)
        scale = self.scale or weights.config.scale or 4
        data = export_program(
            weights,
            scale,
            noise=self.noise,
            iterations=self.iterations,
            dtype=self.dtype,
            platforms=self.platforms,
            name=identity(name),
        )
        with atomic_path(self.out, self.overwrite) as temporary:
            temporary.write_bytes(data)
        print(f"{self.out}: x{scale}, {len(data) / 1e6:.1f} MB, for {', '.join(self.platforms)}")
        return 0
