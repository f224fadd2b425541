"""Amounts of memory: as people write them, and how much of it is free."""

import os
import re
from collections.abc import Callable
from pathlib import Path


def parse_bytes(text: str, name: str) -> int:
    """800M, 6G, 1.5GiB or a number of bytes.

    Raises:
        ValueError: anything else; the message says that `name` must be like that.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not float(match[1]):
        raise ValueError(f"{name} must be like 800M or 6G, not {text}")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))


def said(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def host_memory() -> int | None:
    """Bytes of the host that this process may still take; None if the system does not say.

    What is available, or the limit of the container or of the process (`ulimit -v`) if that leaves
    less.
    """
    known = [size for size in map(_asked, (_available, _of_container, _of_process)) if size]
    return min(known, default=None)


def _asked(question: Callable[[], int | None]) -> int | None:
    """The answer of a system that may not know the question."""
    try:
        return question()
    except (OSError, KeyError, ValueError, AttributeError, ImportError):
        return None


def _available() -> int:
    try:
        return _table("/proc/meminfo", ":")["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_container() -> int:
    group = Path("/sys/fs/cgroup")
    limit = int((group / "memory.max").read_text())  # "max" is no number: there is none
    used = int((group / "memory.current").read_text())
    cached = _table(str(group / "memory.stat"), None)["inactive_file"]
    return max(limit - used + cached, 1)


def _of_process() -> int | None:
    import resource  # not on every system

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(limit - pages * resource.getpagesize(), 1)


def _table(path: str, separator: str | None) -> dict[str, int]:
    """Lines of a name and a number."""
    lines = (line.split(separator, 1) for line in Path(path).read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in lines}
