"""How much of what can be made again is kept: compiled programs and low-resolution images."""

import os
import re
from pathlib import Path

from .sizes import parse_bytes

LIMIT = "5G"
# Compiled programs, as JAX names them, and low-resolution images, as `data.folders` does.
_OURS = re.compile(r"-(cache|atime)$|(^|/)lr/[^/]*$")


def cache_limit() -> int:
    """Bytes that the cache folder may take: `$ISRRESCNET_CACHE_LIMIT`, such as 800M, or 5G.

    Raises:
        ValueError: the variable is something else.
    """
    name = "ISRRESCNET_CACHE_LIMIT"
    return parse_bytes(os.environ.get(name) or LIMIT, f"${name}")


def cache_size(folder: Path) -> int:
    """Bytes of what is kept in a folder."""
    return sum(size for _, size, _ in _files(folder))


def limit_cache(folder: Path, limit: int) -> int:
    """Remove the files that were not used for longest until `limit` bytes are left; how many."""
    files = sorted(_files(folder))
    excess, removed = sum(size for _, size, _ in files) - limit, 0
    for _, size, path in files:
        if excess <= 0:
            break
        removed += _remove(path)
        excess -= size
    return removed


def clear_cache(folder: Path) -> int:
    """Remove all of them in a folder, and how many bytes they had; the folders stay."""
    total = cache_size(folder)
    limit_cache(folder, 0)
    return total


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """When each was last used, its size, and where it is; others' files in the folder are not."""
    found = []
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            if not _OURS.search(path.as_posix()):
                continue
            try:
                status = path.lstat()
            except OSError:  # another process was faster
                continue
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    return found


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # gone already, or not ours
        return False
    return True
