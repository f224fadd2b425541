"""A folder of pictures of different sizes: images per second, and what is compiled for them.

    python -m experiments.benchmark_folder [--images 16 --rounds 5]

Compares `batch.overlapped`, which reads ahead and writes behind the device (what `isrrescnet
upscale` does), with reading, upscaling and writing one picture after the other. Both take turns in
one process, after a first pass in which everything is compiled. Then the programs that 50 sizes
need are counted, in a fresh network. The pictures are cut from the photograph in `examples`.
"""

import contextlib
import dataclasses
import datetime
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import tyro
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.cli.overlap import overlapped
from isrrescnet_jax.upscaler import Upscaler

PHOTOGRAPH = Path(__file__).parent.parent / "examples" / "astronaut.png"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    images: int = 16
    """Pictures in the folder."""
    smallest: int = 16
    """Least side in pixels."""
    largest: int = 64
    """Greatest side in pixels."""
    rounds: int = 5
    """How often both ways take turns."""
    weights: str = "x4"
    """Shipped name or file."""


def sizes(config: Benchmark, count: int) -> list[tuple[int, int]]:
    """Different heights and widths."""
    sides = np.random.default_rng(0).integers(config.smallest, config.largest + 1, (4 * count, 2))
    return list(dict.fromkeys(map(tuple, sides.tolist())))[:count]


@contextlib.contextmanager
def counted():
    """A list that gets an entry for every program that XLA compiles."""
    found = []

    def listen(event, *_, **__):
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def main(config: Benchmark) -> None:
    """Print the figures."""
    photograph = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))
    photograph = np.tile(photograph, (2, 2, 1))
    upscaler = Upscaler(isr.load_weights(config.weights))

    def write(source: Path, result: np.ndarray) -> str:
        target = source.with_name("out_" + source.name)
        Image.fromarray(images.to_uint8(result)).save(target)
        return str(target)

    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for i, (h, w) in enumerate(sizes(config, config.images)):
            sources.append(Path(folder) / f"{i}.png")
            Image.fromarray(photograph[:h, :w]).save(sources[-1])

        def read(path: Path) -> np.ndarray:
            return images.read(path).color

        def one_at_a_time() -> None:
            for path in sources:
                write(path, upscaler(read(path)))

        def beside() -> None:
            for _, done, _ in overlapped(sources, read, [upscaler], write):
                done.result()

        one_at_a_time()
        seconds = {one_at_a_time: [], beside: []}
        for _ in range(config.rounds):
            for way, times in seconds.items():
                start = time.perf_counter()
                way()
                times.append(time.perf_counter() - start)

    fifty = sizes(config, 50)
    scale = upscaler.scale
    plain = np.random.default_rng(0)
    network = isr.ModelConfig(features=8, depth=1, feedback_steps=1, iterations=1, scale=scale)
    fresh = Upscaler(isr.init_weights(network, jax.random.key(0)))
    with counted() as programs:
        for h, w in fifty:
            fresh(plain.uniform(0, 255, (h, w, 3)).astype(np.float32))

    print(f"{config}\n{os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"jax {version('jax')}, {jax.devices()[0].device_kind}, {datetime.date.today()}\n")
    print("| | images per second, median (range) |\n| --- | ---: |")
    for way, times in seconds.items():
        rates = sorted(config.images / t for t in times)
        middle = statistics.median(rates)
        print(f"| {way.__name__} | {middle:.2f} ({rates[0]:.2f} to {rates[-1]:.2f}) |")
    one, other = (statistics.median(times) for times in seconds.values())
    print(f"\nratio {one / other:.2f}; {len(fifty)} sizes: {len(programs)} programs compiled")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
