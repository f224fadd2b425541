"""What comes first: standard streams, quick imports, programs kept on disk."""

import contextlib
import gc
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..cache import cache_limit, limit_cache


class Nowhere(io.TextIOBase):
    """In place of a stream that is closed; what is said there is not heard."""

    def write(self, text: str) -> int:
        return len(text)


def open_streams() -> None:
    """Have all three standard streams, as far as possible, though our caller has closed some.

    Else the first files that are opened get their numbers, and what libraries say ends up in them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdout, sys.stderr = sys.stdout or Nowhere(), sys.stderr or Nowhere()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """For imports: what they make lives to the end, and is not searched for garbage, now or later.

    Collections that look through all of JAX cost a tenth of a second while it is imported, tenths
    while it traces, and half a second at exit.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def keep_compiled(folder: Path | None) -> None:
    """Have JAX keep every compiled program in `folder`, which is brought to its size limit first.

    JAX's own limit would need another package, and fails on files from before it was set.
    """
    import jax

    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs compile time, no more
    limit_cache(folder, cache_limit())
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
