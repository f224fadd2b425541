"""A training process and its parent, which says in one line how it ended when it could not.

JAX ends a process whose cluster has lost another one at once, with pages of its own; nothing in
that process can prevent it. So the parent, which does not import JAX, forks the one that trains:

    parent   reads what JAX writes, passes SIGTERM on, owns the exit code, starts anew (`retries`)
    child    tells it where the run is (`tell`); ends when the parent does

Python's own standard error is that of the terminal as before; only what libraries write below
Python goes through the parent.
"""

import _thread
import collections
import contextlib
import io
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .messages import one_line

LOST = 3  # exit code: another process, or this one, is gone; the run can go on from its checkpoint
STOPPED = 143  # that of a process which SIGTERM ended

WAIT = 300.0  # seconds in which all processes of a run must have come
LOST_AFTER = 30.0  # seconds of silence after which one counts as lost

# How JAX's service begins to say that something is wrong.
_NOISE = re.compile(rb"^[WEF]\d{4} .*(coordination|preemption_sync|client\.h|distributed)")
_GONE = re.compile(r"stopped sending heartbeats\):\n((?:(?!The tasks).*\n)+)")

_told: int | None = None  # where `tell` writes to; None in a process without a parent


def tell(**facts: Any) -> None:
    """Let the parent know: `workdir`, `hosts`, `step`. Once it has heard a step, SIGTERM saves."""
    if _told is not None:
        with contextlib.suppress(OSError):
            os.write(_told, f"{json.dumps(facts)}\n".encode())


def last_checkpoint(workdir: os.PathLike | str) -> int | None:
    """The step of the last whole checkpoint in a folder, which may be in a cloud."""
    from etils import epath

    folder = epath.Path(workdir) / "checkpoints"
    if not folder.exists():
        return None
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=None)


def supervised(work: Callable[[], int], retries: int = 0, pause: float = 0.0) -> int:
    """The exit code of `work`, which is done in a child of this process.

    Must be called before there are threads. In the child it returns what `work` does.

    Args:
        work: gives its exit code, or raises.
        retries: how often it is started again when its exit code would be `LOST`.
        pause: seconds before that, in which the other processes notice that this one is gone.
    """
    while True:
        leash, held, told = os.pipe(), os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            for end in (leash[1], held[0], told[0]):
                os.close(end)
            _become_child(leash[0], held[1], told[1])
            return work()
        for end in (leash[0], held[1], told[1]):
            os.close(end)
        code, asked = _watch(child, leash[1], held[0], told[0])
        if code != LOST or retries < 1 or asked:
            return code
        print(f"isrrescnet: again in {pause:.0f} s ({retries} left)", file=sys.stderr, flush=True)
        time.sleep(pause)
        retries -= 1


# --- the child ------------------------------------------------------------------------------------


def _become_child(leash: int, native: int, told: int) -> None:
    """End with the parent, write to it, and keep Python's standard error apart from the rest."""
    global _told
    _told = told
    os.setpgid(0, 0)  # what a terminal or a shell sends to all of us comes from the parent, once
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(native, 2)
    os.close(native)

    def wait() -> None:
        os.read(leash, 1)  # returns when the parent lets go of it
        sys.stderr = io.StringIO()  # the parent knows, or nobody listens
        _thread.interrupt_main()
        time.sleep(3)  # in which locks are given back, unless the main thread hangs
        os._exit(130)

    threading.Thread(target=wait, daemon=True).start()


# --- the parent -----------------------------------------------------------------------------------


def _watch(child: int, leash: int, native: int, told: int) -> tuple[int, bool]:
    """Exit code of the child, and whether it was asked to stop."""
    held: collections.deque[bytes] = collections.deque(maxlen=200)
    facts: dict[str, Any] = {}
    asked: list[int] = []

    def relay() -> None:
        with open(native, "rb") as lines:
            for line in lines:
                if held or _NOISE.match(line):
                    held.append(line)
                else:
                    _write(line)

    def listen() -> None:
        with open(told, "rb") as lines:
            for line in lines:
                facts.update(json.loads(line))

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            os.kill(child, signal.SIGKILL)
        elif "step" in facts:
            os.kill(child, number)
        else:  # JAX takes SIGTERM as soon as it waits for others, and asks nobody before a step
            os.close(leash)

    threads = [threading.Thread(target=f, daemon=True) for f in (relay, listen)]
    with _signals(stop):
        for thread in threads:
            thread.start()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for thread in threads:
            thread.join(2)  # a worker that outlives the child may hold the other end
    with contextlib.suppress(OSError):
        os.close(leash)
    if asked and "step" not in facts:
        print("isrrescnet: stopped before the first step", file=sys.stderr)
        return STOPPED, True
    if asked and code < 0:
        return STOPPED, True
    if code in (0, 1, 2, LOST, 130):
        return code, bool(asked)
    text = b"".join(held).decode(errors="replace")
    explained = explain(text, facts)
    if explained is None:
        _write(text.encode())
        explained = LOST, f"{_who(facts.get('process'), facts)} died {_how(code)}{_where(facts)}"
    print(f"isrrescnet: {explained[1]}", file=sys.stderr, flush=True)
    return explained[0], False


def explain(text: str, facts: dict[str, Any]) -> tuple[int, str] | None:
    """Exit code and line for what JAX wrote before it ended the process; None if that is not why.

    >>> text = "... stopped sending heartbeats):\\n1\\nThe tasks have crashed."
    >>> explain(text, {"step": 7, "hosts": ["a", "b"]})[1]
    'process 1 on b is lost, at step 7: start all again with the same command'
    """
    if "joining" in facts and "hosts" not in facts and "DEADLINE_EXCEEDED" in text:
        return 2, facts["joining"]
    gone = _GONE.search(text)
    if gone:
        names = re.findall(r"^(?:.*task:)?(\d+)\s*$", gone[1], re.MULTILINE)
        who = ", ".join(_who(int(name), facts) for name in names)
        return LOST, f"{who} is lost{_where(facts)}"
    twice = re.search(r"(\d+) unexpectedly tried to connect", text)
    if twice:
        who = _who(int(twice[1]), facts)
        return LOST, f"{who} was started again while the others still ran{_where(facts)}"
    if "JAX distributed service" in text:
        return LOST, f"{_who(0, facts)} is lost{_where(facts)}"
    return None


def _who(process: int | None, facts: dict[str, Any]) -> str:
    hosts = facts.get("hosts", [])
    if process is None:
        return "the process"
    return f"process {process}" + (f" on {hosts[process]}" if process < len(hosts) else "")


def _where(facts: dict[str, Any]) -> str:
    """Step, last checkpoint and what to do."""
    step = f", at step {facts['step']}" if "step" in facts else ", before the first step"
    saved = ""
    if "workdir" in facts:
        try:
            last = last_checkpoint(facts["workdir"])
        except Exception as error:  # of a cloud, which is not why we are here
            saved = f" (checkpoints cannot be listed: {one_line(error)})"
        else:
            path = f"last checkpoint: {facts['workdir']}/checkpoints/{last}"
            saved = " (no checkpoint yet)" if last is None else f" ({path})"
    return f"{step}{saved}: start all again with the same command"


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    return f"of {signal.Signals(-code).name}" + (" (out of memory?)" if code == -9 else "")


def _write(line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line)


@contextlib.contextmanager
def _signals(handler: Callable) -> Iterator[None]:
    """SIGTERM and SIGINT go to this handler."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, before in zip(numbers, previous, strict=True):
            signal.signal(number, before)
