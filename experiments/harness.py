"""What the benchmarks share: taking turns, processes of their own, memory, programs and tables.

Two ways to do a thing are compared by calling them in turns in one run, and by the ratio of the
medians: other work on the machine then slows both alike. What is measured for its peak of memory,
or must not share compiled programs, runs in a process of its own.

Nothing here imports JAX before it is needed, so that a process may set its environment first.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

Name = TypeVar("Name")

PHOTOGRAPH = Path(__file__).parents[1] / "examples" / "astronaut.png"


def environment(*packages: str) -> str:
    """Machine, versions of Python and of these packages, and date, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    python = f"Python {platform.python_version()}"
    return f"{processor()}, {cores()} cores; {python}, {versions}; {datetime.date.today()}"


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def photograph(height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph in `examples`, repeated or cut to this size."""
    image = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))
    times = (-(-height // image.shape[0]), -(-width // image.shape[1]), 1)
    return np.tile(image, times)[:height, :width]


def middle(image: Num[np.ndarray, "h w *c"], side: int) -> Num[np.ndarray, "side side *c"]:
    """Its middle square."""
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


# --- time -----------------------------------------------------------------------------------------


def taking_turns(
    calls: Mapping[Name, Callable[[], Any]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Seconds of every call, sorted; all in turns, `rounds` times, after some that do not count.

    A call must wait for its result. With `time.process_time` for a clock they are those that this
    process has on the processors, all threads together, which other work changes less.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(-warm_up, rounds):
        for name, call in calls.items():
            start = clock()
            call()
            if turn >= 0:
                seconds[name].append(clock() - start)
    return {name: sorted(times) for name, times in seconds.items()}


def medians(calls: Mapping[Name, Callable[[], Any]], rounds: int) -> dict[Name, float]:
    """Median seconds of every call, in turns (see `taking_turns`)."""
    return {name: median(s) for name, s in taking_turns(calls, rounds).items()}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    middle, least, most = median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


# --- processes ------------------------------------------------------------------------------------

_made: Any = None


def _make(make: Callable[..., Any], *args: Any) -> None:
    global _made
    _made = make(*args)


def _call(*args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = _made(*args)
    return result, time.perf_counter() - start


def _resident() -> int:
    # A new process inherits what `getrusage` tells from the one that started it.
    peak = memory("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if peak is None else peak


class Worker:
    """A process that makes a function and calls it when told; use it in a `with` block.

    Attributes:
        seconds: that the last call took, in the process.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], *args: Any):
        """Begin to make the function, make(*args). `make` is a module's, arguments are plain."""
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        self._before = self._pool.submit(_resident)
        self._making = self._pool.submit(_make, make, *args)
        self.seconds = float("nan")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def wait(self) -> None:
        """Return when the function is made, or has failed to be, which the first call tells."""
        self._making.exception()

    def __call__(self, *args: Any) -> Any:
        """Call the function and wait for its result, which must be plain.

        Raises:
            Exception: what was raised in the process, now or when the function was made.
        """
        self._making.result()
        result, self.seconds = self._pool.submit(_call, *args).result()
        return result

    def peak(self) -> int:
        """Bytes of its greatest resident memory so far."""
        return self._pool.submit(_resident).result()

    def growth(self) -> int:
        """Those beyond what it had before anything was made."""
        return self.peak() - self._before.result()


def in_a_process(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a command used.

    Attributes:
        seconds: from start to end.
        resident: bytes, the peak of what it had in memory, pages of files included.
        anonymous: bytes, the peak of what is no file's, looked up every few milliseconds. Pages of
            files can be dropped at any time. Both are None where the system does not tell.
        output: its standard output.
    """

    seconds: float
    resident: int | None
    anonymous: int | None
    output: str


def command(words: Sequence[Any], variables: dict[str, str], every: float = 0.01) -> Usage:
    """Run a Python module with arguments, in a process of its own.

    Args:
        words: module and arguments.
        variables: of the environment, besides those of this process.
        every: seconds between two looks at its memory.

    Raises:
        RuntimeError: it fails; with the last lines that it wrote.
    """
    line = [sys.executable, "-m", *map(str, words)]
    peaks: dict[str, int] = {}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(line, env=os.environ | variables, stdout=output, stderr=errors)
        while process.poll() is None:
            for name in ("VmHWM", "RssAnon"):
                if (now := memory(name, process.pid)) is not None:
                    peaks[name] = max(now, peaks.get(name, 0))
            time.sleep(every)
        seconds = time.perf_counter() - start
        for file in (output, errors):
            file.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(line)}: {process.returncode}\n{errors.read()[-2000:]}")
        return Usage(seconds, peaks.get("VmHWM"), peaks.get("RssAnon"), output.read())


def memory(name: str, pid: int | str = "self") -> int | None:
    """Bytes that a process has: RssAnon, VmRSS or its peak VmHWM; None if it, or /proc, is not."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None


# --- programs -------------------------------------------------------------------------------------


@contextlib.contextmanager
def compiled_programs() -> Iterator[list[float]]:
    """A list that gets the seconds of every program that XLA compiles, small ones included."""
    import jax

    found: list[float] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# --- results --------------------------------------------------------------------------------------


class Table:
    """A Markdown table that is printed line by line; the first column is text, others numbers."""

    def __init__(self, *columns: str):
        print(f"\n| {' | '.join(columns)} |\n| --- |{' ---: |' * (len(columns) - 1)}", flush=True)

    def row(self, *cells: Any) -> None:
        """Print a line."""
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def write_json(path: Path | None, rows: Any, *packages: str) -> None:
    """Write numbers and where they are from; nothing if the path is None."""
    if path is not None:
        made = {"environment": environment(*packages), "rows": rows}
        path.write_text(json.dumps(made, indent=1) + "\n")
