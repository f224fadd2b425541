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

import dataclasses
import functools
import pickle
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ..messages import one_line
from . import tasks
from .destinations import Destination
from .jobs import Piece, Record

_PACKED = 8  # rows in a shard
_AGAIN = 1  # times that a row is tried after its process ended; alone once more


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
                # It waits for its device; a CPU, if there is but one, is to read and write.
                return cls({"num_cpus": 0, **ask}, workers or count, 1, None)
        cpus = max(1, int(resources.get("CPU", 1)))
        count = workers or cpus
        # Three quarters compute; the rest reads and writes, which is less work.
        part = 0.75 * min(1, cpus / count)
        return cls({"num_cpus": round(part, 3)}, count, 0.25, max(1, cpus // count))


def run(
    ray: Any,
    work: tasks.Work,
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
    # Ray's of its own context, and of arguments that have no other name yet.
    warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
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
    work: tasks.Work,
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
    rows = [tasks.row(piece) for piece in pieces.items()]
    data = ray.data.from_items(
        [{"data": row["data"][0]} for row in rows], override_num_blocks=len(rows)
    )
    task: dict[str, Any] = {
        "batch_size": None,
        "num_cpus": share.tasks,
        "max_retries": again,
    }
    data = data.map_batches(tasks.spread, **task | {"num_cpus": share.tasks / 2})
    data = data.map_batches(tasks.read, fn_args=(work,), **task)
    if work.accelerated:
        pool = ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=share.count,
            initial_size=share.count,
            # One that waits behind another would end with it.
            max_tasks_in_flight_per_actor=1 if again > _AGAIN else 2,
        )
        data = data.map_batches(
            tasks.Computer,
            fn_constructor_args=(work, share.threads),
            batch_size=None,
            compute=pool,
            max_restarts=-1,
            max_task_retries=again,
            **share.actors,
        )
    data = data.map_batches(tasks.encode, fn_args=(work, destination), **task)
    if destination and destination.into != "files":
        packing = functools.partial(data.map_batches, tasks.pack, fn_args=(destination,))
        data = packing(**task | {"batch_size": _PACKED, "num_cpus": share.tasks / 2})
    try:
        for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
            for row in batch["data"]:
                yield [(number, record) for number, record, _ in pickle.loads(row)]
    except ray.exceptions.RayError as error:
        raise OSError(f"--ray: {one_line(error)[:300]}") from None
