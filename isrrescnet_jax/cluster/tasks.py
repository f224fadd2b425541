"""What is done to a row: some pictures, pickled, that go from task to task."""

import dataclasses
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from ..messages import one_line
from .destinations import Destination
from .jobs import Job, Record

_JOBS = 64  # in a row, at most
_BYTES = 16 << 20  # of files in a row, or one
_DECODED = 4 << 20  # bytes of pictures in a row, or one
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

    def compute(self, ready: Any, values: Sequence[Any]) -> Iterable[tuple[float, Any]]:
        """Of each its seconds and its result, in order."""
        ...

    def encode(self, job: Job, result: Any) -> tuple[bytes | None, Record]:
        """The file of the result, if there is one, and what to say of it."""
        ...


Batch = dict[str, Any]


def row(content: Any) -> Batch:
    return {"data": [pickle.dumps(content, protocol=5)]}


def content(batch: Batch) -> Any:
    (data,) = batch["data"]
    return pickle.loads(data)


def spread(batch: Batch) -> Iterator[Batch]:
    """The jobs of a piece that are to be done; at last the names of all, done or not."""
    number, piece = content(batch)
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
                yield row((number, group))
                group, size = [], 0
            group.append(job)
            size += more
    except Exception as raised:  # a shard: damaged, gone, out of reach
        error = one_line(raised, piece.shard)
    if group:
        yield row((number, group))
    if piece.shard:
        yield row((number, (names, error)))


def read(batch: Batch, work: Work) -> Iterator[Batch]:
    number, jobs = content(batch)
    if isinstance(jobs, tuple):
        yield row((number, jobs))
        return
    items, size = [], 0
    for job in jobs:
        try:
            value = work.read(job)
            if not work.accelerated:
                (value,) = work.compute(None, [value])
            value = pickle.dumps(value, protocol=5)
        except Exception as error:
            value = _failed(job, error)
        more = len(value) if isinstance(value, bytes) else 0
        if items and size + more > _DECODED:
            yield row((number, items))
            items, size = [], 0
        items.append((dataclasses.replace(job, data=None), value))
        size += more
    yield row((number, items))


class Computer:
    """An actor that holds the compiled programs."""

    def __init__(self, work: Work, threads: int | None):
        if threads is not None:
            os.environ["NPROC"] = str(threads)  # which XLA goes by, once it is imported
        self.work = work
        self.ready = work.ready()

    def __call__(self, batch: Batch) -> Batch:
        number, items = content(batch)
        if isinstance(items, tuple):
            return batch
        values = [pickle.loads(value) for _, value in items if isinstance(value, bytes)]
        results, done, size = iter(self.computed(values)), [], 0
        for job, value in items:
            if isinstance(value, bytes):
                try:
                    value = pickle.dumps(raised_or(next(results)), protocol=5)
                    if size + len(value) > _LARGEST:
                        raise ValueError("too large for a row: upscale it without --ray")
                    size += len(value)
                except Exception as error:
                    value = _failed(job, error)
            done.append((job, value))
        return row((number, done))

    def computed(self, values: Sequence[Any]) -> list[tuple[float, Any] | Exception]:
        """Seconds and result of each, or what went wrong with it."""
        found: list[tuple[float, Any] | Exception] = []
        try:
            found.extend(self.work.compute(self.ready, values))
            return found
        except Exception as error:
            left = values[len(found) :]
            if len(left) == 1:
                return [*found, error]
            half = len(left) // 2  # until the culprit is alone
            return [*found, *self.computed(left[:half]), *self.computed(left[half:])]


def raised_or(result: Any) -> Any:
    """A result; an exception is raised."""
    if isinstance(result, Exception):
        raise result
    return result


def encode(batch: Batch, work: Work, destination: Destination | None) -> Batch:
    """Records of what was written, with the bytes where there are to be shards."""
    number, items = content(batch)
    if isinstance(items, tuple):
        return row([(number, items, None)])
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
    return row(found)


def pack(batch: Batch, destination: Destination) -> Batch:
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
    return row(rest)


def _failed(job: Job, error: Exception) -> Record:
    return Record(job.source, job.name, error=one_line(error, job.source))
