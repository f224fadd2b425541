"""`isrrescnet train RECIPE.py ...`: a recipe, with the fields that the command line changes."""

import dataclasses
import logging
import runpy
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from .state import TrainConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """Train from a recipe, or go on with the run in WORKDIR."""

    recipe: Positional[str]
    """A Python file with `config = TrainConfig(...)`."""
    workdir: str
    """Folder of the run, local or gs://; the same command continues an interrupted run."""
    data: str | None = None
    """Short for --data.hr: a folder of images or tfds:NAME/CONFIG."""
    strategy: Literal["pmap", "shard_map"] = "pmap"
    """How the step runs on several devices."""
    distributed: bool = False
    """Several processes, found by JAX: Cloud TPU pods, Slurm, Open MPI."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to start several processes by hand; needs the next two."""
    processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which this one is, from 0."""
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig()


def load_recipe(path: str) -> TrainConfig:
    """The `config` of a Python file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it fails, or has no `config` that is a `TrainConfig`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such recipe (a Python file with a TrainConfig)")
    try:
        config = runpy.run_path(path).get("config")
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{path} has no `config = TrainConfig(...)`")
    return config


def parse(argv: list[str]) -> Run:
    """The command line after `isrrescnet train`.

    Raises:
        ValueError: a recipe that cannot be used, or fields that do not go together.
    """
    recipe = argv[0] if argv and not argv[0].startswith("-") else None
    config = TrainConfig() if recipe is None else load_recipe(recipe)
    default = Run(tyro.MISSING, tyro.MISSING, config=config)
    run = tyro.cli(Run, args=argv, default=default, prog="isrrescnet train")
    if run.data is None:
        return run
    data = dataclasses.replace(run.config.data, hr=run.data)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))


def run_recipe(argv: list[str]) -> int:
    """`isrrescnet train`.

    Returns:
        Exit code: 0, also when the run was asked to stop and saved its state; 1 if it diverged.

    Raises:
        ValueError, OSError: as `loop.train`.
    """
    run = parse(argv)
    # Orbax logs the tracebacks of its threads; what is raised says it in one line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    from . import parallel
    from .loop import train

    if run.distributed or any(v is not None for v in (run.coordinator, run.processes)):
        parallel.initialize(run.coordinator, run.processes, run.process_id)
    try:
        weights = train(run.config, run.workdir, run.strategy)
    except FloatingPointError as error:
        print(f"isrrescnet: {error}", file=sys.stderr)
        return 1
    if weights is None:
        print("stopped and saved; the same command continues", flush=True)
    else:
        print(f"{run.workdir}/weights.safetensors", flush=True)
    return 0
