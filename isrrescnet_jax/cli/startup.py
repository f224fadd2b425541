"""What makes the command quick: imports without the garbage collector, programs kept on disk."""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from ..cache import cache_limit, limit_cache


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
