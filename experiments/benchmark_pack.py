"""How crops are stored in shards, and what reading them costs.

    python -m experiments.benchmark_pack --hr photos/

First the lossless ways to store a crop: bytes, and the time to write and to read one, on one core.
Then the patches that one core can take from a pack, and from a folder of the same pictures, where
memory has no room for them, so that each patch is decoded anew.
"""

import dataclasses
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import tyro
from jaxtyping import UInt8
from PIL import Image

from isrrescnet_jax import data
from isrrescnet_jax.data import packing
from isrrescnet_jax.images import read_rgb

from . import harness
from .benchmark_data import patches_per_second

Crop = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    hr: Path
    """Folder of photographs."""
    crops: int = 100
    """How many are stored."""
    crop: int = 256
    """Their side."""
    rounds: int = 3
    """The fastest of so many counts."""
    seconds: float = 5.0
    """For each way to take patches; 0 leaves this out."""


@dataclasses.dataclass(frozen=True)
class Way:
    """To store a crop and to have it back."""

    name: str
    write: Callable[[Crop], Any]
    read: Callable[[Any], Crop]


def ways(side: int) -> list[Way]:
    """Those that are compared."""

    def image(name: str, **options: Any) -> Way:
        def write(crop: Crop) -> bytes:
            file = io.BytesIO()
            Image.fromarray(crop).save(file, **options)
            return file.getvalue()

        return Way(name, write, lambda b: np.asarray(Image.open(io.BytesIO(b)).convert("RGB")))

    def pixels(buffer: Any) -> Crop:
        return np.frombuffer(buffer, np.uint8).reshape(side, side, 3)

    zstd, lossless = pyarrow.Codec("zstd", 3), {"format": "WEBP", "lossless": True}
    return [
        Way("pixels", lambda crop: crop.tobytes(), pixels),
        Way(
            "pixels, Zstandard 3",
            lambda crop: zstd.compress(crop.tobytes()),
            lambda b: pixels(zstd.decompress(b, 3 * side**2)),
        ),
        image("PNG 1", format="PNG", compress_level=1),
        image("PNG 6", format="PNG"),
        image("WebP, method 0", **lossless, method=0, quality=0),
        image("WebP, method 2 (of packs)", **packing.FORMAT),
        image("WebP, method 4", **lossless, method=4),
    ]


def some_crops(options: Benchmark) -> list[Crop]:
    """Drawn from all photographs."""
    files = sorted(p for p in options.hr.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    rng, found, side = np.random.default_rng(0), [], options.crop
    for path in (files[i] for i in rng.permutation(len(files))):
        image = read_rgb(path)
        height, width = image.shape[:2]
        places = list(packing.grid(height, width, side, 1)) if min(height, width) >= side else []
        found += [np.ascontiguousarray(image[place]) for place in places[:4]]
        if len(found) >= options.crops:
            break
    return found[: options.crops]


def fastest(function: Callable[[], Any], rounds: int) -> float:
    """Seconds of a core, which other work on it does not add to."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def main(options: Benchmark) -> None:
    """Print two tables."""
    print(harness.environment("pyarrow", "grain", "numpy", "pillow"))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # Threads started later inherit this.
    crops = some_crops(options)
    print(f"{len(crops)} crops of {options.crop}x{options.crop}")
    table = harness.Table("stored as", "of its pixels", "to write, ms", "to read, ms")
    for way in ways(options.crop):
        stored = [way.write(crop) for crop in crops]
        for crop, kept in zip(crops, stored, strict=True):
            assert np.array_equal(way.read(kept), crop)
        size = sum(map(len, stored)) / sum(crop.nbytes for crop in crops)
        write = fastest(lambda way=way: [way.write(c) for c in crops], 1)
        read = fastest(lambda way=way, s=stored: [way.read(b) for b in s], options.rounds)
        each = [f"{1e3 * t / len(crops):.2f}" for t in (write, read)]
        table.row(way.name, f"{size:.3f}", *each)
    if options.seconds:
        print()
        streams(options)


def streams(options: Benchmark) -> None:
    """Patches a second, and what was packed."""
    with tempfile.TemporaryDirectory() as name:
        out, config = f"{name}/packed", data.DataConfig(patch=96, batch=32, cache=f"{name}/lr")
        start = time.process_time()
        plan = packing.plan([str(options.hr)], config=config, crop=options.crop)
        index = packing.pack(plan, out)
        took = time.process_time() - start
        print(f"{index.described}, packed in {took:.1f} s of a core")
        table = harness.Table("images", "patches/s per core")
        for label, hr in [
            ("crops of a pack", out),
            ("whole pictures of a folder", str(options.hr)),
        ]:
            chosen = dataclasses.replace(config, hr=hr, memory=0.0, skip_bad=True)
            how = chosen, options.seconds, time.process_time
            table.row(label, f"{patches_per_second(*how):,.0f}")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
