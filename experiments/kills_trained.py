"""Processes of a training run that are killed, and what is seen of them from outside."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .kills_compare import unfinished

END = 120.0  # seconds in which processes that nobody killed must end


@dataclasses.dataclass(frozen=True)
class Run:
    """One that is made twice.

    Attributes:
        changes: of the recipe.
        processes: how many train together.
        retries: of `isrrescnet train`.
        whom: what a kill may hit: all, host (one process with its parent), worker or parent.
        validated: it has a folder of validation images.
        cold: the killed run starts without compiled programs.
    """

    changes: str = ""
    processes: int = 1
    retries: int = 0
    whom: tuple[str, ...] = ("all",)
    validated: bool = False
    cold: bool = False


class Trained:
    """Processes that train in a workdir together, and what can be seen of them from outside."""

    def __init__(self, run: Run, work: Path, name: str, workdir: Path):
        self.run, self.workdir = run, workdir
        compiled = workdir.with_name("compiled") if run.cold else work / "compiled"
        variables = {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": os.fspath(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "ISRRESCNET_CACHE": os.fspath(work / "cache"),
            "TMPDIR": os.fspath(work / "temporary"),
        }
        command = [sys.executable, "-m", "isrrescnet_jax.cli", "train", f"{work / name}.py"]
        command += ["--data", f"{work / 'images'}", "--workdir", f"{workdir}"]
        if run.validated:
            command += ["--validation", f"{work / 'validation'}"]
        if run.retries:
            command += ["--retries", f"{run.retries}", "--lost-after", "1"]
        if run.processes > 1:
            command += ["--coordinator", f"localhost:{_port()}", "--processes", f"{run.processes}"]
            command += ["--lost-after", "5", "--wait", "60", "--process-id"]
        self.log = workdir.with_suffix(".log")
        workdir.parent.mkdir(parents=True, exist_ok=True)
        self.began, self.processes = time.monotonic(), []
        self.anew()
        with open(self.log, "ab") as log:
            for i in range(run.processes):
                own = [f"{i}"] if run.processes > 1 else []
                process = subprocess.Popen(
                    [*command, *own], env=os.environ | variables, stdout=log, stderr=log
                )
                self.processes.append(process)

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = (self.workdir / "metrics.jsonl").stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def step(self) -> int:
        """Of the last line that these processes wrote; 0 before they have written any."""
        if self._identity() == self._before:
            return 0
        try:
            with open(self.workdir / "metrics.jsonl", "rb") as file:
                file.seek(max(0, os.path.getsize(file.fileno()) - 4000))
                return json.loads(file.read().splitlines()[-1])["step"]
        except OSError:
            return 0

    def anew(self) -> None:
        """From now on, only lines that are written later count."""
        self._before = self._identity()

    def ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def wait(self, condition: Callable[[], Any], pause: float = 0.0005) -> bool:
        """Whether the condition came true before all had ended."""
        while not condition():
            if self.ended():
                return False
            time.sleep(pause)
        return True

    def victims(self, whom: str, which: int) -> tuple[str, list[int]]:
        """Who is to be killed: all of them, or what `whom` says of one; and whom that hits."""
        workers = [_children(process.pid) for process in self.processes]
        parents = [[process.pid] for process in self.processes]
        self._workers = sum(workers, [])
        if whom == "worker" and not workers[which]:  # not born yet
            whom = "host"
        return whom, {
            "all": sum(parents + workers, []),
            "host": parents[which] + workers[which],
            "worker": workers[which],
            "parent": parents[which],
        }[whom]

    def kill(self, victims: list[int]) -> None:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while not all(_gone(pid) for pid in victims):
            time.sleep(0.001)

    def last_end(self) -> list[int]:
        """Exit codes, when all have ended, the workers of killed parents too."""
        until = time.monotonic() + END
        for process in self.processes:
            process.wait(max(until - time.monotonic(), 0.1))
        while not all(_gone(pid) for pid in self._workers):
            if time.monotonic() > until:
                raise TimeoutError(f"{self.workdir}: a worker outlives its parent")
            time.sleep(0.01)
        return [process.returncode for process in self.processes]

    def finish(self) -> list[int]:
        """Exit codes at the end of the run."""
        return [process.wait(600) for process in self.processes]

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def _port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _children(pid: int) -> list[int]:
    """Of all threads of a process."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def temporary(folder: Path) -> dict[str, tuple[int, int]]:
    """What is there under another than its final name, and which file or folder that is."""
    found = {}
    for path in unfinished(folder):
        with contextlib.suppress(OSError):
            status = path.stat()
            found[str(path.relative_to(folder))] = status.st_ino, status.st_mtime_ns
    return found


def saved(workdir: Path) -> int:
    """Step of the last whole checkpoint."""
    try:
        names = os.listdir(workdir / "checkpoints")
    except OSError:
        return 0
    return max((int(name) for name in names if name.isdigit()), default=0)
