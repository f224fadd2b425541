"""Training in processes of their own, alone or several together over loopback."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DEVICES = "--xla_force_host_platform_device_count"


def start(arguments: Sequence[str], devices: int, cache: Path) -> subprocess.Popen[str]:
    """`isrrescnet train` with so many devices; `cache` is for compiled programs."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {DEVICES}={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "isrrescnet_jax.cli", "train", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """What they said; all must end well."""
    outputs = [process.communicate(timeout=250)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)
    return outputs


def cluster(count: int) -> list[tuple[str, ...]]:
    """The options of each of so many processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    all_of_them = ("--coordinator", f"localhost:{port}", "--processes", str(count))
    return [(*all_of_them, "--process-id", str(i)) for i in range(count)]
