"""Files that appear whole or not at all, and the folder for those that can be made again."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, replace: bool = True) -> Iterator[Path]:
    """A path to write to; what is there when the block succeeds takes the place of `path`.

    Readers of `path` see the old file or the whole new one, never a part of either. On Linux the
    new one has no name until then (its path, which lacks the suffix, is that of an open file), so
    that a process that is killed leaves nothing behind.

    Raises:
        FileExistsError: not `replace`, and `path` is there when the block ends.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _nameless(path, replace) or _named(path, replace) as temporary:
        yield temporary


def _nameless(path: Path, replace: bool) -> contextlib.AbstractContextManager[Path] | None:
    """`atomic_path` where the system knows files without a name, else None."""
    try:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError):  # another system, or a file system that cannot
        return None

    @contextlib.contextmanager
    def block() -> Iterator[Path]:
        file = f"/proc/self/fd/{handle}"
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            yield Path(file)
            # With a folder given, which an absolute path ignores, Python follows the link in /proc.
            link = functools.partial(os.link, file, src_dir_fd=folder)
            try:
                link(path)
            except FileExistsError:
                if not replace:
                    raise
                name = path.with_name(f".{_short(path.name)}-{os.getpid()}-{handle}")
                link(name)
                os.replace(name, path)
        finally:
            os.close(folder)
            os.close(handle)

    return block()


@contextlib.contextmanager
def _named(path: Path, replace: bool) -> Iterator[Path]:
    """`atomic_path` everywhere: a hidden file beside it."""
    prefix = f".{_short(path.stem)}-"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only their owner can read; give the usual rights instead.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _short(name: str) -> str:
    """The beginning of a name, so that there is room for more: names end at 255 bytes."""
    while len(os.fsencode(name)) > 200:
        name = name[:-1]
    return name


def cache_folder() -> Path | None:
    """Where what can be made again is kept between runs; None when that is turned off.

    `$ISRRESCNET_CACHE` if set (empty: off), else `isrrescnet-jax` in `$XDG_CACHE_HOME` or ~/.cache.
    """
    chosen = os.environ.get("ISRRESCNET_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isrrescnet-jax"
