"""How many training patches the input pipeline makes: `python -m experiments.benchmark_data`.

Everything runs on a single core, so a machine makes at most that many patches per second for each
core it can spare; with images in memory, threads share Python's lock and one core is what counts.
"""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from isrrescnet_jax import data

from . import harness


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure patches per second per core.

    Attributes:
        hr: folder of images; by default noisy synthetic ones of the size of DIV2K's.
        images: number of the synthetic ones.
        patch: sides of the patches to measure, in high-resolution pixels.
        scale: factor between the resolutions.
        batch: patches in a batch.
        seconds: time for each measurement.
    """

    hr: str | None = None
    images: int = 24
    patch: tuple[int, ...] = (96, 192)
    scale: int = 4
    batch: int = 32
    seconds: float = 5.0


def synthetic_photos(folder: Path, count: int) -> Path:
    """Random waves with noise, which PNG compresses about as well as photographs."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:1356, :2040]
    for k in range(count):
        speed = rng.uniform(0.005, 0.1, (2, 3))
        waves = np.sin(rows[..., None] * speed[0] + columns[..., None] * speed[1])
        noisy = 127 + 100 * waves + rng.normal(0, 3, waves.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return folder


def patches_per_second(
    config: data.DataConfig, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Of a stream, once what was prepared ahead of the first batch is used up."""
    batches = data.train_batches(config)
    for _ in range(2 * (os.cpu_count() or 1) + 2):
        next(batches)
    start, count = clock(), 0
    while (elapsed := clock() - start) < seconds:
        next(batches)
        count += config.batch
    batches.close()
    return count / elapsed


def main(options: Benchmark) -> None:
    """Print a table."""
    print(harness.environment("grain", "numpy", "pillow", "tensorflow-datasets"))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # Threads started later inherit this.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hr = options.hr or str(synthetic_photos(folder, options.images))
        tfds = data.prepare_tfds({"train": hr}, folder / "tfds", options.scale)
        table = harness.Table("images", "patch", "patches/s per core")
        for patch in options.patch:
            for name, source, memory in [
                ("in memory", hr, 64.0),
                ("decoded for every patch", hr, 0.0),
                ("TFDS, decoded for every patch", tfds, 0.0),
            ]:
                config = data.DataConfig(
                    hr=source,
                    data_dir=str(folder / "tfds"),
                    scale=options.scale,
                    patch=patch,
                    batch=options.batch,
                    memory=memory,
                    cache=str(folder / "lr"),
                    skip_bad=True,
                )
                rate = patches_per_second(config, options.seconds)
                table.row(name, f"{patch}x{patch}", f"{rate:,.0f}")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
