"""Checkpoints of a run: asynchronous, atomic, the last few and the best (Orbax).

    WORKDIR/checkpoints/STEP/{state,data,config,metrics}

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
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from .state import TrainConfig, TrainState


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """One phrase for each field of two configurations that is not the same."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before}, is {after}")
    return found


def absolute(folder: epath.PathLike) -> epath.Path:
    """As Orbax wants it; the method of `epath` takes gs: for the name of a local folder."""
    folder = epath.Path(folder)
    return folder if "://" in os.fspath(folder) else folder.absolute()


class Checkpoints:
    """The checkpoints of one run. Use it in a `with` block, which waits for the last to be written.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, workdir: epath.PathLike, config: TrainConfig):
        self.config = config
        self.folder = absolute(workdir) / "checkpoints"
        policies = [LatestN(config.keep)]
        policies.append(BestN(get_metric_fn=_psnr, n=1, keep_checkpoints_without_metrics=False))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            best_fn=_psnr,  # has the metrics written
            cleanup_tmp_directories=True,
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
                    config=ocp.args.JsonSave(as_dict(self.config)),
                ),
                metrics=None if psnr is None else {"psnr": psnr},
            )

    def wait(self) -> None:
        """Return when the checkpoint is whole that was begun last."""
        with self._explained():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State and data iterator state of the last checkpoint.

        Args:
            like: a state of the same structure, arrays or their shapes.

        Raises:
            ValueError: it belongs to a run of another configuration; all fields are named.
        """
        step = self.latest()
        saved = self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
        changed = differences(saved["config"], as_dict(self.config))
        if changed:
            raise ValueError(
                f"{self.folder.parent} holds a run of another configuration: {'; '.join(changed)}. "
                "Continue with the same configuration or choose another workdir"
            )
        like = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), vars(like))
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore())
        saved = self._manager.restore(step, args=args)
        return TrainState(**saved["state"]), saved["data"]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Failures to write, whatever raised them, as an OSError that says what is safe."""
        try:
            yield
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            last = f" ({self.describe_latest()})" if hasattr(self, "_manager") else ""
            raise OSError(f"cannot write checkpoints to {self.folder}: {reason}{last}") from error


def _psnr(metrics: dict[str, float]) -> float:
    return metrics["psnr"]
