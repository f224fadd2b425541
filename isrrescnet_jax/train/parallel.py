"""One step on many devices and in many processes: all that knows about either is here.

A step is a pure function (state, batch) -> (state, metrics) that averages over the axis `AXIS`.
`Pmap` and `ShardMap` run the same step and offer the same four methods:

    compile(step)     the step, compiled for all devices
    replicate(tree)   NumPy or JAX arrays -> a copy on every device
    shard(batch)      this process's share of the batch -> an equal part on each of its devices
    gather(tree)      what `replicate` made, or metrics -> NumPy arrays
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"


def initialize(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes of this run; before anything else touches a device.

    Without arguments JAX finds the others by itself on Cloud TPU pods, under Slurm and under Open
    MPI. Otherwise all three are needed, in every process.

    Args:
        coordinator: host:port at which process 0 can be reached.
        processes: how many there are.
        process_id: which this is, from 0.

    Raises:
        ValueError: some of the three are missing, or nothing is found without them.
        ConnectionError: the coordinator cannot be reached.
    """
    given = [value is not None for value in (coordinator, processes, process_id)]
    if any(given) and not all(given):
        raise ValueError("give all of coordinator, processes and process_id, or none of them")
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"no cluster was found ({reason}): give coordinator, processes and process_id"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"cannot join the other processes: {reason}") from None


def _parts(batch: Any, devices: int) -> int:
    """How many examples each of this process's devices gets."""
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % devices:
        raise ValueError(
            f"a batch of {size} per process cannot be split over {devices} devices: make the batch "
            f"size a multiple of {devices * jax.process_count()}"
        )
    return size // devices


def _first(tree: Any) -> Any:
    """The copy on the first device of this process; what was never on one stays as it is."""

    def first(a):
        return a.addressable_shards[0].data if isinstance(a, jax.Array) else a

    return jax.device_get(jax.tree.map(first, tree))


class Pmap:
    """`jax.pmap`: every array has a leading axis of this process's devices."""

    def compile(self, step: Callable) -> Callable:
        """The step over all devices of all processes; the state it is given is used up."""
        return jax.pmap(step, axis_name=AXIS, donate_argnums=0)

    def replicate(self, tree: Any) -> Any:
        devices = jax.local_device_count()
        copies = jax.tree.map(lambda a: np.broadcast_to(a, (devices, *np.shape(a))), tree)
        # Through the identity, so that they lie as the step's results will: else it compiles twice.
        return jax.pmap(lambda tree: tree, axis_name=AXIS)(copies)

    def shard(self, batch: Any) -> Any:
        part = _parts(batch, jax.local_device_count())
        return jax.tree.map(lambda a: np.reshape(a, (-1, part, *a.shape[1:])), batch)

    def gather(self, tree: Any) -> Any:
        return jax.tree.map(lambda a: a[0], _first(tree))


class ShardMap:
    """`jax.shard_map` under `jax.jit`: global arrays on a mesh of all devices."""

    def __init__(self, devices: Any = None):
        self.mesh = Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))

    def compile(self, step: Callable) -> jax.stages.Wrapped:
        """The step over all devices of the mesh; the state it is given is used up."""
        mapped = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            # With the check, gradients of replicated parameters arrive already summed.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=0)

    def replicate(self, tree: Any) -> Any:
        sharding = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(
            lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a)), tree
        )

    def shard(self, batch: Any) -> Any:
        _parts(batch, len(self.mesh.local_devices))
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return jax.tree.map(
            lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a)), batch
        )

    def gather(self, tree: Any) -> Any:
        return _first(tree)


STRATEGIES = {"pmap": Pmap, "shard_map": ShardMap}


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that is set by SIGTERM (schedulers, clouds) or Ctrl-C, in a run of one process.

    A second signal of a kind has its usual effect. With several processes JAX's coordination
    service takes SIGTERM instead (see `Checkpoints.reached_preemption`).
    """
    asked, previous = threading.Event(), {}

    def ask(number, frame):
        asked.set()
        signal.signal(number, previous[number])

    if jax.process_count() == 1:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Only the main thread may do this; in others the caller has to stop us.
            with contextlib.suppress(ValueError):
                previous[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def mean_over_processes(total: float, count: int) -> float:
    """Sum of all processes' totals by the sum of their counts."""
    if jax.process_count() > 1:
        sums = multihost_utils.process_allgather(np.asarray([total, count], np.float64)).sum(0)
        total, count = float(sums[0]), int(sums[1])
    return total / count
