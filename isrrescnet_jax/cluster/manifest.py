"""What was done to every picture, in Parquet files beside the results."""

import dataclasses
import io
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .. import remote
from ..messages import needed
from .jobs import Record

FOLDER = "_manifest"  # readers of data sets pass over names with an underscore
_TEXT = ("source", "name", "shard", "error", "note")
_NUMBERS = {"width": "int32", "height": "int32", "seconds": "float32"}
_ROWS, _SECONDS = 10_000, 20


def as_parquet(records: Iterable[Record]) -> bytes:
    """A table with a row for each; no text is null."""
    arrow = needed("pyarrow")
    rows = list(records)
    columns = {
        name: arrow.array([getattr(row, name) or None for row in rows], arrow.string())
        for name in _TEXT
    }
    columns |= {
        name: arrow.array([getattr(row, name) for row in rows], kind)
        for name, kind in _NUMBERS.items()
    }
    file = io.BytesIO()
    needed("pyarrow.parquet").write_table(arrow.table(columns), file)
    return file.getvalue()


def finished(folder: str, shards: set[str]) -> set[str]:
    """Names of the results that the manifest in a destination says lie in one of `shards`."""
    parquet = needed("pyarrow.parquet")

    def read(name: str) -> list[str]:
        data = remote.read(remote.join(folder, f"{FOLDER}/{name}"))
        table = parquet.read_table(io.BytesIO(data), columns=["name", "shard"])
        rows = zip(table["name"].to_pylist(), table["shard"].to_pylist(), strict=True)
        return [name for name, shard in rows if shard in shards]

    found = [n for n in remote.names(remote.join(folder, FOLDER)) if n.endswith(".parquet")]
    with ThreadPoolExecutor(16) as pool:  # in a bucket each takes its time
        return {name for names in pool.map(read, found) for name in names}


@dataclasses.dataclass
class Manifest:
    """Records of one run, written as they come, some thousands to a file.

    Attributes:
        folder: the destination.
        run: what the files' names begin with; another for each run.
    """

    folder: str
    run: str

    def __post_init__(self):
        self._rows: list[Record] = []
        self._files, self._last = 0, time.monotonic()

    def begin(self) -> None:
        """Write an empty file, which the first rows replace: whether it can be done at all.

        Raises:
            OSError, ValueError: as `remote.reached`.
        """
        remote.write(self._next(), as_parquet([]))

    def _next(self) -> str:
        return remote.join(self.folder, f"{FOLDER}/{self.run}-{self._files:06}.parquet")

    def add(self, records: Sequence[Record]) -> None:
        """Take records; write them, if there are many or it is time."""
        self._rows += records
        if len(self._rows) >= _ROWS or time.monotonic() > self._last + _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        self._last = time.monotonic()
        if self._rows:
            remote.write(self._next(), as_parquet(self._rows))
            self._files, self._rows = self._files + 1, []
