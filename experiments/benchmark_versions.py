"""This version against another one: time and memory of the same work, in turns.

    python -m experiments.benchmark_versions f1b83a0                      # all tasks, some minutes
    python -m experiments.benchmark_versions main --tasks image --rounds 20

The other version is a commit of this repository, checked out into a temporary folder. Each lives in
a process of its own, so that the peak of resident memory is its own, and works only when it is its
turn; the ratio is that of the medians, below 1 where this version is faster. The official network
with fresh weights, float32, x4. `f1b83a0` is the last with one program for each class of sizes.

Tasks: `image` (64x64 LR pixels, K = 1), `sizes` (fifty images of 16 to 64 LR pixels a side, one
after the other), `large` (five of 64 to 256), `training` (a step on 8 patches of 64x64, K = 1) and
`training10` (on 2 of 48x48, K = 10).
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tyro.conf import Positional

from . import harness

ROOT = Path(__file__).parents[1]
TASKS = ("image", "sizes", "large", "training", "training10")
SCALE = 4


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is compared."""

    commit: Positional[str]
    """The other version."""
    tasks: tuple[str, ...] = TASKS
    """See above."""
    rounds: int = 5
    """How often both take turns, after two that do not count, of which the first compiles."""
    json: Path | None = None
    """File for the numbers."""


# --- in the processes -----------------------------------------------------------------------------


def _any(*names: str) -> Any:
    """The first that this version has, of names such as "module.thing"."""
    for name in names:
        module, _, thing = name.rpartition(".")
        with contextlib.suppress(ImportError):
            return getattr(importlib.import_module(f"isrrescnet_jax.{module}"), thing)
    raise ImportError(f"this version has none of {names}")


def inference(shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    """Upscale images of noise of these heights and widths."""
    import jax

    import isrrescnet_jax as isr

    weights = isr.init_weights(isr.ModelConfig(scale=SCALE, iterations=1), jax.random.key(0))
    upscaler = _any("upscaler.Upscaler", "upscale.Upscaler")(weights)
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (*shape, 3)).astype(np.float32) for shape in shapes]
    return lambda: [upscaler(image) for image in images]


def training(patches: int, side: int, iterations: int) -> Callable[[], Any]:
    """A step with AMSGrad, backward through all iterations."""
    import jax

    import isrrescnet_jax as isr
    from isrrescnet_jax.data import DataConfig
    from isrrescnet_jax.train import TrainConfig, init_state, train_step

    config = TrainConfig(
        model=isr.ModelConfig(scale=SCALE, iterations=iterations),
        data=DataConfig(scale=SCALE, patch=side),
        backward="full",
        optimizer="amsgrad",
        learning_rate=3e-3,
        schedule="stepped",
    )
    name = train_step.__code__.co_varnames[2]  # "recipe", or "config" as it was called
    step = jax.jit(functools.partial(train_step, **{name: config}), donate_argnums=0)
    rng = np.random.default_rng(0)
    low = (patches, side // SCALE, side // SCALE, 3)
    batch = {"lr": rng.integers(0, 256, low, np.uint8)}
    batch["hr"] = rng.integers(0, 256, (patches, side, side, 3), np.uint8)
    state = [init_state(config, isr.init_weights(config.model, jax.random.key(0)).params)]

    def call():
        state[0], metrics = step(state[0], batch)
        jax.block_until_ready(metrics)

    return call


def made(task: str) -> Callable[[], Any]:
    """The function that does a task once."""
    rng = np.random.default_rng(0)
    if task == "image":
        return inference([(64, 64)])
    if task == "training":
        return training(8, 64, 1)
    if task == "training10":
        return training(2, 48, 10)
    count, least, most = {"sizes": (50, 16, 64), "large": (5, 64, 256)}[task]
    return inference([(int(h), int(w)) for h, w in rng.integers(least, most + 1, (count, 2))])


def serve(task: str) -> None:
    """Do a task for every line of input; print seconds and peak memory, first of all `folder`."""
    import isrrescnet_jax

    call = made(task)
    print(json.dumps(str(Path(isrrescnet_jax.__file__).parents[1])), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, harness.memory("VmHWM")]), flush=True)


# --- turns ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def version(folder: Path, task: str) -> Iterator[Callable[[], tuple[float, int]]]:
    """A function that does a task once, in a process with the version in a folder."""
    line = f"from experiments.benchmark_versions import serve; serve({task!r})"
    # The library from the folder, this script from here.
    paths = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]; "
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", paths + line]
    with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as process:

        def answer() -> Any:
            text = process.stdout.readline()  # pyright: ignore[reportOptionalMemberAccess]
            if not text:
                raise RuntimeError(f"{task} failed with the version in {folder}")
            return json.loads(text)

        def call() -> tuple[float, int]:
            process.stdin.write("\n")  # pyright: ignore[reportOptionalMemberAccess]
            process.stdin.flush()  # pyright: ignore[reportOptionalMemberAccess]
            return answer()

        if Path(answer()) != folder:
            raise RuntimeError(f"the version in {folder} is not the one that Python imports")
        try:
            yield call
        finally:
            process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A commit of this repository in a temporary folder."""
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "version"
        subprocess.run([*git, "worktree", "add", "-q", "--detach", folder, commit], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", folder], check=True)


def main(benchmark: Benchmark) -> None:
    """Print the table."""
    print(harness.environment("jax"), benchmark, sep="\n", flush=True)
    rows = []
    with checked_out(benchmark.commit) as folder:
        table = harness.Table(
            "task", "seconds", "before", "ratio", "first time", "peak memory, MB", "before"
        )
        for task in benchmark.tasks:
            with version(ROOT, task) as ours, version(folder, task) as theirs:
                turns = [(ours(), theirs()) for _ in range(benchmark.rounds + 2)]
            (first, before), turns = turns[0], turns[2:]
            seconds, earlier = ([turn[i][0] for turn in turns] for i in (0, 1))
            peak, peak_before = (turns[-1][i][1] for i in (0, 1))
            table.row(
                task,
                harness.spread(seconds),
                harness.spread(earlier),
                f"{harness.median(seconds) / harness.median(earlier):.3f}",
                f"{first[0] / before[0]:.2f}",
                f"{peak / 1e6:.0f}",
                f"{peak_before / 1e6:.0f}",
            )
            row = {"task": task, "seconds": seconds, "seconds_before": earlier}
            row |= {"first": first[0], "first_before": before[0]}
            rows.append(row | {"peak_bytes": peak, "peak_bytes_before": peak_before})
            harness.write_json(benchmark.json, rows, "jax")


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
