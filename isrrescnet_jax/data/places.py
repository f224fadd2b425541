"""Files in folders of this machine and in buckets (gs://, s3://, ...), through fsspec.

Whatever goes wrong, on the way there too, is an OSError or ValueError of one line.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ..files import atomic_path
from ..messages import needed, one_line

# They log the tracebacks of what they raise as well.
_LOGGING = ("adlfs", "fsspec", "gcsfs", "s3fs")


def remote(address: str) -> bool:
    """Whether this is no path: gs://BUCKET/FOLDER, s3://BUCKET/FOLDER and the like."""
    return "://" in address


def read(address: str, name: str) -> bytes:
    """All of a file in the folder `address`.

    Raises:
        FileNotFoundError: it is not there.
        PermissionError, OSError, ValueError: it may not be read, or the place cannot be reached.
    """
    with _explained(f"{address}/{name}"):
        system, root = _opened(address)
        return system.cat_file(f"{root}/{name}")


def sizes(address: str) -> dict[str, int]:
    """Names of the files in the folder `address`, and their bytes; of a missing folder none.

    Raises:
        PermissionError, OSError, ValueError: as `read`.
    """
    with _explained(address):
        system, root = _opened(address)
        system.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            found = system.ls(root, detail=True)
            files = [entry for entry in found if entry["type"] == "file"]
            return {entry["name"].rpartition("/")[2]: entry["size"] for entry in files}
        return {}


def write(address: str, name: str, data: bytes) -> None:
    """A new file in the folder `address`, whole or not at all.

    Raises:
        FileExistsError: it is there.
        PermissionError, OSError, ValueError: as `read`.
    """
    with _explained(f"{address}/{name}"):
        system, root = _opened(address)
        if "file" in system.protocol:
            with atomic_path(f"{root}/{name}", replace=False) as temporary:
                temporary.write_bytes(data)
        else:
            system.pipe_file(f"{root}/{name}", data, mode="create")


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and what it calls the folder."""
    for library in _LOGGING:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    return needed("fsspec.core").url_to_fs(address.rstrip("/"))


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError:
        raise
    except ImportError as error:  # "Install s3fs to access S3"
        raise ValueError(f"{address}: {one_line(error)}") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{address}: not there") from None
    except FileExistsError:
        raise FileExistsError(f"{address}: already there") from None
    except PermissionError as error:
        raise PermissionError(f"{address}: no permission ({_reason(error)})") from None
    except ValueError as error:  # "Protocol not known: s4"
        raise ValueError(f"{address}: {_reason(error)}") from None
    # The libraries of clouds raise errors of every kind.
    except Exception as error:
        raise OSError(f"{address}: cannot be reached: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or one_line(error)
    return reason if len(reason) <= 200 else f"{reason[:200]}..."
