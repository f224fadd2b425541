"""What C libraries say on standard error, kept off it: damage comes as an error of one line."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside: list[int] = []  # the kept standard error, once for each thread that is within


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """File descriptor 2 leads nowhere; what other threads write to it meanwhile is lost, too.

    libtiff writes there itself, and Pillow has no way to tell it not to.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    with _lock:
        kept = _inside[0] if _inside else -1
        if not _inside:
            with contextlib.suppress(OSError):  # there may be no standard error at all
                kept = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
        _inside.append(kept)


def _leave() -> None:
    with _lock:
        kept = _inside.pop()
        if not _inside and kept >= 0:
            os.dup2(kept, 2)
            os.close(kept)
