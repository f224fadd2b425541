"""Which physics and which optimiser: many small trainings on the same pixels.

    python -m experiments.study --data train/ --validation kodak/ [--only exact_muon_5e-3 ...]
    python -m experiments.study --figure experiments/study.png

A cell is one short training from fresh weights (those called `full` start from given weights). All
cells of a seed see the same patches in the same order and are measured on the same crops, the
middle 192 pixels of every second validation image: PSNR on Y, rounded, without a border as wide as
the scale. Each finished cell is added to the JSON at once, so an interrupted study goes on where it
was; a cell whose settings have changed is run again.
"""

import dataclasses
import datetime
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from optax import contrib

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.dihedral import turn as dihedral
from isrrescnet_jax.evaluation import metrics
from isrrescnet_jax.evaluation.degrade import degrade, modcrop
from isrrescnet_jax.files import atomic_path
from isrrescnet_jax.train import muon

from . import harness

CROP = 192  # side of the validation crops
PATCH = 64  # side of the patches, or the next multiple of the scale


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        physics, scale: of the model; `step` is its step length, in units of 1.
        optimizer: adam, muon, prodigy or schedule_free.
        learning_rate: its peak; warm-up over 20 steps (prodigy: none), then a cosine to zero
            (schedule_free: none).
        iterations: K; the loss of K = 3 is on all iterates, with weights 0.1, 0.55 and 1.
        feedback_steps: of the network; K = 3 with 1 has the products of K = 1 with 3.
        curriculum: pairs (step, feedback steps).
        mixed: scales of the batches in turn, if not `scale` alone.
        border: of the operator; the patches come from within an image, whatever its border.
        steps: optimiser steps.
        seed: of weights and patches.
        features, depth, batch: of the network and of the batches.
        full: the weights of `Study.start` with K = 1, alpha out of the way, instead of a small
            fresh network.
    """

    physics: str = "exact"
    optimizer: str = "muon"
    learning_rate: float = 5e-3
    scale: int = 4
    step: float = 1.0
    iterations: int = 1
    feedback_steps: int = 2
    curriculum: tuple[tuple[int, int], ...] = ()
    mixed: tuple[int, ...] = ()
    border: Literal["symmetric", "replicate"] = "symmetric"
    steps: int = 200
    seed: int = 0
    features: int = 32
    depth: int = 3
    batch: int = 8
    full: bool = False


def cells() -> dict[str, Cell]:
    """All trainings, those that decide most first."""
    new = dataclasses.replace
    muon = Cell()
    best = new(muon, learning_rate=1e-2)
    adam = new(muon, optimizer="adam", learning_rate=1e-3)
    full = Cell(full=True, learning_rate=2e-3, steps=80, features=64, depth=5, feedback_steps=4)
    full = new(full, batch=4)
    full_adam = new(full, optimizer="adam", learning_rate=5e-4)
    named = {
        "exact_muon_5e-3": muon,
        "exact_adam_1e-3": adam,
        "reference_adam_1e-3": new(adam, physics="reference"),
        "reference_muon_5e-3": new(muon, physics="reference"),
        "exact_adam_3e-3": new(adam, learning_rate=3e-3),
        "exact_muon_1e-2": best,
        "exact_muon_2e-2": new(muon, learning_rate=2e-2),
        "exact_step16_muon_1e-2": new(best, step=16.0),
        "full_exact_muon_2e-3": full,
        "full_reference_adam_5e-4": new(full_adam, physics="reference"),
        "full_exact_adam_5e-4": full_adam,
        "mixed_muon_1e-2_x4": new(best, mixed=(2, 3, 4)),
        "exact_muon_1e-2_x3": new(best, scale=3),
        "mixed_muon_1e-2_x3": new(best, scale=3, mixed=(2, 3, 4)),
        "exact_muon_1e-2_feedback3": new(best, feedback_steps=3),
        "exact_muon_1e-2_K3": new(best, iterations=3, feedback_steps=1),
        "exact_muon_1e-2_curriculum": new(
            best, feedback_steps=3, curriculum=((0, 1), (70, 2), (140, 3))
        ),
        "exact_prodigy": new(muon, optimizer="prodigy", learning_rate=1.0),
        "exact_schedule_free_1e-3": new(muon, optimizer="schedule_free", learning_rate=1e-3),
        "exact_adam_2e-3": new(adam, learning_rate=2e-3),
        "exact_muon_1e-2_seed1": new(best, seed=1),
        "exact_muon_1e-2_K3_seed1": new(best, iterations=3, feedback_steps=1, seed=1),
        "exact_muon_5e-3_seed1": new(muon, seed=1),
        "exact_muon_2e-2_seed1": new(muon, learning_rate=2e-2, seed=1),
        "exact_step16_adam_1e-3": new(adam, step=16.0),
        "exact_step16_muon_1e-2_seed1": new(best, step=16.0, seed=1),
        "reference_adam_2e-3": new(adam, physics="reference", learning_rate=2e-3),
        "reference_muon_1e-2": new(best, physics="reference"),
        "exact_schedule_free_3e-3": new(muon, optimizer="schedule_free", learning_rate=3e-3),
        "replicate_muon_1e-2": new(best, border="replicate"),
        "exact_adam_6e-3": new(adam, learning_rate=6e-3),
        "full_exact_muon_5e-3": new(full, learning_rate=5e-3),
        "exact_muon_2e-3": new(muon, learning_rate=2e-3),
        "mixed_muon_1e-2_x4_600": new(best, mixed=(2, 3, 4), steps=600),
        "mixed_muon_1e-2_x3_600": new(best, scale=3, mixed=(2, 3, 4), steps=600),
        "full_exact_muon_2e-3_300": new(full, steps=300),
        "full_exact_adam_5e-4_300": new(full_adam, steps=300),
        "full_exact_muon_5e-3_300": new(full, learning_rate=5e-3, steps=300),
    }
    return named


# --- pixels ---------------------------------------------------------------------------------------


class Pixels:
    """Pairs of images and random patches of them; the middle of every second validation image."""

    def __init__(self, data: Path, validation: Path):
        files = sorted(p for p in data.rglob("*") if p.suffix.lower() in images.FORMATS)
        self.hr = [a for a in map(images.read_rgb, files) if min(a.shape[:2]) >= 80]
        self._lr: dict[int, list[np.ndarray]] = {}
        self.crops = []
        for path in images.find([validation])[::2]:
            a = images.read_rgb(path)
            top, left = (side // 2 - CROP // 2 for side in a.shape[:2])
            self.crops.append(a[top : top + CROP, left : left + CROP])

    def lr(self, scale: int) -> list[np.ndarray]:
        """Low-resolution images."""
        if scale not in self._lr:
            self._lr[scale] = [degrade(modcrop(a, scale), scale) for a in self.hr]
        return self._lr[scale]

    def batch(self, rng: np.random.Generator, n: int, scale: int) -> dict[str, np.ndarray]:
        """n patches, from an image with a probability in proportion to its size."""
        low, size = self.lr(scale), -(-PATCH // scale)
        areas = np.array([a.shape[0] * a.shape[1] for a in self.hr], float)
        pairs = []
        for i in rng.choice(len(low), n, p=areas / areas.sum()):
            y, x = (int(rng.random() * (side - size + 1)) for side in low[i].shape[:2])
            variant, high = int(rng.integers(8)), size * scale
            hr = self.hr[i][y * scale :, x * scale :][:high, :high]
            pairs.append([dihedral(a, variant) for a in (low[i][y : y + size, x : x + size], hr)])
        lr, hr = (np.stack(side).astype(np.float32) for side in zip(*pairs, strict=True))
        return {"lr": lr, "hr": hr}


# --- one cell -------------------------------------------------------------------------------------


def optimizer(cell: Cell) -> optax.GradientTransformation:
    """Clipping, then the optimiser."""
    peak = cell.learning_rate
    rate = optax.warmup_cosine_decay_schedule(0, peak, 20, cell.steps)

    made = {
        "adam": lambda: optax.adam(rate, 0.9, 0.99),
        "muon": lambda: muon(rate),
        # It warms up by itself, and divides 0 by 0 at a rate of 0.
        "prodigy": lambda: contrib.prodigy(optax.cosine_decay_schedule(peak, cell.steps)),
        "schedule_free": lambda: contrib.schedule_free_adamw(peak, warmup_steps=20),
    }[cell.optimizer]()
    return optax.chain(optax.clip_by_global_norm(20.0), made)


def start(cell: Cell, given: str | Path) -> isr.Weights:
    """Fresh weights with a small residual, or the given ones; the projection does nothing."""
    shape = {"features": cell.features, "depth": cell.depth, "feedback_steps": cell.feedback_steps}
    physics = {"physics": cell.physics, "step": cell.step}
    config = isr.ModelConfig(iterations=cell.iterations, scale=cell.scale, **shape, **physics)
    if cell.full:
        params = dict(isr.load_weights(given).params)
    else:
        params = dict(isr.init_weights(config, jax.random.key(cell.seed)).params)
        decoder = params["network"]["decoder"]
        small = decoder | {"g": decoder["g"] * 0.05}
        params["network"] = params["network"] | {"decoder": small}
    params["alpha"] = jnp.full(cell.iterations, 20.0)
    params["w"] = jnp.full(cell.iterations, -2.0)
    return isr.Weights(jax.tree.map(jnp.asarray, params), config)


def train(cell: Cell, pixels: Pixels, every: int, given: str | Path = "x4") -> dict:
    """Run a cell; its curve of (step, PSNR) and the seconds it took."""
    weights, tx = start(cell, given), optimizer(cell)
    fixed = {k: weights.params[k] for k in ("alpha", "w")}
    weigh = jnp.linspace(0.1, 1.0, cell.iterations) if cell.iterations > 1 else jnp.ones(1)

    def solve(network, lr, feedback, scale):
        config = dataclasses.replace(weights.config, feedback_steps=feedback, scale=scale)
        if cell.step != 1:  # as many times 1 / |D^T D| at every scale
            config = dataclasses.replace(config, step=cell.step * scale**2 / cell.scale**2)
        operator = isr.Bicubic(scale, border=cell.border)
        model = isr.Weights({"network": network} | fixed, config)
        return isr.reconstruct(model, lr, operator=operator, trace=True, precision=None)

    def step(feedback, scale, network, opt_state, ema, batch, i):
        def loss(network):
            error = jnp.abs(solve(network, batch["lr"], feedback, scale).iterates - batch["hr"])
            return jnp.sum(weigh / weigh.sum() * error.mean((1, 2, 3, 4)))

        gradient = jax.grad(loss)(network)
        updates, opt_state = tx.update(gradient, opt_state, network)
        network = optax.apply_updates(network, updates)
        decay = jnp.minimum(0.98, (1 + i) / (10 + i))
        return network, opt_state, optax.incremental_update(network, ema, 1 - decay)

    step = jax.jit(step, static_argnums=(0, 1), donate_argnums=(2, 3))

    @jax.jit
    def upscale(network, lr):
        def one(y):
            return solve(network, y[None], cell.feedback_steps, cell.scale).image[0]

        return jax.lax.map(one, lr)

    low = np.stack([degrade(a, cell.scale) for a in pixels.crops]).astype(np.float32)

    def measure(network):
        found = images.to_uint8(np.asarray(upscale(network, low)))
        pairs = zip(found, pixels.crops, strict=True)
        values = [metrics.luma_psnr(a, b, cell.scale) for a, b in pairs]
        if not np.isfinite(np.mean(values)):
            raise FloatingPointError("no number any more")
        return float(np.mean(values))

    def copy(tree):  # no buffer twice and none weakly typed, or the step is compiled again
        return jax.tree.map(lambda a: jnp.array(a, a.dtype), tree)

    network = copy(weights.params["network"])
    ema, opt_state = copy(network), copy(tx.init(network))
    rng, begun = np.random.default_rng(cell.seed), time.perf_counter()
    scales, curve = cell.mixed or (cell.scale,), [(0, measure(network))]
    for i in range(cell.steps):
        feedback = cell.feedback_steps
        for first, value in cell.curriculum:
            feedback = value if i >= first else feedback
        scale = scales[i % len(scales)]
        batch = pixels.batch(rng, cell.batch, scale)
        network, opt_state, ema = step(feedback, scale, network, opt_state, ema, batch, i)
        if (i + 1) % every == 0 or i + 1 == cell.steps:
            final = ema
            if cell.optimizer == "schedule_free":
                final = contrib.schedule_free_eval_params(opt_state[1], network)
            curve.append((i + 1, measure(final)))
            print(f"    {i + 1:5d}  {curve[-1][1]:.3f} dB", flush=True)
    return {"curve": curve, "psnr": curve[-1][1], "seconds": time.perf_counter() - begun}


# --- the study ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Study:
    """Run what is missing, or draw what is there.

    Attributes:
        data, validation: folders of images.
        only: names of cells; all by default.
        every: steps between two points of a curve.
        start: name or file of the weights that the cells called `full` start from; the committed
            results started from the x4 of version 0.1, on reference physics.
        out: the JSON.
        figure: draw this figure of the JSON, and run nothing.
    """

    data: Path = Path("train")
    validation: Path = Path("kodak")
    only: tuple[str, ...] = ()
    every: int = 50
    start: str = "x4"
    out: Path = Path(__file__).with_suffix(".json")
    figure: Path | None = None


def plain(cell: Cell) -> dict:
    """As it is in JSON."""
    return json.loads(json.dumps(dataclasses.asdict(cell)))


def missing(study: Study, found: dict) -> dict[str, Cell]:
    """The cells that are not in the JSON as they are defined now."""
    return {
        name: cell
        for name, cell in cells().items()
        if (not study.only or name in study.only) and found.get(name, {}).get("cell") != plain(cell)
    }


def draw(results: dict, path: Path) -> None:
    """Final PSNR of every cell, those of one scale and start together."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups: dict[str, list[tuple[str, float]]] = {}
    for name, result in results.items():
        kind = "full network" if result["cell"]["full"] else "small network"
        title = f"{kind}, x{result['cell']['scale']}"
        groups.setdefault(title, []).append((name, result["psnr"]))
    heights = [len(rows) for rows in groups.values()]
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(8, 1.2 + 0.27 * sum(heights)), height_ratios=heights, squeeze=False
    )
    for axis, (title, rows) in zip(axes[:, 0], groups.items(), strict=True):
        rows.sort(key=lambda row: row[1])
        names, values = zip(*rows, strict=True)
        axis.plot(values, range(len(rows)), "o", color="tab:blue")
        for y, value in enumerate(values):
            axis.annotate(f"{value:.2f}", (value, y), (6, -3), textcoords="offset points", size=8)
        axis.set_yticks(range(len(rows)), names, size=8)
        axis.set_title(title, size=10, loc="left")
        axis.grid(axis="x", alpha=0.3)
        axis.margins(x=0.12, y=0.1 if len(rows) > 2 else 0.5)
    axes[-1, 0].set_xlabel("PSNR on Y, dB")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(study: Study) -> None:
    """Run the cells that are missing, one after the other."""
    results = json.loads(study.out.read_text()) if study.out.exists() else {}
    if study.figure is not None:
        draw(results, study.figure)
        return
    if unknown := set(study.only) - set(cells()):
        raise SystemExit(f"no such cell: {', '.join(sorted(unknown))}")
    pixels = Pixels(study.data, study.validation)
    for name, cell in missing(study, results).items():
        print(name, flush=True)
        try:
            result = train(cell, pixels, study.every, study.start)
        except FloatingPointError as error:  # the others go on
            print(f"    {error}", flush=True)
            continue
        machine = f"{harness.processor()}, {os.cpu_count()} cores"
        made = {"machine": machine, "jax": version("jax"), "optax": version("optax")}
        made["date"] = str(datetime.date.today())
        # Read again: another process may have added cells.
        results = json.loads(study.out.read_text()) if study.out.exists() else {}
        results[name] = {"cell": plain(cell)} | result | made
        with atomic_path(study.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Study))
