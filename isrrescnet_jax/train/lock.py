"""One run at a time in a workdir: a file in it says which process trains there.

    WORKDIR/lock-PROCESS.json    {"host": ..., "pid": ..., "started": ..., "token": ..., ...}

It is made by an operation that fails where it exists already, which local and network file systems
have, and Cloud Storage too. What cannot do so is read again a moment later: the last writer wins.
Over a lock whose process is gone writes who has made a file named after it, in the same way.
"""

import contextlib
import datetime
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

SETTLED = 0.3  # seconds after which another one that takes the same lock has written it


@contextlib.contextmanager
def held(workdir: epath.Path, process: int = 0, take_over: bool = False) -> Iterator[str]:
    """Have the workdir to ourselves; gives the token of this lock.

    A lock whose process is gone from this host is taken over. Within another `held` of this process
    it is the same lock.

    Args:
        workdir: made if it does not exist.
        process: of a run of several, each of which has a lock of its own.
        take_over: also the lock of another host, where nobody can see whether its process lives.

    Raises:
        ValueError: another process trains there, or may do so.
        OSError: the folder cannot be written to.
    """
    path = place(workdir, process)
    new = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    mine = _myself()
    sure = _create(path, json.dumps(mine))
    if sure is False:
        there = read(path)
        if there is not None and _same(there, mine):
            yield there["token"]
            return
        sure = _succeed(workdir, path, there, mine, take_over)
    if sure is not True:  # another one may have done the same
        time.sleep(SETTLED)
        there = read(path) or mine
        if there["token"] != mine["token"]:
            raise ValueError(_refusal(workdir, there, False) or f"{workdir} is taken: try again")
    try:
        yield mine["token"]
    finally:
        with contextlib.suppress(OSError):
            if _token(read(path)) == mine["token"]:
                path.unlink()
            if new and "://" not in os.fspath(workdir):
                os.rmdir(workdir)  # if nothing has come into it


def place(workdir: epath.Path, process: int) -> epath.Path:
    """Where the lock of a process is."""
    return workdir / f"lock-{process}.json"


def read(path: epath.Path) -> dict[str, Any] | None:
    """Who holds it; None if nobody does, or if what is there was not written to its end."""
    for _ in range(5):
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:  # just being written
            time.sleep(SETTLED)
            continue
        kinds = {"host": str, "pid": int, "token": str}
        ours = isinstance(found, dict) and all(type(found.get(k)) is t for k, t in kinds.items())
        return found if ours and 0 < found["pid"] < 2**31 else None
    return None


def _token(there: dict[str, Any] | None) -> str | None:
    return None if there is None else there["token"]


def _succeed(
    workdir: epath.Path,
    path: epath.Path,
    there: dict[str, Any] | None,
    mine: dict[str, Any],
    take_over: bool,
) -> bool | None:
    """Write our lock over one that is there; as `_create`, whether it is surely ours.

    Raises:
        ValueError: it is not ours to take, or another process takes it.
    """
    refusal = None if there is None else _refusal(workdir, there, take_over)
    if refusal:
        raise ValueError(refusal)
    claim = path.with_name(f"{path.stem}-after-{_token(there)}.json")
    sure = _create(claim, json.dumps(mine))
    if sure is False:  # and its process may be gone as well
        try:
            sure = _succeed(workdir, claim, read(claim), mine, False)
        except ValueError as error:
            raise ValueError(f"{error} (see {claim.name})") from None
    try:
        now = read(path)
        if _token(now) != _token(there):  # others were quicker, before we had the claim
            taken = None if now is None else _refusal(workdir, now, False)
            raise ValueError(taken or f"{workdir} is taken: try again")
        path.write_text(json.dumps(mine))
    finally:
        with contextlib.suppress(OSError):
            claim.unlink()
    return sure


def _create(path: epath.Path, text: str) -> bool | None:
    """Whether it was made here; None if that is so but for one that did the same."""
    name = os.fspath(path)
    if "://" not in name:
        try:
            with open(name, "x") as file:
                file.write(text)
        except FileExistsError:
            return False
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error
        return True
    try:
        import fsspec  # what epath uses for such names

        system, name = fsspec.core.url_to_fs(name)
        system.pipe_file(name, text.encode(), mode="create")
        return True
    except FileExistsError:
        return False
    except (ImportError, NotImplementedError, TypeError, ValueError):
        if path.exists():
            return False
        path.write_text(text)
        return None


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "space": _space(),
        "pid": os.getpid(),
        "birth": _birth(os.getpid()),
        "started": datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds"),
        "token": uuid.uuid4().hex,
    }


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a.get(name) == b.get(name) for name in ("host", "pid", "birth"))


def _refusal(workdir: epath.Path, there: dict[str, Any], take_over: bool) -> str | None:
    """Why this lock is not ours to take, if so."""
    who = f"{workdir} is that of process {there['pid']} on {there['host']}, there since "
    who += f"{there.get('started')}"
    if (there["host"], there.get("space", _space())) == (socket.gethostname(), _space()):
        gone = not _alive(there["pid"], there.get("birth"))
        return None if gone else f"{who}: stop it, or choose another workdir"
    return None if take_over else f"{who}: choose another workdir, or --take-over if it is gone"


def _alive(pid: int, birth: str | None) -> bool:
    """Whether that process, not a later one with its number, runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    now = _birth(pid)
    return now is None or birth is None or now == birth


def _space() -> str | None:
    """In which of the host's containers process numbers count; None where the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _birth(pid: int) -> str | None:
    """When a process began, since the boot of this host; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in "ZX" else f"{boot} {fields[19]}"
