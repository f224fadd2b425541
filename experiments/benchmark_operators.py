"""The exact bicubic operator against the reference's: time per call, alternated in one run.

    python -m experiments.benchmark_operators [--rounds 15] [--json FILE]

The compiled operator on whole images or a batch of patches; on a canvas that images of many sizes
share, whose arrays are inputs of the program; and on a band of rows. The ratio is that of the
medians, exact by reference; below 1 the exact operator is the faster one.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import isrrescnet_jax as isr
from isrrescnet_jax.solver.canvas import on_canvas

from . import harness

PLACES = ("whole", "canvas", "band")
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
        places: whole images; the upper left three quarters of a canvas of that side; a quarter of
            the rows. Batches are whole.
        rounds: calls of each, in turn.
        json: file for the numbers.
    """

    scales: tuple[int, ...] = (2, 3, 4)
    sizes: tuple[tuple[int, int], ...] = ((8, 96), (1, 512), (1, 1020), (1, 2040))
    places: tuple[str, ...] = PLACES
    rounds: int = 15
    json: Path | None = None


def placed(operator: isr.Bicubic, place: str, n: int) -> Any:
    """The operator for n x n low-resolution pixels, or a part of them."""
    if place == "whole":
        return operator
    if place == "canvas":
        return on_canvas(operator, n * 3 // 4, n * 3 // 4, (n, n))
    return operator.at(n, n).part(n // 3, n // 4)


def measure(scale: int, images: int, side: int, place: str, method: str, rounds: int) -> dict:
    """Milliseconds of both operators, and their ratio."""
    n = side // scale
    rows = n // 4 if place == "band" else n
    rng = np.random.default_rng(0)
    v, y = (
        jnp.asarray(rng.uniform(0, 255, (images, rows * s, n * s, 3)).astype(np.float32))
        for s in (scale, 1)
    )

    def call(physics: str) -> Callable[[], jax.Array]:
        operator = isr.Bicubic(scale, reference=physics == "reference")
        there = jax.device_put(placed(operator, place, n))
        compiled = jax.jit(METHODS[method])
        return lambda: compiled(there, v, y).block_until_ready()

    seconds = harness.medians({p: call(p) for p in ("reference", "exact")}, rounds)
    times = {physics: 1e3 * time for physics, time in seconds.items()}
    size = {"scale": scale, "images": images, "side": n * scale, "place": place, "method": method}
    return size | times | {"ratio": times["exact"] / times["reference"]}


def main(benchmark: Benchmark) -> None:
    """Print a table."""
    print(harness.environment("jax"))
    table = harness.Table("images", "place", "method", "reference, ms", "exact, ms", "ratio")
    rows = []
    for scale in benchmark.scales:
        for images, side in benchmark.sizes:
            for place in benchmark.places if images == 1 else ("whole",):
                for method in METHODS:
                    row = measure(scale, images, side, place, method, benchmark.rounds)
                    rows.append(row)
                    numbers = (f"{row[name]:.2f}" for name in ("reference", "exact", "ratio"))
                    size = f"x{scale}, {images} x {row['side']}^2"
                    table.row(size, place, method, *numbers)
    harness.write_json(benchmark.json, rows, "jax")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
