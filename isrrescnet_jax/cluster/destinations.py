"""Where results go: files, tar shards or Parquet files, in a folder or a bucket."""

import dataclasses
import hashlib
import io
import tarfile
from collections.abc import Sequence
from typing import Literal, get_args

from .. import remote
from ..messages import needed
from .jobs import Record
from .manifest import FOLDER, as_parquet, finished

Into = Literal["files", "tar", "parquet"]
INTO: tuple[str, ...] = get_args(Into)


@dataclasses.dataclass(frozen=True)
class Destination:
    """A folder or the beginning of names in a bucket.

    Attributes:
        address: of it.
        into: what is written there: a file for each picture, or shards with many.
        replace: a file that is there is replaced, if it is not a shard.
    """

    address: str
    into: Into = "files"
    replace: bool = False

    def done(self) -> set[str]:
        """Names of the results that are there.

        Files are listed; of shards, which are listed too, the manifest says what is in them.

        Raises:
            OSError, ValueError: as `remote.reached`, or shards are to be replaced.
        """
        remote.check(self.address)
        if self.into == "files":
            return set() if self.replace else set(remote.names(self.address))
        shards = {n for n in remote.names(self.address, False) if n.endswith(f".{self.into}")}
        if self.replace and shards:  # others could hold the same pictures again
            raise ValueError(f"{self.address}: shards are not overwritten: choose another --out")
        return finished(self.address, shards) if shards else set()

    def put(self, name: str, data: bytes) -> None:
        """Write one result as a file; one that is there stays, unless it is to be replaced.

        Raises:
            OSError, ValueError: as `remote.reached`.
        """
        remote.write(remote.join(self.address, name), data, self.replace)

    def pack(self, results: Sequence[tuple[Record, bytes]]) -> list[Record]:
        """Write results as one shard; its part of the manifest first, which alone means nothing.

        The shard's name follows from theirs, so that who does it again overwrites it.

        Raises:
            OSError, ValueError: as `remote.reached`.
        """
        results = sorted(results, key=lambda result: result[0].name)
        digest = hashlib.sha256("\n".join(record.name for record, _ in results).encode())
        shard = f"{digest.hexdigest()[:16]}.{self.into}"
        records = [dataclasses.replace(record, shard=shard) for record, _ in results]
        named = [(record, data) for record, (_, data) in zip(records, results, strict=True)]
        content = _tar(named) if self.into == "tar" else _parquet(named)
        rows = as_parquet(records)
        remote.write(remote.join(self.address, f"{FOLDER}/{shard}.parquet"), rows)
        remote.write(remote.join(self.address, shard), content)
        return records


def _tar(results: Sequence[tuple[Record, bytes]]) -> bytes:
    """As WebDataset reads it: the same bytes for the same results."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for record, data in results:
            member = tarfile.TarInfo(record.name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _parquet(results: Sequence[tuple[Record, bytes]]) -> bytes:
    """With a column `image` of bytes and path, as the readers of data sets know it."""
    arrow = needed("pyarrow")
    columns = {
        "name": [record.name for record, _ in results],
        "source": [record.source for record, _ in results],
        "width": [record.width for record, _ in results],
        "height": [record.height for record, _ in results],
        "image": [{"bytes": data, "path": record.name} for record, data in results],
    }
    file = io.BytesIO()
    needed("pyarrow.parquet").write_table(
        arrow.table(columns), file, compression="none", row_group_size=64
    )
    return file.getvalue()
