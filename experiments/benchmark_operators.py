"""The exact bicubic operator against the reference's: time per call, alternated in one run.

    python -m experiments.benchmark_operators [--rounds 9] [--json FILE]

The compiled operator on a whole image or a batch of patches. The ratio is that of the medians,
exact by reference; below 1 the exact operator is the faster one.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import isrrescnet_jax as isr

from . import harness

METHODS: dict[str, Callable[..., jax.Array]] = {
    "gradient": lambda operator, v, y: operator.gradient(v, y),
    "initial": lambda operator, v, y: operator.initial(y),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        scales: factors.
        sizes: pairs of the number of images and of their side in high-resolution pixels.
        rounds: calls of each, in turn.
        json: file for the numbers.
    """

    scales: tuple[int, ...] = (2, 3, 4)
    sizes: tuple[tuple[int, int], ...] = ((8, 96), (1, 512), (1, 1020), (1, 2040))
    rounds: int = 9
    json: Path | None = None


def measure(scale: int, images: int, side: int, method: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of both operators, and their ratio."""
    side -= side % scale
    rng = np.random.default_rng(0)
    v, y = (
        jnp.asarray(rng.uniform(0, 255, (images, n, n, 3)).astype(np.float32))
        for n in (side, side // scale)
    )

    def call(physics: str) -> Callable[[], jax.Array]:
        operator = isr.Bicubic(scale, reference=physics == "reference")
        compiled = jax.jit(functools.partial(METHODS[method], operator))
        return lambda: compiled(v, y).block_until_ready()

    seconds = harness.medians({p: call(p) for p in ("reference", "exact")}, rounds)
    times = {physics: 1e3 * time for physics, time in seconds.items()}
    size = {"scale": scale, "images": images, "side": side, "method": method}
    return size | times | {"ratio": times["exact"] / times["reference"]}


def main(benchmark: Benchmark) -> None:
    """Print a table."""
    print(harness.environment("jax"))
    table = harness.Table("images", "method", "reference, ms", "exact, ms", "ratio")
    rows = []
    for scale in benchmark.scales:
        for images, side in benchmark.sizes:
            for method in METHODS:
                row = measure(scale, images, side, method, benchmark.rounds)
                rows.append(row)
                numbers = (f"{row[name]:.2f}" for name in ("reference", "exact", "ratio"))
                table.row(f"x{scale}, {images} x {row['side']}^2", method, *numbers)
    harness.write_json(benchmark.json, rows, "jax")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
