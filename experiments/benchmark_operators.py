"""The exact bicubic operator against the reference's: time per call, alternated in one run.

    python -m experiments.benchmark_operators [--rounds 9] [--json FILE]

`jax` is the compiled operator on a whole image or a batch of patches, `numpy` that on the host, in
bands of rows, which pictures of all sizes use. The ratio is that of the medians, exact by
reference; below 1 the exact operator is the faster one.
"""

import dataclasses
import datetime
import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import isrrescnet_jax as isr


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        rounds: calls of each, in turn.
        json: file for the numbers.
    """

    rounds: int = 9
    json: Path | None = None


def milliseconds(calls: dict, rounds: int) -> dict:
    """Median time of each call, all of them in turn, after one that compiles."""
    times: dict = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(scale: int, images: int, side: int, rounds: int) -> list[dict]:
    """Rows for `gradient` and `initial` of images of side x side high-resolution pixels."""
    side -= side % scale
    rng = np.random.default_rng(0)
    v = rng.uniform(0, 255, (images, side, side, 3)).astype(np.float32)
    y = rng.uniform(0, 255, (images, side // scale, side // scale, 3)).astype(np.float32)
    methods = {
        "gradient": lambda op, v, y: op.gradient(v, y),
        "initial": lambda op, v, y: op.initial(y),
    }
    rows = []
    for name, method in methods.items():
        calls = {}
        for physics in ("reference", "exact"):
            operator = isr.Bicubic(scale, reference=physics == "reference")
            compiled = jax.jit(lambda v, y, op=operator, method=method: method(op, v, y))
            device = (jnp.asarray(v), jnp.asarray(y))
            calls["jax", physics] = lambda f=compiled, a=device: f(*a)
            calls["numpy", physics] = lambda op=operator, method=method: method(op, v, y)
        times = milliseconds(calls, rounds)
        for where in ("jax", "numpy"):
            pair = {physics: times[where, physics] for physics in ("reference", "exact")}
            size = {"scale": scale, "images": images, "side": side, "method": name, "where": where}
            rows.append(size | pair | {"ratio": pair["exact"] / pair["reference"]})
    return rows


def main(benchmark: Benchmark) -> None:
    """Print a table."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, jax {version('jax')}, "
        f"{datetime.date.today()}"
    )
    print("scale  images       method    where  reference ms  exact ms  ratio")
    rows = []
    for scale in (2, 3, 4):
        for images, side in ((8, 96), (1, 512), (1, 1020), (1, 2040)):
            for row in measure(scale, images, side, benchmark.rounds):
                rows.append(row)
                print(
                    f"x{scale}     {images} x {row['side']:4d}  {row['method']:>9}  "
                    f"{row['where']:>5}"
                    f"  {row['reference']:12.2f}  {row['exact']:8.2f}  {row['ratio']:5.2f}",
                    flush=True,
                )
    if benchmark.json is not None:
        benchmark.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
