"""Where the seconds go from a cold process to the written file.

    python -m experiments.benchmark_startup [--size 64 --rounds 5]

`isrrescnet upscale` of one small picture, in a fresh process each time, after a first one that
fills the cache of compiled programs. A second process, in turns with it, does the same in steps and
takes the time of each. The overhead is all that is not the run of the network itself.
"""

import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

PHOTOGRAPH = Path(__file__).parent.parent / "examples" / "astronaut.png"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is measured."""

    size: int = 64
    """Side of the picture in pixels."""
    scale: int = 4
    """Factor."""
    rounds: int = 5
    """How often both processes run, in turns."""
    worker: tuple[Path, float] | None = None
    """For internal use: the picture, and when this process was started."""


def steps(config: Benchmark) -> dict[str, float]:
    """Seconds of every step, in this process."""
    source, before = config.worker
    times = {"interpreter": time.time() - before}

    def lap(name: str) -> None:
        nonlocal before
        times[name] = time.time() - before - sum(times.values())

    from isrrescnet_jax import images, load_weights
    from isrrescnet_jax.cli.startup import keep_compiled
    from isrrescnet_jax.files import cache_folder
    from isrrescnet_jax.upscaler import Upscaler

    lap("import")
    keep_compiled(cache_folder())
    import jax

    jax.devices()
    lap("devices")
    upscaler = Upscaler(load_weights(f"x{config.scale}"))
    picture = images.read(source).color
    lap("weights and picture")
    result = upscaler(picture)
    lap("first run")
    upscaler(picture)
    lap("second run")
    Image.fromarray(images.to_uint8(result)).save(source.with_name("steps.png"))
    lap("write")
    run = times.pop("second run")
    first = times.pop("first run")
    return times | {"trace and cached program": first - run, "run": run}


def main(config: Benchmark) -> None:
    """Print a table."""
    if config.worker:
        print(json.dumps(steps(config)))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "picture.png"
        Image.open(PHOTOGRAPH).resize((config.size, config.size)).save(source)
        environment = os.environ | {"ISRRESCNET_CACHE": folder + "/cache"}
        shared = [f"--size={config.size}", f"--scale={config.scale}"]

        def command() -> float:
            out = tempfile.mkdtemp(dir=folder)  # results are never overwritten
            run = ["upscale", str(source), "--out", out, "--scale", str(config.scale)]
            start = time.perf_counter()
            module = [sys.executable, "-m", "isrrescnet_jax.cli", *run]
            subprocess.run(module, check=True, capture_output=True, env=environment)
            return time.perf_counter() - start

        def in_steps() -> dict[str, float]:
            module = [sys.executable, "-m", "experiments.benchmark_startup", *shared]
            worker = ["--worker", str(source), str(time.time())]
            done = subprocess.run(
                module + worker, check=True, capture_output=True, text=True, env=environment
            )
            return json.loads(done.stdout.splitlines()[-1])

        command(), in_steps()
        whole, parts = [], []
        for _ in range(config.rounds):
            whole.append(command())
            parts.append(in_steps())
    median = {name: statistics.median(p[name] for p in parts) for name in parts[0]}
    total = statistics.median(whole)
    print(f"{config.size}x{config.size} at x{config.scale}, {config.rounds} rounds, ", end="")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"jax {version('jax')}, numpy {np.__version__}, {datetime.date.today()}\n")
    print("| step | seconds, median |\n| --- | ---: |")
    for name, seconds in median.items():
        print(f"| {name} | {seconds:.2f} |")
    print(f"| **the command, whole** | **{total:.2f}** ({min(whole):.2f} to {max(whole):.2f}) |")
    print(f"\noverhead (the command without the run): {total - median['run']:.2f} s")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
