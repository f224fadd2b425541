"""How good and how fast the shipped weights are: a point for each way to run them.

    python -m experiments.quality_speed Set5/ --scales 4 --parts speed    # Set5/x4/HR, Set5/x4/LR

Quality is the mean PSNR on Y over a benchmark, whole images (the protocol of the paper). Speed is
that of one photograph, all ways of a scale in turns in one process: seconds on the processors, all
cores together, which other work changes less; their median counts. What is measured replaces what
the JSON had; `python -m experiments.pictures` draws it.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import tyro
from tyro.conf import Positional

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.config import SCALES
from isrrescnet_jax.evaluation import metrics
from isrrescnet_jax.evaluation.degrade import resize
from isrrescnet_jax.evaluation.evaluate import Benchmark, Row, evaluate
from isrrescnet_jax.files import atomic_path

from . import harness


@dataclasses.dataclass(frozen=True)
class Way:
    """Weights and how they are run.

    Attributes:
        weights: a shipped name.
        iterations: so many of theirs, the first.
        ensemble: the mean over flips and rotations.
    """

    weights: str
    iterations: int
    ensemble: bool = False

    def __str__(self) -> str:
        return f"{self.weights}, K = {self.iterations}{', ensemble' if self.ensemble else ''}"

    def upscaler(self) -> isr.Upscaler:
        """Ready to run."""
        weights = isr.load_weights(self.weights)
        return isr.Upscaler(weights, iterations=self.iterations, ensemble=self.ensemble)


def ways(scale: int) -> list[Way]:
    """One iteration, its ensemble, and the ten that were trained together, or the first of them."""
    one, ten = f"x{scale}", f"x{scale}_k10"
    return [Way(one, 1), Way(one, 1, ensemble=True), *(Way(ten, k) for k in (1, 2, 5, 10))]


@dataclasses.dataclass(frozen=True)
class Measuring:
    """What is measured."""

    benchmark: Positional[Path]
    """Folder that contains x2/HR, x2/LR, ..."""
    scales: tuple[int, ...] = SCALES
    """Those to measure."""
    parts: tuple[Literal["quality", "speed"], ...] = ("quality", "speed")
    """What to measure of them."""
    side: int = 192
    """Of the timed image, at high resolution, cut to a multiple of the scale."""
    rounds: int = 5
    """How often all take turns."""
    out: Path = Path(__file__).with_suffix(".json")
    """The JSON."""


def quality(measuring: Measuring, scale: int) -> dict[str, Any]:
    """PSNR of bicubic interpolation and of all ways; those that differ in K alone share a run."""
    folder = measuring.benchmark / f"x{scale}"
    benchmark = Benchmark(folder / "HR", folder / "LR", scale)
    psnr: dict[str, list[float]] = {"bicubic": []}
    for _, group in groupby(ways(scale), lambda way: (way.weights, way.ensemble)):
        found = iterates(list(group), benchmark)
        psnr |= found
        print(
            ", ".join(f"{name}: {fmean(values):.2f} dB" for name, values in found.items()),
            flush=True,
        )
    means = {name: round(fmean(values), 4) for name, values in psnr.items()}
    return {"benchmark": benchmark.name, "psnr": means}


def iterates(group: list[Way], benchmark: Benchmark) -> dict[str, list[float]]:
    """PSNR of every image, of bicubic interpolation and of ways of which the last has all K."""
    upscaler = group[-1].upscaler()
    found: dict[str, list[float]] = {name: [] for name in ("bicubic", *map(str, group))}
    last: dict[int, np.ndarray] = {}

    def model(color: np.ndarray) -> np.ndarray:
        if len(group) == 1:
            last[group[0].iterations] = upscaler(color)
        else:
            solution = upscaler.trace(color)
            assert solution.iterates is not None
            last.update(enumerate(np.asarray(solution.iterates)[:, 0], 1))
        return last[group[-1].iterations]

    def each(row: Row, pictures: dict[str, np.ndarray]) -> None:
        found["bicubic"].append(row.bicubic["paper"].psnr)
        for way in group:
            image = images.to_uint8(last[way.iterations])
            found[str(way)].append(metrics.luma_psnr(image, pictures["hr"]))

    evaluate(benchmark, model, each=each)
    return found


def speed(measuring: Measuring, scale: int) -> dict[str, Any]:
    """Seconds that all of them take on the processors, from the fastest turn to the slowest."""
    low = harness.photograph(*[measuring.side // scale] * 2)
    height, width = (scale * side for side in low.shape[:2])
    calls: dict[str, Callable[[], Any]] = {"bicubic": partial(resize, low, height, width)}
    for way in ways(scale):
        calls[str(way)] = partial(way.upscaler(), low.astype(np.float32))
    seconds = harness.taking_turns(calls, measuring.rounds, clock=time.process_time)
    kept = {name: [float(f"{t:.4g}") for t in times] for name, times in seconds.items()}
    return {"pixels": height * width, "seconds": kept}


def main(measuring: Measuring) -> None:
    """Measure and write, one part after the other."""
    for scale in measuring.scales:
        for part in measuring.parts:
            made = {"environment": harness.environment("isrrescnet-jax", "jax", "numpy")}
            made |= {"quality": quality, "speed": speed}[part](measuring, scale)
            found = json.loads(measuring.out.read_text()) if measuring.out.exists() else {}
            found.setdefault(f"x{scale}", {})[part] = made
            with atomic_path(measuring.out) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Measuring, description=__doc__))
