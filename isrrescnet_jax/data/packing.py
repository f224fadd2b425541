"""Shards out of folders: every picture decoded once, cut into crops with their LR counterparts.

The pictures are shuffled, so that a shard has some of everything; the crops of one lie together.
What is in which shard follows from names, sizes and options alone: what was begun can go on.
"""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import remote
from ..messages import needed
from .config import DataConfig
from .folders import find_files, load_files, not_read
from .looks import Look, look, remarks
from .packed import INDEX, VERSION, Index, Shard, read_table
from .pairs import Image8, Pair
from .sources import inventory

LARGEST = 16383  # pixels a side of a WebP file
SHARD = 16_000_000  # high-resolution pixels in a shard, about as many bytes
MANY = 64  # a number of shards from which it is a multiple of this, and a power of two below
# A quarter smaller than PNG, and decoded faster (`experiments/benchmark_pack.py`).
_KEY = "isrrescnet"  # of the metadata in a shard
FORMAT: dict[str, Any] = {"format": "WEBP", "lossless": True, "method": 2, "quality": 20}


@dataclasses.dataclass(frozen=True)
class Record:
    """A row: of which picture, from where to where in HR pixels, and the bytes of image files."""

    picture: str
    top: int
    left: int
    height: int
    width: int
    hr: bytes
    lr: bytes


@dataclasses.dataclass(frozen=True)
class Picture:
    """One that is to be packed.

    Attributes:
        name: for messages.
        load: gives it as a pair.
        crops: how many it will have, as far as its header tells.
    """

    name: str
    load: Callable[[], Pair]
    crops: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be in which shard.

    Attributes:
        config: scale, border and smallest patch.
        crop: side of the crops, in HR pixels; 0 for whole pictures.
        pictures: in the order of the shards.
        shards: how many.
        digest: of all that decides their content.
        left_out: a line for each picture that has no partner.
        not_read: a line for each file that looks like an image, and is not read.
        made_lr: whether LR images are made here.
    """

    config: DataConfig
    crop: int
    pictures: tuple[Picture, ...]
    shards: int
    digest: str
    left_out: tuple[str, ...]
    not_read: tuple[str, ...]
    made_lr: bool

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """The place of each picture's first crop among all."""
        return (0, *itertools.accumulate(picture.crops for picture in self.pictures))

    def bounds(self, shard: int) -> tuple[int, int]:
        """The places of its crops."""
        total = self.starts[-1]
        return shard * total // self.shards, (shard + 1) * total // self.shards

    def name(self, shard: int) -> str:
        """Of its file."""
        return f"{shard:05d}-of-{self.shards:05d}.parquet"


def plan(
    folders: Sequence[str],
    lr: Sequence[str] = (),
    *,
    config: DataConfig,
    crop: int = 256,
    shards: int | None = None,
) -> Plan:
    """What will be in which shard; pictures are only counted and measured.

    Args:
        folders: of HR pictures, with their subfolders.
        lr: the folder of LR pictures for each; by default they are made.
        config: scale, border, patch (no picture may be smaller) and seed (of the order).
        crop: see `Plan`.
        shards: how many; by default so many that each has about `SHARD` pixels.

    Raises:
        ValueError: options that do not go together, a folder without pictures.
    """
    if lr and len(lr) != len(folders):
        raise ValueError(f"{len(folders)} folders need as many of LR pictures, not {len(lr)}")
    if crop and crop < config.patch:
        raise ValueError(f"crops of {crop} pixels have no room for patches of {config.patch}")
    if shards is not None and shards < 1:
        raise ValueError(f"there must be at least 1 shard, not {shards}")
    crop = min(crop or LARGEST, LARGEST) // config.scale * config.scale
    pictures: list[Picture] = []
    left_out: list[str] = []
    overlooked: list[str] = []
    contents, pixels = [], 0
    for i, folder in enumerate(folders):
        of_it = dataclasses.replace(config, hr=folder, lr=lr[i] if lr else None)
        files, lonely = find_files(of_it)
        left_out += lonely
        overlooked += not_read(of_it)
        contents.append(inventory(of_it))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sizes = list(pool.map(_measured, (hr for hr, _ in files)))
        pixels += sum(height * width for height, width in sizes)
        pictures += [
            Picture(
                # Names that are no text become escapes, as Parquet has text alone.
                str(files[k][0]).encode(errors="backslashreplace").decode(),
                functools.partial(load_files, files, of_it, k, keep=False),
                len(list(grid(*sizes[k], crop, config.scale))),
            )
            for k in range(len(files))
        ]
    order = np.random.default_rng(config.seed).permutation(len(pictures))
    pictures = [pictures[k] for k in order]
    shards = shards or _count(pixels)
    what = [VERSION, config.scale, config.border, config.patch, config.seed, crop, shards, contents]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    content = tuple(pictures), shards, digest, tuple(left_out), tuple(overlooked), not lr
    return Plan(config, crop, *content)


def _measured(path: Path) -> tuple[int, int]:
    """Height and width in the header; (0, 0) if it does not say."""
    with contextlib.suppress(Exception), Image.open(path) as image:  # said when it is decoded
        return image.height, image.width
    return 0, 0


def _count(pixels: int) -> int:
    """Of shards, so that batches and hosts have divisors in common with it."""
    wanted = max(pixels // SHARD, 1)
    return wanted // MANY * MANY if wanted >= MANY else 2 ** (wanted.bit_length() - 1)


def grid(height: int, width: int, crop: int, scale: int) -> Iterator[tuple[slice, slice]]:
    """Crops that cover an HR image, evenly placed, in pixels of the LR one.

    >>> [(rows.start, columns.start) for rows, columns in grid(40, 100, 40, 4)]
    [(0, 0), (0, 7), (0, 15)]
    """
    rows, columns = (_places(length // scale, crop // scale) for length in (height, width))
    yield from itertools.product(rows, columns)


def _put(out: str, name: str, data: bytes) -> None:
    if not remote.write(remote.join(out, name), data, replace=False):
        raise FileExistsError(f"{remote.join(out, name)}: already there")


def _places(length: int, side: int) -> list[slice]:
    side = min(length, side)
    count = -(-length // side) if side else 1
    starts = (i * (length - side) // max(count - 1, 1) for i in range(count))
    return [slice(start, start + side) for start in starts]


def pack(plan: Plan, out: str) -> Index:
    """Write what of the shards is not there yet, and then the index.

    Pictures that cannot be used are left out, and named in the index.

    Args:
        plan: what is in which.
        out: a folder or an address (see `remote`).

    Raises:
        FileExistsError: there is a finished pack.
        ValueError: there are shards of another, or nothing can be used.
        OSError: it cannot be written to.
    """
    there = remote.sizes(out)
    if INDEX in there:
        raise FileExistsError(f"{out}: there is a finished pack: choose another folder")
    names = [plan.name(shard) for shard in range(plan.shards)]
    others = sorted(name for name in there if name.endswith(".parquet") and name not in names)
    if others:
        raise ValueError(_others(out, others[0]))
    shards: list[Shard] = []
    contents: list[dict[str, Any]] = []
    halves: dict[int, _Made] = {}
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=plan.starts[-1], unit="crop", disable=None) as bar,
    ):
        for number, name in enumerate(names):
            if name in there:
                data, halves = remote.read(remote.join(out, name)), {}
                first, last = plan.bounds(number)
                bar.update(last - first)
            else:
                data, halves = _shard(plan, number, pool, halves, bar.update)
                _put(out, name, data)
            content = _content(data)
            if content.get("plan") != plan.digest:
                raise ValueError(_others(out, name))
            digest = hashlib.sha256(data).hexdigest()
            shards.append(Shard(name, content["records"], len(data), digest))
            contents.append(content)
    index = _index(plan, shards, contents)
    if not index.records:
        lines = "".join(f"\n  {line}" for line in index.left_out)
        raise ValueError(f"none of {len(plan.pictures)} pictures can be used:{lines}")
    _put(out, INDEX, index.as_bytes())
    return index


def _others(out: str, name: str) -> str:
    return f"{out}/{name} is of another pack, or damaged: remove it or choose another folder"


@dataclasses.dataclass(frozen=True)
class _Made:
    """What became of a picture: what it looks like, or what is wrong with it, and its crops."""

    look: Look | str
    records: list[Record]


def _made(plan: Plan, number: int) -> _Made:
    picture, scale = plan.pictures[number], plan.config.scale
    try:
        pair = picture.load()
    except (FileNotFoundError, ValueError) as error:
        return _Made(str(error), [])
    records = []
    height, width = pair["hr"].shape[:2]
    for rows, columns in grid(height, width, plan.crop, scale):
        top, left, bottom, right = (
            scale * edge for edge in (rows.start, columns.start, rows.stop, columns.stop)
        )
        hr = _encoded(pair["hr"][top:bottom, left:right])
        lr = b"" if scale == 1 else _encoded(pair["lr"][rows, columns])
        records.append(Record(picture.name, top, left, bottom - top, right - left, hr, lr))
    return _Made(look(pair), records)


def _encoded(image: Image8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, **FORMAT)
    return file.getvalue()


def _shard(
    plan: Plan,
    number: int,
    pool: ThreadPoolExecutor,
    halves: dict[int, _Made],
    advance: Callable[[int], Any],
) -> tuple[bytes, dict[int, _Made]]:
    """A shard as a file, and the picture of which the next one has crops as well.

    Args:
        halves: what this gave for the shard before.
        advance: told how many crops are done.
    """
    first, last = plan.bounds(number)
    pictures = range(
        bisect.bisect_right(plan.starts, first) - 1, bisect.bisect_left(plan.starts, last)
    )
    rows: list[Record] = []
    looks, left_out, rest = [], [], {}
    made = pool.map(lambda k: halves.get(k) or _made(plan, k), pictures)
    for k, picture in zip(pictures, made, strict=True):
        begin, end = plan.starts[k], plan.starts[k + 1]
        if begin >= first:
            if isinstance(picture.look, str):
                left_out.append(picture.look)
            else:
                looks.append([plan.pictures[k].name, *dataclasses.astuple(picture.look)])
        # Should the header have told a wrong size, those that are too many lie with the last one.
        at = ((min(begin + j, end - 1), record) for j, record in enumerate(picture.records))
        rows += [record for place, record in at if first <= place < last]
        if end > last:
            rest = {k: picture}
        advance(min(end, last) - max(begin, first))
    smallest = min((side for row in rows for side in (row.height, row.width)), default=0)
    content = {"smallest": smallest, "looks": looks, "left_out": left_out}
    return _file(plan, rows, content), rest


def _file(plan: Plan, rows: list[Record], content: dict[str, Any]) -> bytes:
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    columns = {"picture": arrow.string()}
    columns |= dict.fromkeys(("top", "left", "height", "width"), arrow.int32())
    columns |= dict.fromkeys(("hr", "lr") if plan.config.scale > 1 else ("hr",), arrow.binary())
    content = {"plan": plan.digest, **content}
    metadata = {_KEY: json.dumps(content)}
    table = arrow.table(
        {name: [getattr(row, name) for row in rows] for name in columns},
        arrow.schema(list(columns.items()), metadata),
    )
    sink = io.BytesIO()
    # Its pixels are compressed already.
    parquet.write_table(table, sink, compression="none", use_dictionary=False)
    return sink.getvalue()


def _content(data: bytes) -> dict[str, Any]:
    """What `_file` was told, and the number of records; nothing if it is no such file."""
    try:
        table = read_table(data)
        return json.loads(table.schema.metadata[_KEY.encode()]) | {"records": table.num_rows}
    except Exception:  # Arrow has errors of many kinds for what is no Parquet file
        return {}


def _index(plan: Plan, shards: list[Shard], contents: list[dict[str, Any]]) -> Index:
    looks = [look for content in contents for look in content["looks"]]
    names, seen = [name for name, *_ in looks], [Look(*rest) for _, *rest in looks]
    left_out = [*plan.left_out, *(line for content in contents for line in content["left_out"])]
    odd = remarks(names, seen) | {"not_read": list(plan.not_read)}
    border = plan.config.border if plan.made_lr else None
    smallest = min((content["smallest"] for content in contents if content["records"]), default=0)
    return Index(plan.config.scale, border, smallest, len(seen), tuple(shards), odd, left_out)
