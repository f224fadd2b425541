"""Files by address: paths of this machine, and gs://, s3:// and all else that fsspec knows.

What is written appears whole or not at all: here by way of `atomic_path`, in a bucket because an
object is put at once. fsspec is imported when an address with :// is met, not before.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .files import atomic_path, check_possible
from .messages import needed, one_line

_PROTOCOL = re.compile(r"([A-Za-z][\w+.-]*)://")
_MAGIC = re.compile(r"[*?\[]")
# They log the tracebacks of what they raise as well.
_LOGGING = ("adlfs", "fsspec", "gcsfs", "s3fs")


def is_remote(address: str | os.PathLike) -> bool:
    """Whether this is an address for fsspec, and not a path of this machine.

    >>> is_remote("s3://photos/a.png"), is_remote("photos/a.png"), is_remote("file:///a.png")
    (True, False, False)
    """
    match = _PROTOCOL.match(str(address))
    return bool(match) and match[1].lower() not in ("file", "local")


def join(folder: str | os.PathLike, name: str) -> str:
    """The address of `name` in a folder.

    >>> join("gs://photos/", "cats/a.png"), join("photos", "a.png")
    ('gs://photos/cats/a.png', 'photos/a.png')
    """
    if is_remote(folder):
        return f"{str(folder).rstrip('/')}/{name}"
    return os.path.join(_path(folder), name)


def absolute(address: str | os.PathLike) -> str:
    """The same from every working folder; what is no path of this machine stays as it is.

    >>> absolute("gs://photos"), absolute("/photos/../a.png")
    ('gs://photos', '/a.png')
    """
    return str(address) if is_remote(address) else os.path.abspath(_path(address))


def find(address: str | os.PathLike, suffixes: Sequence[str], recursive: bool = False) -> list[str]:
    """The files that an address stands for, sorted: itself, those in a folder, or of a pattern.

    Args:
        address: of a file, whatever its suffix; of a folder or the beginning of names in a bucket
            up to a slash; or a pattern with `*`, `?`, `[...]` or `**`.
        suffixes: of the files in a folder that count, such as ".png", in any case.
        recursive: take folders further down, too.

    Raises:
        FileNotFoundError: there is nothing.
        OSError, ValueError: as `reached`.
    """
    if _MAGIC.search(str(address)) and not (not is_remote(address) and _path(address).exists()):
        found = _matches(address)
    elif is_file(address):
        return [str(address)]
    else:
        found = [
            join(address, name)
            for name in names(address, recursive)
            if name.lower().endswith(tuple(suffixes))
            and not name.rpartition("/")[2].startswith(".")
        ]
    if not found:
        raise FileNotFoundError(f"{address}: no such file, or a folder without any to read")
    return sorted(found)


def names(folder: str | os.PathLike, recursive: bool = True) -> Iterator[str]:
    """The names of the files in a folder, relative to it; none where there is no such folder.

    A million names take seconds in a local folder, and a thousand requests of a bucket.

    Raises:
        OSError, ValueError: as `reached`, but for a folder that is not there.
    """
    if not is_remote(folder):
        yield from _local_names(str(_path(folder)), "", recursive)
        return
    with reached(folder):
        fs, root = _filesystem(folder)
        root = root.rstrip("/")
        try:
            found = fs.find(root, maxdepth=None if recursive else 1)
        except FileNotFoundError:
            return
    for path in found:
        if path != root:
            yield path.removeprefix(root).lstrip("/")


def sizes(folder: str | os.PathLike) -> dict[str, int]:
    """Names of the files in a folder, not further down, and their bytes; of a missing folder none.

    Raises:
        OSError, ValueError: as `reached`.
    """
    with reached(folder), contextlib.suppress(FileNotFoundError):
        if not is_remote(folder):
            with os.scandir(_path(folder)) as entries:
                return {each.name: each.stat().st_size for each in entries if each.is_file()}
        fs, root = _filesystem(folder)
        found = [each for each in fs.ls(root, detail=True) if each["type"] == "file"]
        return {each["name"].rpartition("/")[2]: each["size"] for each in found}
    return {}


def is_file(address: str | os.PathLike) -> bool:
    """Whether there is a file of exactly this address.

    Raises:
        OSError, ValueError: as `reached`.
    """
    if not is_remote(address):
        return _path(address).is_file()
    with reached(address):
        fs, path = _filesystem(address)
        return bool(fs.isfile(path))


def read(address: str | os.PathLike) -> bytes:
    """All bytes of a file.

    Raises:
        OSError, ValueError: as `reached`.
    """
    if not is_remote(address):
        return _path(address).read_bytes()
    with reached(address):
        fs, path = _filesystem(address)
        return fs.cat_file(path)


@contextlib.contextmanager
def opened(address: str | os.PathLike) -> Iterator[Any]:
    """A file to read from, with `read` and `seek`, which is not brought here as a whole.

    Raises:
        OSError, ValueError: as `reached`.
    """
    if not is_remote(address):
        with open(_path(address), "rb") as file:
            yield file
        return
    with reached(address):
        fs, path = _filesystem(address)
        file = fs.open(path, "rb")
    with file:
        yield file


def write(address: str | os.PathLike, data: bytes | memoryview, replace: bool = True) -> bool:
    """Put bytes there, whole or not at all.

    Returns:
        Whether they were: False if there is such a file, and it is not to be replaced.

    Raises:
        OSError, ValueError: as `reached`.
    """
    if not is_remote(address):
        try:
            with atomic_path(_path(address), replace) as temporary:
                temporary.write_bytes(data)
        except FileExistsError:
            return False
        return True
    with reached(address):
        fs, path = _filesystem(address)
        try:
            fs.pipe_file(path, bytes(data), mode="overwrite" if replace else "create")
        except FileExistsError:
            return False
        return True


def check(folder: str | os.PathLike) -> None:
    """Raise what is wrong with a folder for results before there are any.

    Raises:
        OSError, ValueError: as `reached`.
    """
    if not is_remote(folder):
        if _path(folder).exists() and not _path(folder).is_dir():
            raise ValueError(f"{folder}: exists, but is not a folder")
        try:
            check_possible(_path(folder) / "result")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from None
        return
    with reached(folder):
        fs, path = _filesystem(folder)
        fs.exists(path)
        bucket = path.split("/")[0]
        if bucket and not fs.exists(bucket):
            raise FileNotFoundError(f"{folder}: there is no {bucket}")


@contextlib.contextmanager
def reached(address: str | os.PathLike) -> Iterator[None]:
    """Whatever keeps an address from being reached, as an error of one line that begins with it.

    Raises:
        ValueError: a protocol that is not known, or whose package is not installed.
        FileNotFoundError, PermissionError: of a file or bucket.
        OSError: no answer, no login, and all else.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "fsspec":
            raise
        raise ValueError(f"{address}: {error}") from None
    except ImportError as error:  # how fsspec says what is not installed
        advice = "pip install 'isrrescnet-jax[buckets]' has it for s3:// and gs://"
        raise ValueError(f"{address}: {one_line(error)}; {advice}") from None
    except FileNotFoundError as error:
        text = one_line(error)
        text = text if str(address) in text else f"{address}: no such file, folder or bucket"
        raise FileNotFoundError(text) from None
    except PermissionError as error:
        raise PermissionError(f"{address}: no permission: {_reason(error)}") from None
    except ValueError as error:
        raise ValueError(one_line(error, address)) from None
    except Exception as error:  # each of these packages has its own
        raise OSError(f"{address}: cannot be reached: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    reason = one_line(error)
    return reason if len(reason) <= 200 else f"{reason[:200]}..."


def _filesystem(address: str | os.PathLike) -> tuple[Any, str]:
    """fsspec's file system, which remembers no listing, and the path in it."""
    for library in _LOGGING:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    return needed("fsspec").core.url_to_fs(str(address), use_listings_cache=False)


def _path(address: str | os.PathLike) -> Path:
    return Path(re.sub(r"^(file|local)://", "", str(address)))


def _matches(pattern: str | os.PathLike) -> list[str]:
    """The files of a pattern."""
    if not is_remote(pattern):
        import glob

        found = glob.glob(str(_path(pattern)), recursive=True)
        return [name for name in found if os.path.isfile(name)]
    with reached(pattern):
        fs, path = _filesystem(pattern)
        found = fs.glob(path, detail=True)
        return [fs.unstrip_protocol(n) for n, about in found.items() if about["type"] == "file"]


def _local_names(root: str, below: str, recursive: bool) -> Iterator[str]:
    try:
        entries = os.scandir(os.path.join(root, below))
    except FileNotFoundError:
        return
    folders = []
    with entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield name
            elif recursive:
                folders.append(name)
    for name in folders:
        yield from _local_names(root, name, recursive)
