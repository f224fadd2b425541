"""`--ray` beside the plain command: the same bytes, each once, through kills, and what it costs.

    python -m experiments.ray_proof                      # an hour on two cores
    python -m experiments.ray_proof --images 60 --kills 1 --rounds 0 --out /tmp/ray.json

Small photographs go through the plain command and through `--ray` on this machine, in turns, for
the time: that from a tenth of the results to nine tenths, which leaves out the start. Then once
more through `--ray` with SIGKILLs of workers at random moments and at last of the command, which is
started again. What is compared: the bytes of every result; whether any was computed once more after
its file was there; what is left behind.
"""

import contextlib
import dataclasses
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import tyro
from PIL import Image

from experiments import harness
from isrrescnet_jax import cluster
from isrrescnet_jax.cli.upscale import Enlarging, Ready, Upscale

LOG = "RAY_PROOF_LOG"
PACKAGES = ("ray", "jax", "numpy", "pillow")


@dataclasses.dataclass(frozen=True)
class Proof:
    """How much of it."""

    images: int = 5000
    """Of 16 to 32 pixels a side."""
    kills: int = 10
    """Of workers; one of the command comes after them."""
    rounds: int = 2
    """In which both commands are timed, in turns."""
    timed: int = 1500
    """Images in each of these."""
    scale: int = 2
    """Of the weights that are shipped."""
    seed: int = 0
    """Of images and moments."""
    work: Path = Path(tempfile.gettempdir()) / "isrrescnet-ray-proof"
    """Folder for images and results; should be empty."""
    out: Path = Path(__file__).with_name("ray_proof.json")
    """File for the figures."""


# --- what is computed when ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Logged(Enlarging):
    """With a line for every picture that begins to be computed."""

    def read(self, job: cluster.Job) -> Any:
        return job.name, super().read(job)

    def compute(self, ready: Ready, values: Any) -> Any:
        for name, task in values:
            line = f"{time.time():.6f} {name}\n".encode()
            with open(os.environ[LOG], "ab", 0) as file:  # one write, not mixed with others
                file.write(line)
            yield from super().compute(ready, [task])


@dataclasses.dataclass(frozen=True)
class LoggedUpscale(Upscale):
    def work(self) -> Enlarging:
        work = super().work()
        return Logged(work.options, work.scale)


# --- commands -------------------------------------------------------------------------------------


def prepare(proof: Proof) -> None:
    """Parts of the photograph in `examples`, of sizes that the seed draws."""
    rng, photograph = np.random.default_rng(proof.seed), harness.photograph(512, 512)
    folder = proof.work / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(proof.images):
        (h, w), (top, left) = rng.integers(16, 33, 2), rng.integers(0, 480, 2)
        part = photograph[top : top + h, left : left + w]
        Image.fromarray(part).save(folder / f"{i:05}.png")
    some = proof.work / "some"
    some.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir())[: proof.timed]:
        if not (some / path.name).exists():
            (some / path.name).hardlink_to(path)


def words(proof: Proof, source: str, out: str, *more: str) -> list[str]:
    folder = str(proof.work / source)
    return [folder, "--scale", str(proof.scale), "--out", str(proof.work / out), *more]


def command(proof: Proof, source: str, out: str, *more: str) -> float:
    """Run it, unless that was done; seconds per image, from a tenth of the results to nine."""
    done = lambda: sorted(p.stat().st_mtime for p in (proof.work / out).glob("*.png"))  # noqa: E731
    if len(done()) < len(list((proof.work / source).iterdir())):
        line = [sys.executable, "-m", "isrrescnet_jax", "upscale"]
        line += words(proof, source, out, *more)
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    times = done()
    few, most = (round(part * len(times)) for part in (0.1, 0.9))
    return (times[most] - times[few]) / (most - few)


def workers(pid: int) -> list[psutil.Process]:
    """The processes of Ray that read, compute or write for a command."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Map"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def strike(rng: random.Random, pid: int) -> str:
    """Kill one of them; its name."""
    while True:
        victims = workers(pid)
        if victims:
            victim = rng.choice(victims)
            with contextlib.suppress(psutil.Error):
                name = victim.cmdline()[0].strip()
                victim.kill()
                return name
        time.sleep(0.01)


def start(proof: Proof, log: Path) -> subprocess.Popen:
    line = [sys.executable, "-m", "experiments.ray_proof", "upscale"]
    line += words(proof, "images", "killed", "--ray")
    return subprocess.Popen(line, env=os.environ | {LOG: str(log)}, stdout=subprocess.DEVNULL)


def disturbed(proof: Proof, log: Path) -> dict[str, Any]:
    """Through all kills to the end; what was hit."""
    rng, out = random.Random(proof.seed), proof.work / "killed"
    done = lambda: len(list(out.glob("*.png"))) if out.exists() else 0  # noqa: E731
    # Of the images, from a twentieth to two thirds, and the command at three quarters.
    marks = sorted(rng.uniform(0.05, 0.65) * proof.images for _ in range(proof.kills))
    running, hit, began = start(proof, log), [], time.monotonic()
    for mark in marks:
        while done() < mark and running.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        if running.poll() is not None:
            raise RuntimeError(f"the command ended with {running.returncode}")
        hit.append(strike(rng, running.pid))
    while done() < 0.75 * proof.images and running.poll() is None:
        time.sleep(0.05)
    family = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGKILL)
    running.wait()
    _, alive = psutil.wait_procs(family, timeout=120)
    before = done()
    code = start(proof, log).wait()
    return {
        "killed": hit,
        "results_when_the_command_was_killed": before,
        "left_by_it": [process.name() for process in alive],
        "exit_code": code,
        "seconds": round(time.monotonic() - began),
    }


def compared(proof: Proof, log: Path) -> dict[str, Any]:
    """Every result beside that of the plain command, and how often each was computed."""
    plain, killed = proof.work / "plain", proof.work / "killed"
    names = sorted(path.name for path in plain.glob("*.png"))
    others = sorted(str(p.relative_to(killed)) for p in killed.rglob("*") if p.is_file())
    others = [name for name in others if not name.startswith("_manifest/")]
    different = [n for n in names if (plain / n).read_bytes() != (killed / n).read_bytes()]
    values = [_apart(plain / name, killed / name) for name in different]
    times: dict[str, list[float]] = {}
    for line in log.read_text().splitlines():
        moment, name = line.split()
        times.setdefault(name, []).append(float(moment))
    late = {n: max(moments) - (killed / n).stat().st_mtime for n, moments in times.items()}
    return {
        "images": len(names),
        "complete": names == others,
        "files_that_differ": len(different),
        "values_that_differ": sum(count for count, _ in values),
        "largest_difference": max((most for _, most in values), default=0),
        "computed_more_than_once": sum(len(moments) > 1 for moments in times.values()),
        "computed_after_the_result_was_there": sum(seconds > 0 for seconds in late.values()),
    }


def _apart(a: Path, b: Path) -> tuple[int, int]:
    first, second = (np.asarray(Image.open(path)).astype(int) for path in (a, b))
    return int((first != second).sum()), int(abs(first - second).max())


def timed(proof: Proof) -> dict[str, Any]:
    """Both commands in turns, and what differs between their results."""
    seconds: dict[str, list[float]] = {"plain": [], "ray": []}
    different = 0
    for i in range(proof.rounds):
        for name, *more in ("plain",), ("ray", "--ray"):
            seconds[name].append(command(proof, "some", f"{name}{i}", *more))
        plain, ray = (proof.work / f"{name}{i}" for name in ("plain", "ray"))
        files = [file.name for file in plain.glob("*.png")]
        different += sum((plain / n).read_bytes() != (ray / n).read_bytes() for n in files)
        print(seconds, flush=True)
    return {
        "seconds_per_image": seconds,
        "overhead": round(median(seconds["ray"]) / median(seconds["plain"]) - 1, 4),
        "files_that_differ_undisturbed": different,
    }


def main(proof: Proof) -> int:
    """Run it; 1 if a result is not what it should be."""
    # Which is 15 by default: then all else on the machine would slow one command and not the other.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    prepare(proof)
    command(proof, "images", "plain")
    log = proof.work / "computed.log"
    found = disturbed(proof, log) | compared(proof, log)
    write = functools.partial(harness.write_json, proof.out)
    write([found], *PACKAGES)
    if proof.rounds:
        found |= timed(proof)
        write([found], *PACKAGES)
    print(found)
    good = found["complete"] and not found["exit_code"] and not found["files_that_differ"]
    return 0 if good and not found["computed_after_the_result_was_there"] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["upscale"]:
        from experiments.ray_proof import LoggedUpscale as Command  # as other processes know it

        sys.exit(tyro.cli(Command, args=sys.argv[2:]).run())
    sys.exit(main(tyro.cli(Proof, description=__doc__)))
