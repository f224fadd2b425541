"""The pictures of many machines through Ray Data, each once, whatever fails.

A row holds some pictures, pickled, and is a block of its own: what one task takes and what is lost
with a process. Rows go from task to task,

    spread    the jobs of a piece, some at a time         tasks
    read      decoded pictures                            tasks
    compute   results                                     actors, one for each accelerator
    encode    files, written, or bytes                    tasks
    pack      shards, written                             tasks, if there are to be shards

and Ray's streaming executor hands them on as fast as the next can take them. Where a process ends,
Ray does its row once more. A row that is lost twice is given up, and when all else is done its
pictures come again, each in a row of its own: then one that ends its process takes no other along,
and is reported.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from .. import __version__
from ..images.quiet import quiet
from ..messages import needed, one_line
from ..sizes import host_memory
from .destinations import Destination
from .jobs import Job, Piece, Record

_JOBS = 64  # in a row, at most
_BYTES = 16 << 20  # of files in a row, or one
_DECODED = 4 << 20  # bytes of pictures in a row, or one
_PACKED = 8  # rows in a shard
_STORE = 2 << 30  # bytes for rows between tasks, on this machine
_AGAIN = 1  # times that a row is tried after its process ended; alone once more
_LARGEST = 2**31 - 2**20  # bytes of a row


@runtime_checkable
class Work(Protocol):
    """What is done to every picture; it is sent to other processes.

    Attributes:
        accelerated: whether `compute` is for actors that are made ready for it; else it follows on
            `read`, and is given None.
    """

    accelerated: bool

    def read(self, job: Job) -> Any:
        """What there is to compute, in memory."""
        ...

    def ready(self) -> Any:
        """What `compute` needs, made once in each process."""
        ...

    def compute(self, ready: Any, value: Any) -> Any:
        """The result."""
        ...

    def encode(self, job: Job, result: Any) -> tuple[bytes | None, Record]:
        """The file of the result, if there is one, and what to say of it."""
        ...


# --- the cluster ----------------------------------------------------------------------------------


def connect(address: str | None = None) -> Any:
    """Ray, running here (None) or joined where it runs; returns the module.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        OSError: nothing answers there.
        ValueError: Ray or this library are of another version there, or are not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = needed("ray")
    needed("ray.data")
    # Of arguments that say how often a task is tried again, which have no other name yet.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    hushed = quiet if address is None else contextlib.nullcontext
    options: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if address is None:
        # A picture that needs more memory than there is must not be tried for ever.
        os.environ.setdefault("RAY_task_oom_retries", "2")
        store = min(_STORE, max(100 << 20, (host_memory() or _STORE) // 8))
        options |= {"include_dashboard": False, "object_store_memory": store}
    else:
        _answers(address)
    try:
        with hushed():  # what its core says of itself
            ray.init(address or "local", **options)
    except Exception as error:  # it has many kinds
        where = address or "on this machine"
        text = one_line(error)
        if "ersion" in text:
            raise ValueError(f"--ray {where}: {text}") from None
        raise OSError(f"--ray {where}: {text}") from None
    if address is not None:
        _check_version(ray, address)
    return ray


def _answers(address: str) -> None:
    """Raise OSError if nothing does: Ray itself would wait for minutes, and abort the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto" or address == "local":
        return
    if not colon or not port.isdigit():
        raise ValueError(f"--ray {address}: an address is auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), 10).close()
    except OSError as error:
        raise OSError(f"--ray {address}: cannot be reached: {one_line(error)}") from None


def _version() -> str:
    from isrrescnet_jax import __version__ as there

    return there


def _check_version(ray: Any, address: str) -> None:
    try:
        there = ray.get(ray.remote(_version).options(num_cpus=0).remote())
    except Exception as error:
        raise ValueError(
            f"--ray {address}: isrrescnet-jax does not run there: {one_line(error)[-200:]}"
        ) from None
    if there != __version__:
        raise ValueError(f"--ray {address}: isrrescnet-jax is {there} there and {__version__} here")


@dataclasses.dataclass(frozen=True)
class _Share:
    """What tasks and actors ask Ray for."""

    actors: dict[str, Any]
    count: int
    tasks: float  # of a CPU
    threads: int | None  # that compute in an actor; None for as many as there are

    @classmethod
    def of(cls, resources: dict[str, float], workers: int | None) -> "_Share":
        """An actor for each accelerator of a cluster, else one with one thread for each CPU."""
        for kind in ("GPU", "TPU"):
            if count := int(resources.get(kind, 0)):
                ask = {"num_gpus": 1} if kind == "GPU" else {"resources": {"TPU": 1}}
                return cls({"num_cpus": 1, **ask}, workers or count, 1, None)
        cpus = max(1, int(resources.get("CPU", 1)))
        count = workers or cpus
        # Three quarters compute; the rest reads and writes, which is less work.
        part = 0.75 * min(1, cpus / count)
        return cls({"num_cpus": round(part, 3)}, count, 0.25, max(1, cpus // count))


# --- the tasks ------------------------------------------------------------------------------------

Batch = dict[str, Any]


def _row(content: Any) -> Batch:
    return {"data": [pickle.dumps(content, protocol=5)]}


def _content(batch: Batch) -> Any:
    (data,) = batch["data"]
    return pickle.loads(data)


def _spread(batch: Batch) -> Iterator[Batch]:
    """The jobs of a piece that are to be done; at last the names of all, done or not."""
    number, piece = _content(batch)
    most = 1 if piece.alone else _JOBS
    group: list[Job] = []
    names: list[str] = []
    size, error = 0, ""
    try:
        for job in piece.each():
            names.append(job.name)
            if job.name in piece.done:
                continue
            more = len(job.data or b"")
            if group and (len(group) >= most or size + more > _BYTES):
                yield _row((number, group))
                group, size = [], 0
            group.append(job)
            size += more
    except Exception as raised:  # a shard: damaged, gone, out of reach
        error = one_line(raised, piece.shard)
    if group:
        yield _row((number, group))
    if piece.shard:
        yield _row((number, (names, error)))


def _read(batch: Batch, work: Work) -> Iterator[Batch]:
    number, jobs = _content(batch)
    if isinstance(jobs, tuple):
        yield _row((number, jobs))
        return
    items, size = [], 0
    for job in jobs:
        try:
            value = work.read(job)
            if not work.accelerated:
                start = time.perf_counter()
                value = time.perf_counter() - start, work.compute(None, value)
            value = pickle.dumps(value, protocol=5)
        except Exception as error:
            value = _failed(job, error)
        more = len(value) if isinstance(value, bytes) else 0
        if items and size + more > _DECODED:
            yield _row((number, items))
            items, size = [], 0
        items.append((dataclasses.replace(job, data=None), value))
        size += more
    yield _row((number, items))


class _Computer:
    """An actor that holds the compiled programs."""

    def __init__(self, work: Work, threads: int | None):
        if threads is not None:
            os.environ["NPROC"] = str(threads)  # which XLA goes by, once it is imported
        self.work = work
        self.ready = work.ready()

    def __call__(self, batch: Batch) -> Batch:
        number, items = _content(batch)
        if isinstance(items, tuple):
            return batch
        done, size = [], 0
        for job, value in items:
            if isinstance(value, bytes):
                start = time.perf_counter()
                try:
                    result = self.work.compute(self.ready, pickle.loads(value))
                    value = pickle.dumps((time.perf_counter() - start, result), protocol=5)
                    if size + len(value) > _LARGEST:
                        raise ValueError("too large for a row: upscale it without --ray")
                    size += len(value)
                except Exception as error:
                    value = _failed(job, error)
            done.append((job, value))
        return _row((number, done))


def _encode(batch: Batch, work: Work, destination: Destination | None) -> Batch:
    """Records of what was written, with the bytes where there are to be shards."""
    number, items = _content(batch)
    if isinstance(items, tuple):
        return _row([(number, items, None)])
    found = []
    for job, value in items:
        data = None
        if isinstance(value, bytes):
            seconds, result = pickle.loads(value)
            try:
                data, record = work.encode(job, result)
                record = dataclasses.replace(record, seconds=seconds)
                if destination and data is not None and destination.into == "files":
                    destination.put(job.name, data)
                    data = None
            except Exception as error:
                data, record = None, _failed(job, error)
        else:
            record = value
        found.append((number, record, data))
    return _row(found)


def _pack(batch: Batch, destination: Destination) -> Batch:
    """Records of what was written as one shard."""
    found = [item for data in batch["data"] for item in pickle.loads(data)]
    full = [(number, record, data) for number, record, data in found if data is not None]
    rest = [(number, record, None) for number, record, data in found if data is None]
    if full:
        try:
            records = destination.pack([(record, data) for _, record, data in full])
        except Exception as error:
            text = one_line(error)
            records = [dataclasses.replace(record, error=text) for _, record, _ in full]
        numbers = {record.name: number for number, record, _ in full}
        rest += [(numbers[record.name], record, None) for record in records]
    return _row(rest)


def _failed(job: Job, error: Exception) -> Record:
    return Record(job.source, job.name, error=one_line(error, job.source))


# --- the run --------------------------------------------------------------------------------------


def run(
    ray: Any,
    work: Work,
    pieces: Sequence[Piece],
    destination: Destination | None,
    workers: int | None = None,
) -> Iterator[list[Record]]:
    """Do all jobs; what was done to each, in no order, some at a time.

    Args:
        ray: from `connect`.
        work: what is done.
        pieces: the jobs.
        destination: None where nothing is written.
        workers: actors; by default one for each accelerator, or for each CPU if there is none.

    Raises:
        OSError: Ray itself failed.
    """
    share = _Share.of(ray.cluster_resources(), workers)
    known: dict[int, dict[str, Record]] = {number: {} for number in range(len(pieces))}
    named: dict[int, tuple[list[str], str]] = {}

    def through(pieces: dict[int, Piece], again: int) -> Iterator[list[Record]]:
        for found in _flow(ray, work, pieces, destination, share, again):
            records = []
            for number, record in found:
                if isinstance(record, tuple):
                    named[number] = record
                elif record.name not in known[number]:
                    known[number][record.name] = record
                    records.append(record)
            if records:
                yield records

    yield from through(dict(enumerate(pieces)), _AGAIN)
    lost = _lost(pieces, known, named)
    if lost:
        there = destination.done() if destination and not destination.replace else set()
        again = {}
        for number in lost:
            piece = pieces[number]
            if piece.shard:
                done = frozenset(name for name in there if name.startswith(piece.below))
            else:
                done = frozenset(job.name for job in piece.jobs if job.name in there)
            done |= piece.done | frozenset(known[number])
            again[number] = dataclasses.replace(piece, done=done, alone=True)
        yield from through(again, _AGAIN + 1)
        for number, names in _lost(pieces, known, named).items():
            piece = pieces[number]
            yield [
                _given_up(piece, name) if name not in there else _found(piece, name)
                for name in names
            ]
    for number, (_, error) in named.items():
        if error:
            yield [Record(pieces[number].shard, "", error=error)]


def _found(piece: Piece, name: str) -> Record:
    """Of a result that is there, though who wrote it did not live to say so."""
    source = next((job.source for job in piece.jobs if job.name == name), piece.shard)
    return Record(source, name)


def _given_up(piece: Piece, name: str) -> Record:
    source = _found(piece, name).source
    source = f"{source}: {name}" if piece.shard and name else source
    error = f"{source}: the process that works on it ends each time (damaged, or out of memory)"
    return Record(source, name, error=error)


def _lost(
    pieces: Sequence[Piece],
    known: dict[int, dict[str, Record]],
    named: dict[int, tuple[list[str], str]],
) -> dict[int, list[str]]:
    """Names of the results of which nothing is known; [""] for a shard that nobody could read."""
    found = {}
    for number, piece in enumerate(pieces):
        if piece.shard and number not in named:
            found[number] = [""]
            continue
        names = named[number][0] if piece.shard else [job.name for job in piece.jobs]
        missing = [n for n in names if n not in known[number] and n not in piece.done]
        if missing:
            found[number] = missing
    return found


def _flow(
    ray: Any,
    work: Work,
    pieces: dict[int, Piece],
    destination: Destination | None,
    share: _Share,
    again: int,
) -> Iterator[list[tuple[int, Any]]]:
    """The records of pieces by number, or the names in them; rows that are lost are missing."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # each row is a block
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    rows = [_row(piece) for piece in pieces.items()]
    data = ray.data.from_items(
        [{"data": row["data"][0]} for row in rows], override_num_blocks=len(rows)
    )
    task: dict[str, Any] = {
        "batch_size": None,
        "num_cpus": share.tasks,
        "max_retries": again,
    }
    data = data.map_batches(_spread, **task | {"num_cpus": share.tasks / 2})
    data = data.map_batches(_read, fn_args=(work,), **task)
    if work.accelerated:
        pool = ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=share.count,
            initial_size=share.count,
            # One that waits behind another would end with it.
            max_tasks_in_flight_per_actor=1 if again > _AGAIN else 2,
        )
        data = data.map_batches(
            _Computer,
            fn_constructor_args=(work, share.threads),
            batch_size=None,
            compute=pool,
            max_restarts=-1,
            max_task_retries=again,
            **share.actors,
        )
    data = data.map_batches(_encode, fn_args=(work, destination), **task)
    if destination and destination.into != "files":
        packing = functools.partial(data.map_batches, _pack, fn_args=(destination,))
        data = packing(**task | {"batch_size": _PACKED, "num_cpus": share.tasks / 2})
    try:
        for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
            for row in batch["data"]:
                yield [(number, record) for number, record, _ in pickle.loads(row)]
    except ray.exceptions.RayError as error:
        raise OSError(f"--ray: {one_line(error)[:300]}") from None
