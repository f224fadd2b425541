"""Peak memory of `isrrescnet upscale` against the size of the picture.

    python -m experiments.benchmark_memory [--megapixels 4 16 64 --weights x4 --iterations 1]
    python -m experiments.benchmark_memory --megapixels 128 --weights small --max-memory 1G

Every size really runs, in a process of its own: reading, all iterations and writing together. Its
peak of anonymous memory is what it needs; resident memory also counts pages of files, such as
scratch arrays on disk, which the system takes back when others need room. `--weights small` is a
network of 4 features, which takes a fraction of the time; outside of the windows, whose size does
not depend on the picture, its memory is the same.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from . import harness


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    megapixels: tuple[float, ...] = (4.0, 8.0, 16.0)
    """Sizes of the results, of 4:3."""
    scale: int = 4
    """Factor."""
    weights: str = "x4"
    """Shipped name, file, or small."""
    iterations: int = 1
    """Of the network."""
    max_memory: str = "8G"
    """Handed to the command."""
    format: str = "bmp"
    """Of the result."""
    folder: Path | None = None
    """Where input, result and scratch files are; by default, that of the system."""
    json: Path | None = None
    """File for the numbers."""


def small(path: Path, scale: int) -> str:
    """Write weights of a network as deep as the official one, with 4 features."""
    import jax

    import isrrescnet_jax as isr

    config = isr.ModelConfig(features=4, scale=scale)
    isr.save_weights(isr.init_weights(config, jax.random.key(0)), path)
    return str(path)


def measure(config: Benchmark, weights: str, megapixels: float, folder: Path) -> harness.Usage:
    """One run."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5 / config.scale)
    source = folder / "input.bmp"
    Image.fromarray(harness.photograph(height, round(height * 4 / 3))).save(source)
    words = ["isrrescnet_jax", "upscale", source, "--weights", weights, "--scale", config.scale]
    words += ["--iterations", config.iterations, "--format", config.format]
    words += ["--max-memory", config.max_memory, "--out", folder / "out", "--overwrite"]
    return harness.command(words, {"TMPDIR": str(folder)}, every=0.05)


def main(config: Benchmark) -> None:
    """Print a table and a straight line through it."""
    print(harness.environment("jax"), config, sep="\n")
    table = harness.Table("output, MP", "anonymous, MiB", "resident, MiB", "seconds", "s/MP")
    rows = []
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        folder, weights = Path(name), config.weights
        if weights == "small":
            weights = small(folder / "small.safetensors", config.scale)
        for megapixels in config.megapixels:
            used = measure(config, weights, megapixels, folder)
            rows.append({"megapixels": megapixels} | dataclasses.asdict(used))
            peaks = (f"{(peak or 0) / 2**20:.0f}" for peak in (used.anonymous, used.resident))
            times = (f"{used.seconds:.0f}", f"{used.seconds / megapixels:.2f}")
            table.row(f"{megapixels:g}", *peaks, *times)
    if len(rows) > 1 and all(row["anonymous"] for row in rows):
        sizes, peaks = ([row[name] for row in rows] for name in ("megapixels", "anonymous"))
        slope, base = np.polyfit(sizes, np.divide(peaks, 2**20), 1)
        print(f"\n{base:.0f} MiB + {slope:.1f} MiB for each megapixel of the output")
    harness.write_json(config.json, rows, "jax")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
