"""Spoiled files by the thousand: a result, or one line and exit code 2, in bounded memory.

    python -m experiments.fuzz                  # everything, in two processes; goes on if stopped
    python -m experiments.fuzz --part 0.02 --out /tmp/fuzz.json

Every case is a file and a way to spoil it, decided by the seed. The commands run as they are, but
for the network, whose place an enlargement without weights takes; JAX, which takes no part in it,
is not asked for devices. They run in a process that was forked for a few dozen cases and whose
address space ends 1 GiB beyond what it had when idle, so that memory which is not there is noticed
as a small machine would. What is measured is the peak of resident memory of each case above that
idle process, its time on the processor, and all that it wrote to standard error, C libraries too.
"""

import argparse
import collections
import contextlib
import dataclasses
import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import fuzz_files, harness
from .harness import environment

LIMIT = 2**30  # bytes above an idle process
SECONDS = 10  # on the processor
CHUNK = 100  # cases for a forked process
PICTURE_WAYS = {"header": 110, "body": 70, "moved": 40, "size": 70}
WAYS = {
    "bomb": {"header": 8, "size": 6, "moved": 2},
    "safetensors": {"renamed": 400, "values": 150, "header": 80, "body": 50},
    "pth": {"header": 100, "body": 150, "moved": 50},
    "checkpoint": {"header": 60, "moved": 20},
}
GOOD = ("result", "refused")


@dataclasses.dataclass(frozen=True)
class Case:
    """A file, by kind and name, and how it is spoiled."""

    kind: str
    name: str
    how: str

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}/{self.how}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        what: "result" or "refused", or what it should not be.
        line: the first line on standard error.
        megabytes: resident at the peak, above the idle process.
    """

    id: str
    what: str
    line: str
    seconds: float
    megabytes: float


# --- which cases there are ------------------------------------------------------------------------


def all_files(folder: Path) -> dict[tuple[str, str], bytes]:
    """The whole files, by kind and name; made once and kept in `folder`."""
    if not (folder / "made").exists():
        made = {("picture", name): data for name, data in fuzz_files.pictures().items()}
        made |= {("bomb", name): data for name, data in fuzz_files.bombs().items()}
        for (kind, name), data in made.items():
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        _in_fork(lambda: _of("pth").make(folder))
        (folder / "made").touch()
    found = {}
    for kind in ("picture", *WAYS):
        for path in sorted(p for p in (folder / kind).rglob("*") if p.is_file()):
            found[kind, str(path.relative_to(folder / kind))] = path.read_bytes()
    return found


def _of(kind: str) -> Any:
    """The module that knows how files of a kind are made and read, imported when needed."""
    name = "pictures" if kind in ("picture", "bomb") else "weights"
    return importlib.import_module(f".fuzz_{name}", __package__)


def cases(files: dict[tuple[str, str], bytes], part: float = 1.0, seed: int = 0) -> list[Case]:
    """All cases, or a part of them that the seed draws."""
    found = []
    for (kind, name), data in files.items():
        hows = list(fuzz_files.ways(data, WAYS.get(kind, PICTURE_WAYS)))
        if kind == "bomb":  # too long for an end at every 64th byte
            hows = [how for how in hows if not how.startswith("cut")]
            hows += [f"cut {len(data) * i // 8}" for i in range(1, 8)]
        if kind == "checkpoint" and not spoils_text(name):
            continue
        found += [Case(kind, name, how) for how in hows]
    return sorted(
        random.Random(seed).sample(found, max(1, round(part * len(found)))),
        key=lambda case: (case.kind, case.id),
    )


def spoils_text(name: str) -> bool:
    """Whether this is one of the files of a run that say what it is, and not its arrays."""
    parts = Path(name).parts
    texts = {"config", "recipe", "data", "metrics"} & set(parts)
    return bool(texts) or parts[-1] in ("_CHECKPOINT_METADATA", "_METADATA", "metrics.jsonl")


# --- one case, in a process of its own ------------------------------------------------------------


def run_case(case: Case, data: bytes, folder: Path) -> tuple[str, str]:
    """What comes of it, and the line on standard error."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _said()  # what came late
    code, check = _of(case.kind).run(case, data, folder)
    said = _said().splitlines()
    line = said[0] if said else ""
    if (folder / "ran").exists():
        return "code ran", line
    if code == 2:
        return ("refused" if len(said) == 1 else "not one line"), " | ".join(said)[:2000]
    if code == 0:
        return ("result" if check() else "wrong result"), line
    return "traceback", (said or [""])[-1]


def exit_code(command: Any, argv: Sequence[str]) -> int:
    """What the process would have ended with; 1 after a traceback, which is printed."""
    try:
        command(list(argv))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _said() -> str:
    """What was written to standard error since the last time, by Python or below it."""
    sys.stderr.flush()
    sys.stdout.flush()
    end = os.lseek(2, 0, os.SEEK_CUR)
    text = os.pread(2, end, 0).decode("utf-8", "replace")
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)
    return text


# --- forked processes -----------------------------------------------------------------------------


def _in_fork(call: Any) -> None:
    """In a process of its own, so that this one stays without threads."""
    child = os.fork()
    if not child:
        code = 1
        try:
            call()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the files could not be made")


def _child(todo: Sequence[Case], files: dict, folder: Path, pipe: int) -> None:
    """Do the cases, and send what comes of each as a line."""
    log = os.open(folder.with_suffix(".err"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout, sys.stderr = (os.fdopen(i, "w", closefd=False) for i in (1, 2))
    _of(todo[0].kind).start(folder.parent)
    _said()
    gc.collect()
    gc.freeze()
    gc.freeze = lambda: None  # commands freeze what they import, which here would be all the rest
    idle = harness.memory("VmRSS") or 0
    limit = (harness.memory("VmSize") or 0) + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in todo:
        gc.collect()
        os.write(pipe, f"{json.dumps(case.id)}\n".encode())
        data = fuzz_files.spoiled(files[case.kind, case.name], case.how, case.id)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = time.process_time()
        what, line = run_case(case, data, folder)
        seconds = time.process_time() - start
        peak = ((harness.memory("VmHWM") or 0) - idle) / 1e6
        if what in GOOD and peak > LIMIT / 1e6:
            what = "too much memory"
        outcome = Outcome(case.id, what, line, round(seconds, 3), round(peak, 1))
        os.write(pipe, f"{json.dumps(dataclasses.asdict(outcome))}\n".encode())


def outcomes(todo: Sequence[Case], files: dict, folder: Path) -> Iterator[Outcome]:
    """Of the cases, each in a forked process with limits; one that dies or hangs is replaced."""
    todo = list(todo)
    while todo:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                os.close(reading)
                _child(todo, files, folder, writing)
                code = 0
            os._exit(code)
        os.close(writing)
        current, why = None, "killed"
        with open(reading, "rb") as pipe:
            began, before = time.monotonic(), _processor(child)
            while True:
                if not select.select([pipe], [], [], 1)[0]:
                    spent = _processor(child) - before
                    slow = current and spent > SECONDS
                    if slow or time.monotonic() - began > 30 * SECONDS:
                        why = "hang"
                        os.kill(child, signal.SIGKILL)
                        break
                    continue
                text = pipe.readline()
                if not text:
                    break
                message = json.loads(text)
                began, before = time.monotonic(), _processor(child)
                if isinstance(message, str):
                    current = message
                else:
                    todo.pop(0)
                    current = None
                    yield Outcome(**message)
        status = os.waitpid(child, 0)[1]
        if current:
            case = todo.pop(0)
            yield Outcome(case.id, why, f"wait status {status}", time.monotonic() - began, 0.0)
        elif todo:
            raise RuntimeError(f"no case began: {folder.with_suffix('.err').read_text()[-2000:]}")


def _processor(process: int) -> float:
    """Seconds that a process had on the processor."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


# --- all of them ----------------------------------------------------------------------------------


def campaign(chosen: list[Case], files: dict, folder: Path, workers: int) -> list[Outcome]:
    """Every case once, in `workers` processes; what `folder` has of an earlier run stays."""
    kinds = collections.defaultdict(list)
    for case in chosen:
        kinds[case.kind].append(case)
    chunks = []
    for kind, of_kind in kinds.items():
        size = 1 if kind == "bomb" else CHUNK  # what one leaves in memory is not the next one's
        chunks += [of_kind[i : i + size] for i in range(0, len(of_kind), size)]
    random.Random(0).shuffle(chunks)
    known = {outcome.id for outcome in read_outcomes(folder)}
    children = []
    for worker in range(workers):
        child = os.fork()
        if not child:
            with open(folder / f"{worker}.jsonl", "a", 1) as log:
                for chunk in chunks[worker::workers]:
                    todo = [case for case in chunk if case.id not in known]
                    for outcome in outcomes(todo, files, folder / f"worker{worker}"):
                        log.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            os._exit(0)
        children.append(child)
    while children:
        time.sleep(5)
        children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
        done = read_outcomes(folder)
        counts = dict(collections.Counter(outcome.what for outcome in done))
        print(f"{len(done)} of {len(chosen)}: {counts}", flush=True)
    wanted = {case.id for case in chosen}
    return [outcome for outcome in read_outcomes(folder) if outcome.id in wanted]


def read_outcomes(folder: Path) -> list[Outcome]:
    """What earlier runs wrote; a line that was cut off is left out."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError, TypeError):
                outcome = Outcome(**json.loads(line))
                found[outcome.id] = outcome
    return list(found.values())


def summary(found: list[Outcome]) -> dict[str, Any]:
    """Counts by kind of file and by suffix, the largest figures, and every outcome that is bad."""
    tables: dict[str, Any] = {"cases": len(found), "outcomes": {}, "files": {}, "ways": {}}
    for outcome in found:
        kind, name, how = outcome.id.split("/", 2)
        for key in (kind, "all"):
            counts = tables["outcomes"].setdefault(key, {})
            counts[outcome.what] = counts.get(outcome.what, 0) + 1
        suffix = f"{kind} {Path(name).suffix}" if Path(name).suffix else kind
        way = outcome.id.rsplit("/", 1)[1].split()[0]
        for table, key in (("files", suffix), ("ways", way)):
            tables[table][key] = tables[table].get(key, 0) + 1
    if found:
        for field in ("seconds", "megabytes"):
            most = max(found, key=lambda outcome: getattr(outcome, field))
            tables[f"most_{field}"] = {"of": most.id, field: getattr(most, field)}
    bad = [dataclasses.asdict(o) for o in found if o.what not in GOOD]
    return tables | {"bad": bad}


def main() -> int:
    """Run it; 1 if any outcome is bad."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", type=float, default=1.0, help="share of the cases")
    parser.add_argument("--seed", type=int, default=0, help="which share")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "isrrescnet-fuzz"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fuzz.json"))
    options = parser.parse_args()
    os.environ["ISRRESCNET_CACHE"] = ""
    options.work.mkdir(parents=True, exist_ok=True)
    files = all_files(options.work / "files")
    chosen = cases(files, options.part, options.seed)
    _of("picture")  # imported before forking, once
    found = campaign(chosen, files, options.work, options.workers)
    about = environment("pillow", "tifffile", "safetensors", "torch", "numpy", "jax")
    limits = {"bytes_above_idle": LIMIT, "processor_seconds": SECONDS}
    content = {"environment": about, "seed": options.seed, "limits": limits} | summary(found)
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["outcomes"], indent=1))
    return 1 if content["bad"] or len(found) < len(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
