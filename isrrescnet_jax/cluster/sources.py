"""Pictures from files, lists of files, tar shards (as WebDataset has them) and Parquet files."""

import dataclasses
import itertools
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from .. import images, remote
from ..messages import needed
from .jobs import Job, Piece
from .manifest import FOLDER

SHARDS = (".tar", ".parquet")
_MAGIC = set("*?[")  # of patterns
_FILES = 512  # in a piece
_ROWS = 16  # of a Parquet file, read at once


def find(
    sources: Iterable[str],
    recursive: bool = False,
    ending: str = ".png",
    column: str = "image",
    without: str | None = None,
) -> list[Piece]:
    """The pieces that sources stand for; a source that is named twice counts once.

    Args:
        sources: files, folders and patterns, here or by address; .txt files with a source on each
            line; .tar files with pictures and .parquet files with a column of pictures.
        recursive: take folders in folders, too, but manifests; results then lie in folders of the
            same names.
        ending: of the results' names, which begin as the picture's or, in a shard, with the
            shard's; the pictures of Parquet files are numbered.
        column: of Parquet files.
        without: a folder that is not searched then, such as that of the results.

    Raises:
        FileNotFoundError: there is nothing of a name.
        OSError, ValueError: as `remote.reached`, or two pictures would have the same result.
    """
    owner: dict[str, str] = {}
    files, shards = [], []
    seen: set[str] = set()
    for address, below in _addresses(sources, recursive, without):
        if address in seen:
            continue
        seen.add(address)
        inside, suffix = os.path.splitext(address.rpartition("/")[2])
        stem, shard = below + inside, suffix.lower() in SHARDS
        name = f"{stem}/" if shard else images.result_name(stem, ending)
        other = owner.setdefault(name.casefold(), address)
        if other is not address:
            raise ValueError(f"{other} and {address} would both become {name}: rename one")
        if shard:
            shards.append(Piece(shard=address, below=name, ending=ending, column=column))
        else:
            files.append(Job(address, name))
    return [*pieces(files), *shards]


def pieces(files: Sequence[Job]) -> list[Piece]:
    """Files in pieces."""
    firsts = range(0, len(files), _FILES)
    return [Piece(tuple(files[first : first + _FILES])) for first in firsts]


def _addresses(
    sources: Iterable[str], recursive: bool, without: str | None
) -> Iterator[tuple[str, str]]:
    """Every file, and the folder below the one that was named in which it lies."""
    suffixes = (*images.READABLE, *SHARDS)
    for source in sources:
        if source.lower().endswith(".txt"):
            text = remote.read(source).decode("utf-8", "surrogateescape")
            lines = [line.strip() for line in text.splitlines()]
            for line in lines:
                # To ask for each of a million objects would take hours.
                if (
                    remote.is_remote(line)
                    and line.lower().endswith(suffixes)
                    and not _MAGIC & {*line}
                ):
                    yield line, ""
                elif line:
                    yield from _addresses([remote.absolute(line)], recursive, without)
            continue
        root = f"{source.rstrip('/')}/"
        left_out = None if without is None else f"{without.rstrip('/')}/"
        if left_out and (root.startswith(left_out) or not left_out.startswith(root)):
            left_out = None  # not in the folder that is searched
        for address in remote.find(source, suffixes, recursive):
            inside = address.removeprefix(root) if address.startswith(root) else ""
            if f"/{FOLDER}/" in f"/{inside}" or (left_out and address.startswith(left_out)):
                continue
            folder = os.path.dirname(inside)
            yield address, f"{folder}/" if folder else ""


def in_shard(piece: Piece) -> Iterator[Job]:
    """The pictures of a shard, with their bytes.

    Raises:
        OSError, ValueError: it cannot be read, or after all, it has several of one name.
    """
    twice: list[str] = []
    with remote.opened(piece.shard) as file:
        found = _of_parquet(piece, file) if piece.shard.endswith(".parquet") else _of_tar(file)
        before: dict[str, str] = {}
        for inside, stem, data in found:
            name = images.result_name(piece.below + stem, piece.ending)
            if before.setdefault(name, inside) is inside:
                yield Job(f"{piece.shard}/{inside}", name, data)
            else:
                twice.append(inside)
    if twice:
        more = f" and {len(twice) - 3} more" if twice[3:] else ""
        raise ValueError(
            f"{', '.join(twice[:3])}{more}: not done, as the results of others have their names"
        )


def _of_tar(file) -> Iterator[tuple[str, str, bytes]]:
    try:
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if member.isfile() and path.suffix.lower() in images.READABLE:
                    content = tar.extractfile(member)
                    assert content is not None
                    stem = str(path.with_suffix("")).lstrip("/").replace("../", "")
                    yield member.name, stem, content.read()
    except tarfile.TarError as error:
        raise ValueError(f"not a tar file that can be read: {error}") from None


def _of_parquet(piece: Piece, file) -> Iterator[tuple[str, str, bytes]]:
    parquet, arrow = needed("pyarrow.parquet"), needed("pyarrow")
    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        if piece.column not in names:
            raise ValueError(f"no column {piece.column} (--column), only {', '.join(names)}")
        number = itertools.count()
        for batch in table.iter_batches(_ROWS, columns=[piece.column]):
            for value, i in zip(batch.column(0).to_pylist(), number, strict=False):
                data = value.get("bytes") if isinstance(value, dict) else value
                yield f"{i}", f"{i:08}", data if isinstance(data, bytes) else b""
    except arrow.ArrowException as error:
        raise ValueError(f"not a Parquet file that can be read: {error}") from None


def left(whole: Sequence[Piece], done: set[str]) -> list[Piece]:
    """The pieces less what is done already; those of shards know what that is."""
    rest = []
    below: dict[str, list[str]] = {}
    if any(piece.shard for piece in whole):
        prefixes = {piece.below for piece in whole if piece.shard}
        for name in done:
            at = name.find("/")
            while at >= 0:
                if name[: at + 1] in prefixes:
                    below.setdefault(name[: at + 1], []).append(name)
                at = name.find("/", at + 1)
    for piece in whole:
        if piece.shard:
            rest.append(dataclasses.replace(piece, done=frozenset(below.get(piece.below, ()))))
        elif jobs := tuple(job for job in piece.jobs if job.name not in done):
            rest.append(dataclasses.replace(piece, jobs=jobs))
    return rest


def part(whole: Sequence[Piece], mine: slice) -> list[Piece]:
    """Every n-th file and every n-th shard."""
    files = [job for piece in whole for job in piece.jobs][mine]
    return [*pieces(files), *[piece for piece in whole if piece.shard][mine]]
