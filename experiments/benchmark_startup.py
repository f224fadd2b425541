"""Where the seconds go from a cold process to the written file.

    python -m experiments.benchmark_startup [--size 64 --rounds 5]

`isrrescnet upscale` of one small picture, in a fresh process each time, after a first one that
fills the cache of compiled programs. A second process, in turns with it, does the same in steps and
takes the time of each. The overhead is all that is not the run of the network itself.
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path

import tyro
from PIL import Image

from . import harness

KEEP = {  # compiled programs, as the command does
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    size: int = 64
    """Side of the picture in pixels."""
    scale: int = 4
    """Factor."""
    rounds: int = 5
    """How often both processes run, in turns."""
    json: Path | None = None
    """File for the numbers."""
    worker: tuple[Path, float] | None = None
    """For internal use: the picture, and when this process was started."""


def steps(source: Path, started: float, scale: int) -> dict[str, float]:
    """Seconds of every step, in this process."""
    times = {"interpreter": time.time() - started}

    def lap(name: str) -> None:
        times[name] = time.time() - started - sum(times.values())

    from isrrescnet_jax.cli.startup import keep_compiled, uncollected

    with uncollected():  # as the command
        from isrrescnet_jax import images, load_weights
        from isrrescnet_jax.files import cache_folder
        from isrrescnet_jax.upscaler import Upscaler

    lap("import")
    keep_compiled(cache_folder())
    import jax

    jax.devices()
    lap("devices")
    upscaler = Upscaler(load_weights(f"x{scale}"))
    picture = images.read(source).color
    lap("weights and picture")
    result = upscaler(picture)
    lap("first run")
    upscaler(picture)
    lap("run")
    Image.fromarray(images.to_uint8(result)).save(source.with_name("steps.png"))
    lap("write")
    first = times.pop("first run")
    return times | {"trace and cached program": first - times["run"]}


def main(config: Benchmark) -> None:
    """Print a table."""
    if config.worker is not None:
        print(json.dumps(steps(*config.worker, config.scale)))
        return
    print(harness.environment("jax", "numpy"), config, sep="\n", flush=True)
    parts: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, scale = folder / "picture.png", f"--scale={config.scale}"
        Image.open(harness.PHOTOGRAPH).resize((config.size, config.size)).save(source)
        variables = KEEP | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/jax"}

        def command() -> None:
            words = ("isrrescnet_jax", "upscale", source, scale, "--out", folder, "--overwrite")
            harness.command([*words, "--format=bmp"], {"ISRRESCNET_CACHE": f"{folder}/cache"})

        def in_steps() -> None:
            words = ("experiments.benchmark_startup", scale, "--worker", source, time.time())
            parts.append(json.loads(harness.command(words, variables).output.splitlines()[-1]))

        seconds = harness.taking_turns({"whole": command, "steps": in_steps}, config.rounds)
    del parts[0]  # which compiled
    table = harness.Table("step", "seconds (range)")
    for name in parts[0]:
        table.row(name, harness.spread([part[name] for part in parts]))
    table.row("**the command, whole**", harness.spread(seconds["whole"]))
    run = harness.median([part["run"] for part in parts])
    overhead = harness.median(seconds["whole"]) - run
    print(f"\noverhead (the command without the run): {overhead:.2f} s")
    harness.write_json(config.json, {"steps": parts, "whole": seconds["whole"]}, "jax", "numpy")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
