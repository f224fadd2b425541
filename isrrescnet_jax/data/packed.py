"""Pairs from shards that `isrrescnet pack` has made, in a folder or in a bucket.

    DEST/00000-of-00064.parquet ...     an HR crop and its LR counterpart in every row, as WebP
    DEST/_pack.json                     what they are, and a checksum of each; written last

A shard is read whole, by one request, when a record of it is first asked for, and compared with its
checksum; it is kept until it has not been used for a while.
"""

import bisect
import collections
import dataclasses
import hashlib
import io
import itertools
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import remote
from ..messages import needed
from .config import DataConfig
from .pairs import Image8, Pair, Pairs, aligned, has_own_lr

INDEX = "_pack.json"  # readers of Parquet folders pass over such names
VERSION = 1
_AT_ONCE = 8  # shards that are verified


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of a pack.

    Attributes:
        name: in its folder.
        records: rows.
        size: in bytes.
        sha256: of the bytes.
    """

    name: str
    records: int
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Index:
    """What `_pack.json` says.

    Attributes:
        scale: between HR and LR; 1: there are no LR images.
        border: see `DataConfig`; None if LR images were given.
        smallest: least side of an HR crop.
        pictures: how many the crops are of.
        shards: in their order.
        remarks, left_out: see `Pairs`.
    """

    scale: int
    border: str | None
    smallest: int
    pictures: int
    shards: tuple[Shard, ...]
    remarks: dict[str, list[str]]
    left_out: list[str]

    @property
    def records(self) -> int:
        """Of all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def described(self) -> str:
        """How much there is."""
        size = sum(shard.size for shard in self.shards) / 1e6
        many = f"{self.records} crops of {self.pictures} pictures"
        return f"{many} in {len(self.shards)} shard{'s' * (len(self.shards) != 1)}, {size:,.1f} MB"

    def as_bytes(self) -> bytes:
        """As it is written."""
        content = {"version": VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1).encode() + b"\n"


def is_packed(config: DataConfig) -> bool:
    """Whether the images are shards: of all places but this machine, or with a `_pack.json`."""
    return remote.is_remote(config.hr) or (config.hr != "" and Path(config.hr, INDEX).is_file())


def read_index(address: str) -> Index:
    """What there is at an address.

    Raises:
        FileNotFoundError: no pack.
        ValueError, OSError: it is damaged, or as `remote.reached`.
    """
    return _index(address, _read_index(address))


def _read_index(address: str) -> bytes:
    try:
        return remote.read(remote.join(address, INDEX))
    except FileNotFoundError:
        advice = "`isrrescnet pack` makes it; folders of pictures must be on this machine"
        raise FileNotFoundError(f"{address}: no {INDEX} there: {advice}") from None


def _index(address: str, data: bytes) -> Index:
    try:
        content = json.loads(data)
        if content.pop("version") != VERSION:
            raise ValueError
        shards = tuple(Shard(**shard) for shard in content.pop("shards"))
        return Index(shards=shards, **content)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{address}/{INDEX}: damaged, or of another version of this package: pack again"
        ) from None


def packed_inventory(config: DataConfig) -> str:
    """See `sources.inventory`: the checksums of all shards are in the index."""
    has_own_lr(config.hr, config)
    data = _read_index(config.hr)
    digest = hashlib.sha256(data).hexdigest()
    return f"{_index(config.hr, data).records} images with the hash {digest[:8]}"


def packed_pairs(config: DataConfig, room: float) -> Pairs:
    """The crops as pairs; whether all shards are there is looked at, but none is read yet.

    Args:
        config: whose `hr` is an address of shards.
        room: see `Pairs`.

    Raises:
        ValueError: the shards do not fit the configuration; one is missing or has another size.
        OSError, FileNotFoundError: see `read_index`.
    """
    address = config.hr
    has_own_lr(address, config)
    index = read_index(address)
    if config.scale not in (1, index.scale):
        raise ValueError(f"{address}: packed at scale {index.scale}, not {config.scale}")
    if index.border not in (None, config.border) and config.scale > 1:
        raise ValueError(f"{address}: packed with the border {index.border}, not {config.border}")
    if config.patch > index.smallest:
        raise ValueError(
            f"{address}: its smallest crop has a side of {index.smallest} pixels, which is less "
            f"than a patch of {config.patch}: pack with --patch {config.patch}"
        )
    problems = not_whole(address, index)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}{more}")
    records = _Records(index, config)
    counts = [shard.records for shard in index.shards]
    pairs = Pairs(_Names(address, index.records), records.pair, room, index.left_out, counts)
    pairs.remarks = index.remarks
    return pairs


def not_whole(address: str, index: Index) -> list[str]:
    """A line for each shard that is missing or has another size, without reading them."""
    found = remote.sizes(address)
    return [
        line
        for shard in index.shards
        if (line := _size_problem(f"{address}/{shard.name}", shard, found.get(shard.name)))
    ]


def _size_problem(path: str, shard: Shard, size: int | None) -> str | None:
    if size is None:
        return f"{path}: this shard is missing: copy it again, or pack again"
    if size != shard.size:
        return f"{path}: {size} bytes of {shard.size}: copy it again, or pack again"
    return None


def verify(address: str) -> list[str]:
    """Read all shards; a line for each that is not what `_pack.json` says.

    Raises:
        ValueError, OSError: see `read_index`.
    """
    index = read_index(address)

    def problem(shard: Shard) -> str | None:
        try:
            read_shard(address, shard)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [line for line in pool.map(problem, index.shards) if line]


def read_shard(address: str, shard: Shard) -> bytes:
    """All of a shard.

    Raises:
        ValueError: it is not the one that was packed.
        FileNotFoundError, OSError: as `remote.reached`.
    """
    data, path = remote.read(remote.join(address, shard.name)), f"{address}/{shard.name}"
    if line := _size_problem(path, shard, len(data)):
        raise ValueError(line)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise ValueError(f"{path}: its checksum does not match: copy it again, or pack again")
    return data


class _Names(Sequence[str]):
    """What to call the records, of which there may be many."""

    def __init__(self, address: str, count: int):
        self._address, self._count = address, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> str:
        return f"{self._address}[{range(self._count)[index]}]"


@dataclasses.dataclass
class _Open:
    """A shard that is kept, and when it was last used."""

    lock: threading.Lock
    used: int = 0
    table: Any = None


class _Records:
    """Random access to the records of all shards, from many threads."""

    def __init__(self, index: Index, config: DataConfig):
        self._shards, self._config = index.shards, config
        self._starts = [0, *itertools.accumulate(shard.records for shard in index.shards)]
        self._clock = 0
        # Threads are tens of batches apart at most; a shard that is done with is not asked for.
        self._patience = 64 * config.batch
        self._open: collections.OrderedDict[int, _Open] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without open shards, for worker processes."""
        return vars(self) | {"_open": collections.OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"_lock": threading.Lock()})

    def pair(self, index: int) -> Pair:
        """Record `index`."""
        number = bisect.bisect_right(self._starts, index) - 1
        row, table = index - self._starts[number], self._table(number)
        hr = _decoded(table, "hr", row)
        lr = hr if self._config.scale == 1 else _decoded(table, "lr", row)
        return aligned(f"{self._config.hr}/{self._shards[number].name}", hr, lr, self._config)

    def _table(self, number: int) -> Any:
        with self._lock:
            self._clock += 1
            shard = self._open.setdefault(number, _Open(threading.Lock()))
            shard.used = self._clock
            self._open.move_to_end(number)
            while next(iter(self._open.values())).used < self._clock - self._patience:
                self._open.popitem(last=False)
        with shard.lock:
            if shard.table is None:
                shard.table = read_table(read_shard(self._config.hr, self._shards[number]))
            return shard.table


def read_table(data: bytes) -> Any:
    """The rows of a shard, a `pyarrow.Table` whose columns are in one piece each."""
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    return parquet.read_table(arrow.BufferReader(data), use_threads=False).combine_chunks()


def _decoded(table: Any, column: str, row: int) -> Image8:
    # As in a data set of images, its bytes are those of a file.
    with Image.open(io.BytesIO(table.column(column)[row].as_buffer())) as image:
        return np.asarray(image.convert("RGB"))
