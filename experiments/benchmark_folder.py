"""A folder of pictures of different sizes: pictures per second, and what is compiled for them.

    python -m experiments.benchmark_folder [--images 50 --rounds 3 --weights x4]

First the programs that all sizes need are counted, for whole pictures and for tiled ones, each in a
process of its own with a network of few features, which do not matter for their number. Then
`overlapped`, which reads ahead and writes behind the device (what `isrrescnet upscale` does), takes
turns with reading, upscaling and writing one picture after the other, after a first pass in which
everything is compiled. The pictures are cut from the photograph in `examples`.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from . import harness


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    images: int = 50
    """Pictures in the folder."""
    smallest: int = 64
    """Least side in pixels."""
    largest: int = 256
    """Greatest side in pixels."""
    scale: int = 4
    """Factor, for the programs."""
    tile: int = 256
    """Side of the tiles in high-resolution pixels."""
    rounds: int = 3
    """How often both ways take turns; 0 leaves the times out."""
    weights: str = "x4"
    """Shipped name or file, for the times."""
    json: Path | None = None
    """File for the numbers."""

    def sizes(self) -> list[tuple[int, int]]:
        """Different heights and widths."""
        rng = np.random.default_rng(0)
        sides = rng.integers(self.smallest, self.largest + 1, (4 * self.images, 2))
        return list(dict.fromkeys((int(h), int(w)) for h, w in sides))[: self.images]


def programs(config: Benchmark, tile: int | None) -> int:
    """How many are compiled for all sizes, in this process, by a fresh network."""
    import jax

    import isrrescnet_jax as isr
    from isrrescnet_jax.upscaler import Upscaler

    network = isr.ModelConfig(features=4, iterations=1, scale=config.scale)
    upscaler = Upscaler(isr.init_weights(network, jax.random.key(0)), tile=tile)
    with harness.compiled_programs() as found:
        for h, w in config.sizes():
            upscaler(harness.photograph(h, w).astype(np.float32))
    return len(found)


def ways(config: Benchmark, folder: Path) -> dict[str, Callable[[], None]]:
    """Both ways to upscale a folder of pictures, which is written first."""
    import isrrescnet_jax as isr
    from isrrescnet_jax import images
    from isrrescnet_jax.cli.overlap import overlapped
    from isrrescnet_jax.upscaler import Upscaler

    upscaler = Upscaler(isr.load_weights(config.weights))
    sources = []
    for i, (h, w) in enumerate(config.sizes()):
        sources.append(folder / f"{i}.png")
        Image.fromarray(harness.photograph(h, w)).save(sources[-1])

    def read(path: Path) -> np.ndarray:
        return images.read(path).color

    def write(source: Path, result: np.ndarray) -> str:
        target = source.with_name("out_" + source.name)
        Image.fromarray(images.to_uint8(result)).save(target)
        return str(target)

    def one_at_a_time() -> None:
        for path in sources:
            write(path, upscaler(read(path)))

    def beside() -> None:
        for _, done, _ in overlapped(sources, read, [upscaler], write):
            done.result()

    return {"one at a time": one_at_a_time, "beside": beside}


def main(config: Benchmark) -> None:
    """Print the figures."""
    print(harness.environment("jax"), config, sep="\n", flush=True)
    count = {
        name: harness.in_a_process(programs, config, tile)
        for name, tile in (("whole", None), ("tiled", config.tile))
    }
    print(f"\nprograms for {config.images} sizes: {count}", flush=True)
    megapixels = sum(h * w for h, w in config.sizes()) * config.scale**2 / 1e6
    seconds: dict[str, list[float]] = {}
    if config.rounds:
        with tempfile.TemporaryDirectory() as folder:
            seconds = harness.taking_turns(ways(config, Path(folder)), config.rounds)
        table = harness.Table("", "seconds (range)", "pictures/s", "output, MP/s")
        for name, times in seconds.items():
            middle = harness.median(times)
            each = (f"{config.images / middle:.2f}", f"{megapixels / middle:.2f}")
            table.row(name, harness.spread(times), *each)
        one, other = map(harness.median, seconds.values())
        print(f"\nratio {one / other:.2f}")
    rows = {"programs": count, "seconds": seconds, "megapixels": megapixels}
    harness.write_json(config.json, rows, "jax")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
