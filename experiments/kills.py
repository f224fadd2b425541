"""A hundred kills: training runs that are killed at random moments end as if nothing had been.

    python -m experiments.kills                  # half an hour; goes on if stopped
    python -m experiments.kills --runs keep --kills 3 --steps 60 --out /tmp/kills.json

Every run is made twice with the same command: undisturbed, and with SIGKILL at moments that the
seed draws, after each of which it is started again. A kill comes somewhere in training, while a
checkpoint is written, while those before it are removed, while a line of metrics is written, or
before the first step. In a run of two processes, or with a parent that starts it anew, all are
killed, all of one "host", a worker alone or a parent alone. What is compared at the end: the bytes
of the weights, every array of every checkpoint that is kept, which these are, and every line of
metrics; speeds aside. What is looked for: anything unfinished in the workdir or the folder for
temporary files.
"""

import dataclasses
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from . import harness
from .kills_compare import differences, unfinished
from .kills_trained import Run, Trained, saved, temporary

RECIPE = """
import dataclasses
from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

config = TrainConfig(
    model=ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2),
    data=DataConfig(scale=2, patch=16, batch=4, repeats=8),
    steps={steps},
    log_every=1,
    validate_every=100_000,
    checkpoint_every=10,
    keep=2,
)
model, data = config.model, config.data
config = dataclasses.replace(config, {changes})
"""
MOMENTS = ("step", "step", "step", "checkpoint", "checkpoint", "checkpoint", "removal", "lines")

RUNS = {
    "plain": Run(),
    "keep": Run("checkpoint_every=5, keep=1, seed=1"),
    "often": Run("checkpoint_every=2, keep=3, seed=2, optimizer='amsgrad'"),
    "lines": Run("checkpoint_every=20, log_every=3, seed=3, optimizer='adamw'"),
    "validated": Run("checkpoint_every=10, validate_every=25, seed=4", validated=True),
    "curricula": Run(
        "checkpoint_every=15, seed=5, backward='random', curriculum=((0, 1), (100, 2)), "
        "patch_curriculum=((150, 24),), scales=(2, 3), data=dataclasses.replace(data, patch=12)",
        cold=True,
    ),
    "data workers": Run(
        "seed=10, data=dataclasses.replace(data, workers=1)",
        whom=("parent",),  # of the worker that reads images, which must end with it
    ),
    "retried": Run("seed=6", retries=20, whom=("all", "worker", "worker", "parent")),
    "two": Run("seed=7", processes=2),
    "two, one lost": Run(
        "checkpoint_every=5, seed=8", processes=2, whom=("all", "host", "worker", "parent")
    ),
    "two, retried": Run(
        "checkpoint_every=20, seed=9, keep=1", processes=2, retries=20, whom=("all", "worker")
    ),
}


@dataclasses.dataclass(frozen=True)
class Campaign:
    """What is killed."""

    runs: tuple[str, ...] = tuple(RUNS)
    """By name."""
    kills: int = 10
    """In each run."""
    steps: int = 300
    """Of each run; those of two processes make half as many."""
    seed: int = 0
    """Of the moments."""
    work: Path = Path(tempfile.gettempdir()) / "isrrescnet-kills"
    """Folder for the runs. Those that are done are not repeated."""
    out: Path = Path(__file__).with_name("kills.json")
    """File for the figures, written after every run."""


# --- what there is to train -----------------------------------------------------------------------


def prepare(work: Path) -> None:
    """Small images, smooth with a little noise."""
    rng = np.random.default_rng(0)
    for folder, count in (("images", 5), ("validation", 2), ("temporary", 0)):
        (work / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rows, columns = np.mgrid[:48, :40][..., None] * rng.uniform(0.1, 1, (2, 1, 1, 3))
            values = 127 + 100 * np.sin(rows + columns) + rng.normal(0, 5, (48, 40, 3))
            pixels = np.clip(values, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(work / folder / f"{i}.png")


# --- one run --------------------------------------------------------------------------------------


def strike(rng: random.Random, trained: Trained, left: int, steps: int, start: float | None) -> Any:
    """Wait for a moment and kill; what was hit, or None if the run was over before.

    Args:
        left: kills to come, with this one.
        start: seconds that a start takes, if they are known.
    """
    run, workdir = trained.run, trained.workdir
    aim, whom, which = rng.choice(MOMENTS), rng.choice(run.whom), rng.randrange(run.processes)
    done = saved(workdir)
    if start and (done == steps or rng.random() < 0.15):
        aim = "start"
    stale = temporary(workdir)
    fresh = lambda: temporary(workdir).items() - stale.items()  # noqa: E731
    first, hit = None, None
    if aim == "start":
        if run.processes > 1:  # the others would wait for one that never comes
            whom = "all"
        until = trained.began + rng.uniform(0, start or 0)
        alive = trained.wait(lambda: time.monotonic() > until)
    else:
        # Spread over the steps that are left, whatever was done twice.
        target = done + 1 + int(rng.uniform(0, 1.8 * (steps - done) / (left + 1)))
        alive = trained.wait(trained.step, 0.01)
        first = time.monotonic() - trained.began
        alive = alive and trained.wait(lambda: trained.step() >= min(target, steps - 1), 0.01)
        hit = trained.victims(whom, which)  # looked up before, as some moments are short
        if aim == "checkpoint":
            alive = alive and trained.wait(lambda: _has(workdir / "checkpoints", "tmp"))
            time.sleep(rng.choice((0, rng.uniform(0, 0.05), rng.uniform(0, 0.15))))
        elif aim == "removal":  # of old ones, when the new one has its name
            alive = alive and trained.wait(lambda: _has(workdir / "checkpoints", "tmp"))
            alive = alive and trained.wait(lambda: not _has(workdir / "checkpoints", "tmp"))
            time.sleep(rng.uniform(0, 0.02))
        elif aim == "lines":
            alive = alive and trained.wait((workdir / ".metrics.jsonl").exists, 0)
        else:
            time.sleep(rng.uniform(0, 0.3))
    if not alive or trained.ended():
        return None
    whom, pids = hit or trained.victims(whom, which)
    trained.kill(pids)
    step, last = trained.step(), saved(workdir)
    trained.anew()
    kill = {"aim": aim, "whom": whom, "training": step > 0, "step": step, "checkpoint": last}
    return kill | {"unfinished": sorted(name for name, _ in fresh()), "start": first}


def _has(folder: Path, text: str) -> bool:
    try:
        return any(text in name for name in os.listdir(folder))
    except OSError:
        return False


def disturbed(campaign: Campaign, name: str, workdir: Path, steps: int) -> dict[str, Any]:
    """Train, with all its kills, to the end; what happened."""
    run, rng = RUNS[name], random.Random(f"{campaign.seed} {name}")
    kills, starts, start, lost = [], 1, None, 0
    trained = Trained(run, campaign.work, name, workdir)
    while True:
        found = None
        if len(kills) < campaign.kills:
            found = strike(rng, trained, campaign.kills - len(kills), steps, start)
        if found:
            start = found.pop("start") or start
            kills.append(found)
            if found["whom"] == "worker" and run.retries:  # its parent starts it again
                trained.began = time.monotonic() + 11
            else:
                found["codes"] = trained.last_end()
                found["checkpoint"] = saved(workdir)  # a worker without its parent may save
            print(f"  {len(kills)}: {found}", flush=True)
        else:
            codes = trained.finish()
            if set(codes) == {3}:  # a process counted as lost on a machine that is busy
                lost += 1
            elif set(codes) != {0}:
                raise RuntimeError(f"{name}: exit codes {codes}\n{trained.said()}")
            elif len(kills) >= campaign.kills:
                break
            if lost > 10:
                raise RuntimeError(f"{name}: lost again and again\n{trained.said()}")
        if trained.ended():
            trained = Trained(run, campaign.work, name, workdir)
            starts += 1
    return {"starts": starts, "lost": lost, "each": kills}


def both(campaign: Campaign, name: str) -> dict[str, Any]:
    """The run undisturbed and with kills, compared."""
    run, folder = RUNS[name], campaign.work / name
    steps = campaign.steps if run.processes == 1 else campaign.steps // 2
    text = RECIPE.format(steps=steps, changes=run.changes)
    (campaign.work / f"{name}.py").write_text(text)
    began = time.monotonic()
    reference = Trained(dataclasses.replace(run, cold=False), campaign.work, name, folder / "whole")
    if set(reference.finish()) != {0}:
        raise RuntimeError(f"{name}: {reference.said()}")
    seconds = time.monotonic() - began
    before = set((campaign.work / "temporary").iterdir())
    found = disturbed(campaign, name, folder / "killed", steps)
    different = differences(folder / "whole", folder / "killed")
    left = [str(path.relative_to(folder / "killed")) for path in unfinished(folder / "killed")]
    left += [path.name for path in (folder / "killed").glob("lock-*.json")]
    left += [path.name for path in {*(campaign.work / "temporary").iterdir()} - before]
    return {
        "name": name,
        "run": dataclasses.asdict(run),
        "steps": steps,
        "identical": not different,
        "differences": different,
        "left behind": sorted(left),
        "seconds": [round(seconds), round(time.monotonic() - began - seconds)],
        **found,
    }


def counted(row: dict[str, Any]) -> dict[str, Any]:
    """A run with counts of its kills, instead of each."""
    kills, found = row["each"], {k: v for k, v in row.items() if k != "each"}
    inside = [" ".join(kill["unfinished"]) for kill in kills]
    return found | {
        "kills": len(kills),
        "before the first step": sum(not kill["training"] for kill in kills),
        "inside a checkpoint": sum("checkpoint-tmp" in names for names in inside),
        "inside the metrics": sum(".metrics" in names for names in inside),
        "steps again": sum(max(0, kill["step"] - kill["checkpoint"]) for kill in kills),
    }


def main(campaign: Campaign) -> int:
    """Run it; 1 if anything differs."""
    campaign.work.mkdir(parents=True, exist_ok=True)
    prepare(campaign.work)
    rows = []
    for name in campaign.runs:
        known = campaign.work / f"{name}.json"
        if not known.exists():
            print(f"{name}: {RUNS[name]}", flush=True)
            known.write_text(json.dumps(both(campaign, name)))
        row = json.loads(known.read_text())
        rows.append(counted(row) | {"each": row["each"]})
        print({k: v for k, v in counted(row).items() if k != "run"}, flush=True)
        harness.write_json(campaign.out, rows, "jax", "orbax-checkpoint", "numpy")
    total = sum(row["kills"] for row in rows)
    print(f"{total} kills, {sum(row['identical'] for row in rows)} of {len(rows)} runs identical")
    return 0 if all(row["identical"] and not row["left behind"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Campaign, description=__doc__)))
