"""Peak memory of `isrrescnet upscale` against the size of the picture.

    python -m experiments.benchmark_memory [--megapixels 0.25 0.5 1 --weights x4 --iterations 1]

Every size runs in a process of its own, whose peak of resident memory the system reports: reading,
all iterations and writing together. The iterations reuse the same memory, so few show as much as
all. `--weights small` is a network of 4 features, which takes seconds where the official one takes
minutes: outside of the windows, whose size does not depend on the picture, its memory is the same.
"""

import dataclasses
import datetime
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

EXAMPLE = Path(__file__).parent.parent / "examples" / "astronaut.png"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    megapixels: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Sizes of the input pictures, of 4:3."""
    scale: int = 4
    """Factor."""
    weights: str = "x4"
    """Shipped name, file, or small."""
    iterations: int = 1
    """Of the network."""
    max_memory: str = "8G"
    """Handed to the command."""


def small(path: Path, scale: int) -> str:
    """Write weights of a network as deep as the official one, with 4 features."""
    import jax

    import isrrescnet_jax as isr

    config = isr.ModelConfig(features=4, scale=scale)
    isr.save_weights(isr.init_weights(config, jax.random.key(0)), path)
    return str(path)


def measure(config: Benchmark, weights: str, megapixels: float, folder: Path) -> tuple[int, float]:
    """Peak bytes and seconds of one run."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    shape = (round(width * 3 / 4), width)
    photo = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    times = [-(-n // m) for n, m in zip(shape, photo.shape, strict=False)]
    source = folder / "input.bmp"
    Image.fromarray(np.tile(photo, (*times, 1))[: shape[0], : shape[1]]).save(source)
    command = [sys.executable, "-m", "isrrescnet_jax.cli", "upscale", source, "--weights", weights]
    command += ["--scale", config.scale, "--iterations", config.iterations, "--format", "bmp"]
    command += ["--max-memory", config.max_memory, "--out", folder / "out", "--overwrite"]
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return usage.ru_maxrss * 1024, time.perf_counter() - start


def main(config: Benchmark) -> None:
    """Print a table and a straight line through it."""
    print(f"jax {version('jax')}, {os.cpu_count()} cores, {datetime.date.today()}; {config}\n")
    print("| input, MP | output, MP | peak memory, MiB | seconds |\n| ---: | ---: | ---: | ---: |")
    sizes, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        weights = config.weights
        if weights == "small":
            weights = small(Path(folder, "small.safetensors"), config.scale)
        for megapixels in config.megapixels:
            peak, seconds = measure(config, weights, megapixels, Path(folder))
            sizes.append(megapixels * config.scale**2)
            peaks.append(peak / 2**20)
            row = f"{megapixels} | {sizes[-1]:g} | {peaks[-1]:.0f} | {seconds:.0f}"
            print(f"| {row} |", flush=True)
    if len(sizes) > 1:
        slope, base = np.polyfit(sizes, peaks, 1)
        at_128 = base + 128 * slope
        print(f"\n{base:.0f} MiB + {slope:.1f} MiB for each megapixel of the output;")
        print(f"128 megapixels: {at_128 / 1024:.1f} GiB")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
