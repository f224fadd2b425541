"""`isrrescnet train RECIPE.py ...`: a recipe, with the fields that the command line changes."""

import dataclasses
import logging
import runpy
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from .config import Recipe, TrainConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """Train from a recipe, or go on with the run in WORKDIR."""

    recipe: Positional[str]
    """A Python file with `config = TrainConfig(...)`; `optimizer`, `operator`, `prior` and `loss`
    are optional."""
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


def load_recipe(path: str) -> Recipe:
    """The recipe that a Python file defines, with the variables that `Recipe` names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it fails, has no `config` that is a `TrainConfig`, or a value that is of another
            kind or does not suit it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such recipe (a Python file with a TrainConfig)")
    try:
        found = runpy.run_path(path)
        text = Path(path).read_text()
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(found.get("config"), TrainConfig):
        raise ValueError(f"{path} has no `config = TrainConfig(...)`")
    names = ("config", "optimizer", "operator", "prior", "loss")
    try:
        return Recipe(**{name: found.get(name) for name in names}, text=text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(argv: list[str]) -> tuple[Run, Recipe]:
    """The command line after `isrrescnet train`, and the recipe with what that changes.

    Raises:
        ValueError: a recipe that cannot be used, or fields that do not go together.
    """
    path = argv[0] if argv and not argv[0].startswith("-") else None
    recipe = Recipe(TrainConfig()) if path is None else load_recipe(path)
    default = Run(tyro.MISSING, tyro.MISSING, config=recipe.config)
    run = tyro.cli(Run, args=argv, default=default, prog="isrrescnet train")
    config = run.config
    if run.data is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, hr=run.data))
    return run, dataclasses.replace(recipe, config=config)


def run_recipe(argv: list[str]) -> int:
    """`isrrescnet train`.

    Returns:
        Exit code: 0, also when the run was asked to stop and saved its state; 1 if it diverged.

    Raises:
        ValueError, OSError: as `loop.train`.
    """
    run, recipe = parse(argv)
    # Orbax logs the tracebacks of its threads; what is raised says it in one line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    from . import parallel
    from .loop import train

    if run.distributed or any(v is not None for v in (run.coordinator, run.processes)):
        parallel.initialize(run.coordinator, run.processes, run.process_id)
    try:
        weights = train(recipe, run.workdir, run.strategy)
    except FloatingPointError as error:
        print(f"isrrescnet: {error}", file=sys.stderr)
        return 1
    if weights is None:
        print("stopped and saved; the same command continues", flush=True)
    else:
        print(f"{run.workdir}/weights.safetensors", flush=True)
    return 0
