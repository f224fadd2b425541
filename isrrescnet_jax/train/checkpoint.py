"""Checkpoints of a run: asynchronous, atomic, the last few and the best (Orbax).

    WORKDIR/checkpoints/STEP/{state,data,config,recipe,metrics}

`config` has the fields of the configuration, `recipe` what else decides a run: a hash of the text
of the recipe file, if that has values beyond the configuration, and the structure of the
optimiser's state. Version 0.1 wrote no `recipe`, and lacked fields, which then have their defaults.
A run goes on with another value of the fields in `HARMLESS`, and with more `steps`.

Arrays are saved as NumPy arrays without any axis of devices, so that a run resumes on any number of
them. A checkpoint is written beside its final name and renamed when whole; a process killed at any
moment leaves the one before it untouched.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from ..config import ModelConfig
from ..supervision import last_checkpoint
from ..trained import digest
from .config import Recipe, TrainConfig, as_recipe
from .optimizer import structure
from .state import TrainState


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def with_defaults(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A configuration, with the default of every field that it lacks."""
    flat = (flatten_dict(tree, keep_empty_nodes=True) for tree in (defaults, saved))
    return unflatten_dict(next(flat) | next(flat))


def text_hash(recipe: Recipe) -> str | None:
    """Of the text of the recipe; None if its configuration, which is compared, is all of it."""
    if not (recipe.has_values and recipe.text):
        return None
    return digest(recipe.text)


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values of each field of two configurations that is not the same."""
    old, new = flatten_dict(old, sep="."), flatten_dict(new, sep=".")
    names = sorted(old.keys() | new.keys())
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


# Orbax counts seconds by the clock on the wall, which may jump: a limit of minutes would be over.
PATIENCE = 100 * 365 * 86_400

# What may change when a run goes on: it decides neither batches nor gradients.
HARMLESS = ("log_every", "validate_every", "checkpoint_every", "keep", "validation")
HARMLESS += ("data.cache", "data.memory")


def harmless(name: str, old: Any, new: Any) -> bool:
    """Whether a run may go on with another value of this field, counted with dots."""
    return name in HARMLESS or (name == "steps" and new > old)


def structure_difference(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """One phrase, with the first of the leaves that differ, for two structures of a state."""
    names = [name for name in [*new, *(old.keys() - new.keys())] if old.get(name) != new.get(name)]
    if not names:
        return []
    first = f"{names[0]} was {old.get(names[0])}, is {new.get(names[0])}"
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return [f"the optimizer's state is another: {first}{more}"]


def absolute(folder: epath.PathLike) -> epath.Path:
    """As Orbax wants it; the method of `epath` takes gs: for the name of a local folder."""
    folder = epath.Path(folder)
    return folder if "://" in os.fspath(folder) else folder.absolute()


class Checkpoints:
    """The checkpoints of one run. Use it in a `with` block, which waits for the last to be written.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, workdir: epath.PathLike, recipe: Recipe | TrainConfig):
        self.recipe = as_recipe(recipe)
        config = self.recipe.config
        self.folder = absolute(workdir) / "checkpoints"
        best = BestN(get_metric_fn=_psnr, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(config.keep), best]),
            best_fn=_psnr,  # has the metrics written
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(
                timeout_secs=PATIENCE, create_directories_asynchronously=False
            ),
        )
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.wait()
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self._manager.close()

    def latest(self) -> int | None:
        """The step of the last whole checkpoint, if there is one."""
        return self._manager.latest_step()

    def reached_preemption(self, step: int) -> bool:
        """Whether to save and stop: true at the same step in every process of several.

        That is at most a few steps after any of them got SIGTERM: JAX's coordination service finds
        a step that all can still reach. So this must be called at every step. False in a run of
        one process that has not joined a cluster.
        """
        return self._manager.reached_preemption(step)

    def describe_latest(self) -> str:
        """For messages: where the last whole checkpoint is."""
        with contextlib.suppress(Exception):  # one that is being written may fail
            self._manager.wait_until_finished()
        self._manager.reload()
        step = self.latest()
        return "no checkpoint yet" if step is None else f"last one: {self.folder / str(step)}"

    def save(
        self, step: int, state: TrainState, data: dict[str, Any], psnr: float | None = None
    ) -> None:
        """Begin to write a checkpoint; returns before it is whole.

        Args:
            step: optimiser steps made.
            state: NumPy arrays, not to be changed afterwards.
            data: state of the data iterator. It counts batches, so that of any process will do.
            psnr: of the validation made at this step, if one was.

        Raises:
            OSError: this or the previous one could not be written.
        """
        if step == self.latest():
            return
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(vars(state)),
                    data=ocp.args.JsonSave(data),
                    config=ocp.args.JsonSave(as_dict(self.recipe.config)),
                    recipe=ocp.args.JsonSave(
                        {"sha256": text_hash(self.recipe), "structure": structure(state.opt_state)}
                    ),
                ),
                metrics=None if psnr is None else {"psnr": psnr},
            )

    def wait(self) -> None:
        """Return when the checkpoint is whole that was begun last."""
        with self._explained():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any], list[str]]:
        """State and data iterator state of the last checkpoint, which there must be.

        All processes of a run must call this.

        Args:
            like: a state of the same structure, arrays or their shapes.

        Returns:
            These two, and a line for each field of the configuration that has changed harmlessly.

        Raises:
            ValueError: it belongs to a run of another recipe; all that differs is named.
        """
        step = self.latest()
        assert step is not None
        with self._readable(step):
            changed, allowed = self._changes(step, like)
        if changed:
            raise ValueError(
                f"{self.folder.parent} holds a run of another configuration: {'; '.join(changed)}. "
                "Continue with the same configuration or choose another workdir"
            )
        arrays = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), vars(like))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(arrays), data=ocp.args.JsonRestore()
        )
        with self._readable(step):
            saved = self._manager.restore(step, args=args)
            return TrainState(**saved["state"]), saved["data"], allowed

    def _read(self, step: int, name: str) -> dict[str, Any]:
        args = ocp.args.Composite(**{name: ocp.args.JsonRestore()})
        return self._manager.restore(step, args=args)[name]

    def _changes(self, step: int, like: TrainState) -> tuple[list[str], list[str]]:
        """What this recipe has differently from that of the checkpoint: what must not, what may."""
        config, cosine = as_dict(self.recipe.config), self.recipe.config.schedule == "cosine"
        saved = with_defaults(self._read(step, "config"), as_dict(TrainConfig()))
        refused, allowed = [], []
        for name, (old, now) in differences(saved, config).items():
            more = ""
            if harmless(name, old, now):
                if name == "steps" and cosine and self.recipe.optimizer is None:
                    more = ": from here on, the learning rate is that of a run of so many steps"
                allowed.append(f"{name} was {old}, is {now}{more}")
            else:
                more = " (they may only grow)" if name == "steps" else ""
                refused.append(f"{name} was {old}, is {now}{more}")
        new = structure(like.opt_state)
        text: dict[str, Any] = {"sha256": None, "structure": new}
        if (self.folder / str(step) / "recipe").exists():
            text |= self._read(step, "recipe")
        if text["sha256"] != text_hash(self.recipe):
            refused.append("the recipe file has another text, and values beyond its config")
        return refused + structure_difference(text["structure"], new), allowed

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        """Whatever a damaged checkpoint raises, as a ValueError that says which one it is."""
        try:
            yield
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            folder = self.folder / str(step)
            raise ValueError(
                f"{folder} cannot be read: {reason[:300]}; remove it to go on from the one before"
            ) from error

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Failures to write, whatever raised them, as an OSError that says what is safe."""
        try:
            yield
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            last = f" ({self.describe_latest()})" if hasattr(self, "_manager") else ""
            raise OSError(f"cannot write checkpoints to {self.folder}: {reason}{last}") from error


def read_average(workdir: epath.Path) -> tuple[dict[str, Any], ModelConfig]:
    """The moving average of the parameters in the last checkpoint of another run, and its model.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    step = last_checkpoint(workdir)
    if step is None:
        raise ValueError(f"{workdir}: no checkpoint of a run in this folder")
    folder = absolute(workdir) / "checkpoints" / str(step)
    try:
        with ocp.StandardCheckpointer() as reader:
            state = reader.restore(folder / "state")
        model = json.loads((folder / "config" / "metadata").read_text())["model"]
        return jax.tree.map(np.asarray, state["ema"]), ModelConfig(**model)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{folder} cannot be read: {reason[:300]}") from error


def _psnr(metrics: dict[str, float]) -> float:
    return metrics["psnr"]
