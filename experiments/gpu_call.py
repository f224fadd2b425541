"""Three minutes of a GPU: parity, speed beside PyTorch, and a profile, each printed as it ends.

    python -m experiments.gpu_call --out results/ [--seconds 180]
    JAX_PLATFORMS=cpu python -m experiments.gpu_call --out /tmp/r --small    # a rehearsal anywhere

The parts are in the order of their worth; each is a process of its own that ends when its time is
over, and the next begins while there is time. Those that are left out are named. Speed is compared
by `experiments.benchmark`, in turns; the last part says which share of the bound of
`experiments/gpu_plan.json` is reached.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro

from . import harness

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
PLAN = Path(__file__).with_name("gpu_plan.json")
WITHIN = 0.01  # grey levels from the original's numbers, with precision "highest"

_PEERS = ("torch/channels_last/bfloat16", "torch/compile/bfloat16", "torch/eager/tf32")
_OURS = tuple(f"ours/default/{dtype}" for dtype in ("bfloat16", "tf32", "float32"))


@dataclasses.dataclass(frozen=True)
class Part:
    """A command, what it is for, and the seconds that it may take at most."""

    name: str
    words: tuple[str, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Call:
    """What is run."""

    out: Path
    """Folder for the numbers and the profile."""
    seconds: float = 180
    """For all parts together."""
    small: bool = False
    """Small sizes, fewer variants, and no limits for single parts."""
    only: str | None = None
    """Run this part here, and nothing else: parity, profile or share."""


def parts(call: Call) -> list[Part]:
    """In the order of their worth."""
    sizes, batch, patch = ((16, 20), 2, 48) if call.small else ((256, 512), 10, 120)
    variants = (_OURS[0], _PEERS[0]) if call.small else (*_OURS[:1], *_PEERS)
    here = ("experiments.gpu_call", "--out", str(call.out), *(["--small"] * call.small))

    def speed(name: str, task: str, size: int, iterations: int, *more: str) -> Part:
        file = str(call.out / f"{name}.json")
        words = ("experiments.benchmark", task, "--sizes", str(size), "--json", file)
        words += ("--iterations", str(iterations), "--rounds", "3", *more)
        return Part(name, (*words, "--variants", *variants), 60)

    rest = ("--variants", *_OURS[1:]) if not call.small else ()
    found = [
        Part("parity", (*here, "--only", "parity"), 40),
        speed("inference_k1", "inference", sizes[0], 1),
        speed("training_k1", "training", patch, 1, "--batch", str(batch)),
        Part("profile", (*here, "--only", "profile"), 40),
        speed("inference_k10", "inference", sizes[0], 10),
        speed("inference_large", "inference", sizes[1], 1),
        speed("training_k10", "training", patch, 10, "--batch", str(batch)),
        speed("inference_large_k10", "inference", sizes[1], 10),
    ]
    if rest:
        words = ("experiments.benchmark", "inference", "--sizes", str(sizes[0]))
        words += ("--iterations", "1", "--rounds", "3", "--json", str(call.out / "float32.json"))
        found.insert(5, Part("float32", (*words, *rest), 60))
    return [dataclasses.replace(p, seconds=call.seconds) for p in found] if call.small else found


def run(all_parts: Sequence[Part], seconds: float) -> dict[str, str]:
    """What became of each part: "done", "failed", "over time" or "no time"."""
    end, found = time.monotonic() + seconds, {}
    for part in all_parts:
        left = end - time.monotonic()
        if left < 5:
            found[part.name] = "no time"
            continue
        print(f"\n== {part.name}: {seconds - left:.0f} s of {seconds:.0f} are over", flush=True)
        command = [sys.executable, "-m", *part.words]
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        try:
            code = process.wait(timeout=min(left, part.seconds))
            found[part.name] = "failed" if code else "done"
        except subprocess.TimeoutExpired:
            found[part.name] = "over time"
        finally:
            with contextlib.suppress(ProcessLookupError):  # its own processes have the device, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return found


def parity() -> None:
    """The iterates of the original, computed on this device.

    Raises:
        AssertionError: they are farther off than `WITHIN`.
    """
    import jax
    import torch

    import isrrescnet_jax as isr
    from convert import from_torch

    state = torch.load(GOLDEN / "depth5_k10.pth", weights_only=True)
    numbers = np.load(GOLDEN / "x4_bicubic_k10.npz")
    weights = from_torch(state, feedback_steps=4)
    operator = isr.Bicubic(4, reference=True)
    lr = np.moveaxis(numbers["lr"], -3, -1)
    solution = jax.jit(lambda w, y: isr.reconstruct(w, y, operator=operator, trace=True))(
        weights, lr
    )
    assert solution.iterates is not None
    expected = np.moveaxis(numbers["iterates"], -3, -1)
    worst = float(np.abs(np.asarray(solution.iterates) - expected).max())
    print(f"{jax.devices()[0].device_kind}: iterates within {worst:.2g} grey levels", flush=True)
    assert worst <= WITHIN, f"more than {WITHIN}"


def profile(call: Call) -> None:
    """Trace three training steps, and say which share of the bound the fastest reaches."""
    import jax

    from .benchmark import Benchmark, our_training

    patch, batch = (48, 2) if call.small else (120, 10)
    benchmark = Benchmark("training", batch=batch)
    step, _ = our_training(benchmark, patch, 1, "default", "bfloat16")
    step()
    times = []
    with jax.profiler.trace(str(call.out / "profile"), create_perfetto_trace=True):
        for _ in range(3):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    speed = batch * patch**2 / min(times) / 1e6
    print(f"training, K = 1, bfloat16: {speed:.2f} Mpixel/s", flush=True)
    for card, share in shares(speed, json.loads(PLAN.read_text())["rows"]).items():
        print(f"{share:.1%} of what the plan allows on an {card}", flush=True)


def shares(speed: float, rows: list[dict]) -> dict[str, float]:
    """Of the bound of the training step with K = 1 in bfloat16, by card; speed in Mpixel/s."""
    wanted = {"task": "training", "iterations": 1, "dtype": "bfloat16"}
    row = next(row for row in rows if all(row[k] == v for k, v in wanted.items()))
    name = "megapixels_per_second_"
    return {key.removeprefix(name): speed / row[key] for key in row if key.startswith(name)}


def main(call: Call) -> None:
    """All parts, or the one that is named."""
    call.out.mkdir(parents=True, exist_ok=True)
    if call.only == "parity":
        parity()
    elif call.only == "profile":
        profile(call)
    else:
        print(harness.environment("jax"), flush=True)
        found = run(parts(call), call.seconds)
        print(f"\n{found}", flush=True)
        (call.out / "parts.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Call, description=__doc__))
