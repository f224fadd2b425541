"""`isrrescnet train RECIPE.py ...`: a recipe, with the fields that the command line changes."""

import argparse
import contextlib
import dataclasses
import logging
import sys
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from ..config import SCALES
from ..messages import unboxed
from ..supervision import LOST_AFTER, WAIT
from ..trained import run_file
from .config import VALUES, Recipe, TrainConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """Train from a recipe, or go on with the run in WORKDIR."""

    recipe: Positional[str]
    """A Python file with `config = TrainConfig(...)`, or with a function config(scale) that gives
    it; `optimizer`, `operator`, `prior`, `loss` and a model of its own are optional (see
    `train.Recipe`)."""
    workdir: str
    """Folder of the run, local or gs://; the same command continues an interrupted run."""
    data: str | None = None
    """Short for --data.hr: a folder of images, what `isrrescnet pack` made (gs://, s3://, ... too),
    or tfds:NAME/CONFIG."""
    scale: Literal[2, 3, 4] | None = None
    """What config(scale) is given; or short for --model.scale and --data.scale together."""
    strategy: Literal["pmap", "shard_map"] = "pmap"
    """How the step runs on several devices."""
    profile: int = 0
    """Trace so many steps to WORKDIR/profile, for TensorBoard and Perfetto."""
    distributed: bool = False
    """Several processes, found by JAX: Cloud TPU pods, Slurm, Open MPI."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to start several processes by hand; needs the next two."""
    processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which this one is, from 0."""
    wait: float = WAIT
    """Seconds in which all processes must have come."""
    lost_after: float = LOST_AFTER
    """Seconds of silence after which a process counts as lost, and the others end (exit code 3)."""
    retries: int = 0
    """Go on so many times when a process is lost, as the same command does."""
    take_over: bool = False
    """Train in WORKDIR though a process on another host has it, which you know is gone."""
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig()


def load_recipe(path: str, scale: int | None = None) -> Recipe:
    """The recipe that a Python file defines, with the variables that `Recipe` names.

    Args:
        path: of the file. Its `config` is a `TrainConfig`, or a function config(scale) -> one that
            has a default.
        scale: to train for; that of the file if None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it fails, has no `config` that is a `TrainConfig`, or a value that is of another
            kind or does not suit it.
    """
    found, text = run_file(path)
    try:
        config = of_scale(found.get("config"), scale)
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{path} has no `config = TrainConfig(...)`, nor a function that gives it")
    values = {name: found.get(name) for name in VALUES}
    if values["init"] is not None:  # then these are names like others, for its `solve`
        values |= {"operator": None, "prior": None}
    try:
        return Recipe(config, **values, text=text, file=path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def of_scale(config: Any, scale: int | None) -> Any:
    """What a file calls `config`, for this scale; what is no configuration is left as it is."""
    if callable(config):
        return config() if scale is None else config(scale)
    if scale is None or not isinstance(config, TrainConfig):
        return config
    model, data = (dataclasses.replace(part, scale=scale) for part in (config.model, config.data))
    return dataclasses.replace(config, model=model, data=data)


def parse(argv: list[str]) -> tuple[Run, Recipe]:
    """The command line after `isrrescnet train`, and the recipe with what that changes.

    Raises:
        ValueError: a recipe that cannot be used, or fields that do not go together.
    """
    path = argv[0] if argv and not argv[0].startswith("-") else None
    # The fields that the command line changes are those of the recipe for this scale.
    known = argparse.ArgumentParser("isrrescnet train", add_help=False, allow_abbrev=False)
    known.add_argument("--scale", type=int, choices=SCALES)
    scale = known.parse_known_args(argv)[0].scale
    recipe = Recipe(TrainConfig()) if path is None else load_recipe(path, scale)

    @dataclasses.dataclass(frozen=True)
    class RunOfIt(Run):
        config: Annotated[TrainConfig, arg(name="")] = recipe.config

    with unboxed():
        run = tyro.cli(RunOfIt, args=argv, prog="isrrescnet train", description=Run.__doc__)
    config = run.config
    if run.data is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, hr=run.data))
    return run, dataclasses.replace(recipe, config=config)


def run_recipe(argv: list[str]) -> int:
    """`isrrescnet train`.

    Returns:
        Exit code: 0, also when the run was asked to stop and saved its state; 1 if it diverged. A
        process of several that fails otherwise does not return (see `parallel.ended`).

    Raises:
        ValueError, OSError: as `loop.train`.
    """
    run, recipe = parse(argv)
    # Orbax logs the tracebacks of its threads, tifffile all damage; what is raised says it.
    for library in ("absl", "tifffile"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    from etils import epath

    from . import lock, parallel
    from .loop import train

    joined = False
    try:
        with contextlib.ExitStack() as stack:
            if run.distributed or any(v is not None for v in (run.coordinator, run.processes)):
                if run.process_id is not None:  # JAX would end a run that this one joins as well
                    workdir = epath.Path(run.workdir)
                    stack.enter_context(lock.held(workdir, run.process_id, run.take_over))
                cluster = run.coordinator, run.processes, run.process_id
                parallel.initialize(*cluster, run.wait, run.lost_after)
                joined = True
            how = {"take_over": run.take_over, "wait": run.wait}
            weights = train(recipe, run.workdir, run.strategy, run.profile, **how)
    except FloatingPointError as error:
        print(f"isrrescnet: {error}", file=sys.stderr)
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if joined:
            parallel.ended(error, run.lost_after)
        raise
    if weights is None:
        print("stopped and saved; the same command continues", flush=True)
    else:
        print(f"{run.workdir}/weights.safetensors", flush=True)
    return 0
