"""One step on many devices and in many processes: all that knows about either is here.

A step is a pure function (state, batch) -> (state, metrics) that averages over the axis `AXIS`.
`Pmap` and `ShardMap` run the same step and offer the same four methods:

    compile(step)     the step, compiled for all devices
    replicate(tree)   NumPy or JAX arrays -> a copy on every device
    shard(batch)      this process's share of the batch -> an equal part on each of its devices
    gather(tree)      what `replicate` made, or metrics -> NumPy arrays
"""

import contextlib
import dataclasses
import errno
import itertools
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..messages import one_line
from ..supervision import LOST, LOST_AFTER, WAIT, tell

AXIS = "devices"


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    wait: float = WAIT,
    lost_after: float = LOST_AFTER,
) -> None:
    """Join the other processes of this run; before anything else touches a device.

    Without arguments JAX finds the others by itself on Cloud TPU pods, under Slurm and under Open
    MPI. Otherwise all three are needed, in every process.

    Args:
        coordinator: host:port at which process 0 can be reached.
        processes: how many there are.
        process_id: which this is, from 0.
        wait: seconds until all must have come. JAX then ends this process (see `supervision`).
        lost_after: seconds of silence after which a process counts as lost, and JAX ends all.

    Raises:
        ValueError: some of the three are missing, or no such coordinator can be, or nothing is
            found without them.
        ConnectionError: the coordinator cannot be reached.
    """
    given = [value is not None for value in (coordinator, processes, process_id)]
    if any(given) and not all(given):
        raise ValueError("give all of coordinator, processes and process_id, or none of them")
    if coordinator is not None and processes is not None and process_id is not None:
        if not 0 <= process_id < processes:
            raise ValueError(f"process_id {process_id} is not among 0 to {processes - 1}")
        _check_address(coordinator, process_id == 0)
    who = f"no process 0 came at {coordinator}" if process_id else "not all processes came"
    tell(process=process_id, joining=f"{who} in {wait:.0f} s: start all, or raise --wait")
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=max(int(wait), 1),
            heartbeat_timeout_seconds=max(int(lost_after), 1),
        )
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"no cluster was found ({reason}): give coordinator, processes and process_id"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"cannot join the other processes: {reason}") from None


def _check_address(coordinator: str, ours: bool) -> None:
    """Raise ValueError unless it is host:port, and if it is `ours`, the port can be taken here.

    JAX would crash.
    """
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(
            f"coordinator must be HOST:PORT, such as localhost:1234, not {coordinator}"
        )
    if ours:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        try:
            socket.create_server(("", int(port)), family=family, dualstack_ipv6=dual).close()
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                reason = os.strerror(error.errno)
                raise ValueError(f"coordinator {coordinator}: {reason}; give another") from None


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


# --- what processes say to each other -------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Messages:
    """Words that the processes of a run leave for each other.

    Attributes:
        put: leave one, (name, text).
        get: wait for one, (name, seconds) -> text; raises TimeoutError.
    """

    put: Callable[[str, str], None]
    get: Callable[[str, float], str]


_conversation = itertools.count()


def messages() -> Messages:
    """Of the run that this process has joined; all must call this equally often."""
    # JAX has no public name for it; Orbax reaches for the same one.
    from jax._src import distributed

    client: Any = distributed.global_state.client
    folder = f"isrrescnet/{next(_conversation)}"

    def put(name: str, text: str) -> None:
        client.key_value_set(f"{folder}/{name}", text)

    def get(name: str, seconds: float) -> str:
        until = time.monotonic() + seconds
        while True:
            try:  # not all at once: Ctrl-C is heard between
                return client.blocking_key_value_get(f"{folder}/{name}", 500)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise ConnectionError(f"process 0 does not answer: {one_line(error)}") from None
                if time.monotonic() > until:
                    raise TimeoutError(name) from None

    return Messages(put, get)


# How errors begin that one process has because another is gone.
_OTHERS = re.compile(
    r"gloo|nccl|UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|heartbeat|coordination|barrier", re.I
)


def ended(error: BaseException, lost_after: float) -> NoReturn:
    """End a process of several after an error; not as Python does, which waits for the others.

    If another process is gone, JAX soon ends this one, with its number, which the parent reads.
    """
    line, code = f"isrrescnet: {one_line(error)}", 2
    if isinstance(error, KeyboardInterrupt):
        line, code = "isrrescnet: interrupted; the same command continues", 130
    elif _OTHERS.search(str(error)):
        time.sleep(lost_after + 15)
        code = LOST
    elif not isinstance(error, (ValueError, OSError)):
        line, code = "".join(traceback.format_exception(error)).rstrip(), 1
    print(line, file=sys.stderr, flush=True)
    if jax.process_index() == 0:  # without it JAX ends the others, which have something to say
        time.sleep(2)
    sys.stdout.flush()
    os._exit(code)
