"""What lies on the disk for visitors: what they sent, and, apart, their results."""

import os
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

RESULTS = "results"  # a folder's name among those of what was sent, which are hashes


def used(folder: Path) -> int:
    """Bytes of the files in a folder; some may go meanwhile."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(here, name)).st_size
            except OSError:
                continue
    return total


def sent(folder: Path) -> int:
    """Bytes of what visitors sent."""
    return used(folder) - used(folder / RESULTS)


def room_for(size: int, folder: Path, limit: int) -> Path:
    """A new folder for a result, for which the oldest results go.

    Args:
        size: bytes of the result.
        limit: bytes of all results, this one included.

    Raises:
        ValueError: it is larger than that alone.
    """
    if size > limit:
        raise ValueError("the result takes more room than there is: take a smaller picture")
    results = folder / RESULTS
    results.mkdir(exist_ok=True)
    for oldest in sorted(results.iterdir()):
        if used(results) + size <= limit:
            break
        shutil.rmtree(oldest, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{time.time_ns():020d}-", dir=results))


def sweep(folder: Path, age: float, held: Collection[Path] = ()) -> None:
    """Remove what is in a folder for longer than `age` seconds, results too, and is not `held`.

    Gradio's own `delete_cache` leaves the folders, whose names are hashes of the files in them, and
    files that were sent and never used.
    """
    limit = time.time() - age
    for path in [*folder.iterdir(), *folder.glob(f"{RESULTS}/*")]:
        if path.name == RESULTS or any(file.is_relative_to(path) for file in held):
            continue
        try:
            inside = [path, *path.rglob("*")] if path.is_dir() else [path]
            if max(part.lstat().st_ctime for part in inside) > limit:
                continue
        except OSError:
            continue  # it goes as we look
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
