"""What there is to do, and what was done."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from .. import images, remote


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture.

    Attributes:
        source: where it is, as people are told.
        name: of its result, relative to the destination; no two have the same.
        data: the bytes of its file, if it has none of its own.
        partner: address of a second file that belongs to it, or nothing.
    """

    source: str
    name: str
    data: bytes | None = None
    partner: str = ""

    def load(self) -> bytes:
        """The bytes of its file.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        if self.data is not None:
            return self.data
        return load(self.source)


def load(address: str) -> bytes:
    """The bytes of a file of this machine (see `images.load`) or elsewhere."""
    if not remote.is_remote(address):
        return images.load(address)
    data = remote.read(address)
    if not data:
        raise ValueError(f"{address}: empty")
    return data


@dataclasses.dataclass(frozen=True)
class Record:
    """What was done to one picture.

    Attributes:
        source, name: of the job.
        shard: the file its result lies in, where several share one.
        width, height: of the result; 0 where there is none.
        seconds: of computing; an equal share where pictures were computed together.
        error: what went wrong, in one line, or nothing.
        note: what the result lacks of the input, or nothing.
        value: what else the work found out.
    """

    source: str
    name: str
    shard: str = ""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    error: str = ""
    note: str = ""
    value: Any = None


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some hundreds of jobs that are handed out together: files, or what lies in one shard.

    Attributes:
        jobs: files, each a job; none if it is a shard.
        shard: the address of a tar or Parquet file with pictures in it.
        below: what the results' names begin with, of a shard.
        ending: what they end with.
        column: of a Parquet file, with the pictures.
        done: names of results that are there already.
        alone: each job is to be handled by itself, for one of them ends the process it is in.
    """

    jobs: tuple[Job, ...] = ()
    shard: str = ""
    below: str = ""
    ending: str = ".png"
    column: str = "image"
    done: frozenset[str] = frozenset()
    alone: bool = False

    def each(self) -> Iterator[Job]:
        """All its jobs, done or not.

        Raises:
            OSError, ValueError: a shard that cannot be read.
        """
        if not self.shard:
            yield from self.jobs
            return
        from .sources import in_shard

        yield from in_shard(self)
