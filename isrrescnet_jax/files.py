"""Files that appear whole or not at all, and the folder for those that can be made again."""

import contextlib
import errno
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, replace: bool = True) -> Iterator[Path]:
    """A path to write to; what is there when the block succeeds takes the place of `path`.

    Readers of `path` see the old file or the whole new one, never a part of either. On Linux the
    new one has no name until then (its path, which lacks the suffix, is that of an open file), so
    that a process that is killed leaves nothing behind. A link stays, and the file that it leads to
    is replaced. Into what is no file (a device, a pipe, our own standard output), all is written at
    the end.

    Raises:
        FileExistsError: not `replace`, and `path` is there when the block ends.
        OSError: it cannot be written, for a reason of the system; names `path`.
    """
    place = Path(os.path.realpath(path))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        block = _into(place, replace) or _nameless(place, replace) or _named(place, replace)
        with block as temporary:
            yield temporary
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def check_possible(path: str | os.PathLike) -> None:
    """Raise OSError, which names `path`, if `atomic_path` could not write there as things are."""
    place = Path(os.path.realpath(path))
    try:
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, None)
        if is_file(place) or not place.exists():
            folder = next(folder for folder in place.parents if folder.exists())
            with tempfile.TemporaryFile(dir=folder):
                pass
        elif not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, None)
    except OSError as error:
        assert error.errno is not None
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from None


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is a file, which `atomic_path` replaces; else it writes into what is there."""
    return os.path.isfile(path) and _stream(path) is None


def _stream(path: str | os.PathLike) -> int | None:
    """Our standard output or error, if that is what is there."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(number), os.stat(path)):
                return number
    return None


def _into(path: Path, replace: bool) -> contextlib.AbstractContextManager[Path] | None:
    """`atomic_path` where what is there is not to be replaced by a file, else None."""
    status = os.stat(path) if os.path.lexists(path) else None
    if status is None or is_file(path):
        return None
    if not replace:
        raise FileExistsError(errno.EEXIST, None)

    @contextlib.contextmanager
    def block() -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / f"new{path.suffix}"
            yield temporary
            number = _stream(path)
            handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
            with open(temporary, "rb") as written, open(handle, "wb") as there:
                shutil.copyfileobj(written, there)

    return block()


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
                try:
                    os.replace(name, path)
                except OSError:
                    os.unlink(name)
                    raise
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
