"""Ray, started on this machine or joined where it runs."""

import contextlib
import logging
import os
import socket
from typing import Any

from .. import __version__
from ..images.quiet import quiet
from ..messages import needed, one_line
from ..sizes import host_memory

_STORE = 2 << 30  # bytes for rows between tasks, on this machine


def connect(address: str | None = None) -> Any:
    """Ray, running here (None) or joined where it runs; returns the module.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        OSError: nothing answers there.
        ValueError: Ray or this library are of another version there, or are not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = needed("ray")
    needed("ray.data")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    hushed = quiet if address is None else contextlib.nullcontext
    options: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if address is None:
        # A picture that needs more memory than there is must not be tried for ever.
        os.environ.setdefault("RAY_task_oom_retries", "2")
        store = min(_STORE, max(100 << 20, (host_memory() or _STORE) // 8))
        options |= {"include_dashboard": False, "object_store_memory": store}
    else:
        _answers(address)
    try:
        with hushed():  # what its core says of itself
            ray.init(address or "local", **options)
    except Exception as error:  # it has many kinds
        where = address or "on this machine"
        text = one_line(error)
        if "ersion" in text:
            raise ValueError(f"--ray {where}: {text}") from None
        raise OSError(f"--ray {where}: {text}") from None
    if address is not None:
        _check_version(ray, address)
    return ray


def _answers(address: str) -> None:
    """Raise OSError if nothing does: Ray itself would wait for minutes, and abort the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto" or address == "local":
        return
    if not colon or not port.isdigit():
        raise ValueError(f"--ray {address}: an address is auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), 10).close()
    except OSError as error:
        raise OSError(f"--ray {address}: cannot be reached: {one_line(error)}") from None


def _version() -> str:
    from isrrescnet_jax import __version__ as there

    return there


def _check_version(ray: Any, address: str) -> None:
    try:
        there = ray.get(ray.remote(_version).options(num_cpus=0).remote())
    except Exception as error:
        raise ValueError(
            f"--ray {address}: isrrescnet-jax does not run there: {one_line(error)[-200:]}"
        ) from None
    if there != __version__:
        raise ValueError(f"--ray {address}: isrrescnet-jax is {there} there and {__version__} here")
