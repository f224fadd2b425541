"""Implicit against unrolled training of one model, for the same seconds.

    python -m experiments.studies.training [--quick] [--draw]

The model: a soft-focus picture with noise of ten grey levels, a network of 2 625 parameters as
prior, held contractive by spectral normalisation (`priors`), and the image to which the iterations
converge, in about nine. Adam with 3e-3, four patches of 32 x 32 pixels of four photographs, 75
seconds each in turns, two seeds; PSNR on four parts of a fifth photograph, 25.52 dB as observed.
Beside other work, which slowed all alike.

- For the same steps all gradients train alike: after 450 steps 28.39 to 28.52 dB. What decides is
  what a step costs. In 75 seconds there are 486 and 564 steps with Lineax's GMRES, 949 and 979 with
  `Full` and K = 10, 1431 with Neumann(5), 1718 and 2008 Jacobian-free.
- So GMRES is behind, with 28.47 and 28.36 dB; `Full` (28.67, 28.51), Neumann(5) (28.67, 28.50) and
  Jacobian-free (28.51, 28.69) differ by less than their seeds. That Jacobian-free training is no
  worse for a biased gradient, and cheaper, is what Fung et al. report ("JFB: Jacobian-free
  backpropagation for implicit networks", AAAI 2022).
- GMRES takes 43 products with the transposed Jacobian for a gradient, where the iterations forwards
  are seven: its default restart of 20 is its least unit, and it looks at two of them.
- The model trained by `Full` with K = 10 has the same PSNR after 10 iterations and at the fixed
  point: where ten iterations converge, unrolled and implicit training have one aim.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optax

import isrrescnet_jax as isr

from . import blurs, common, priors
from .common import Found

STRENGTH = 0.5  # e of the prior: with the step below, distances shrink by 0.9 at least
STEP = 1.6
NOISE = 10.0
RATE = 3e-3  # of Adam
K, TOLERANCE = 10, 1e-3

WAYS: dict[str, tuple[Any, int]] = {  # and the length of the schedule
    "Full, K = 10": (isr.Full(), K),
    "Implicit(GMRES)": (isr.Implicit(tolerance=TOLERANCE), 1),
    "Implicit(Neumann(5))": (isr.Implicit(isr.Neumann(5), tolerance=TOLERANCE), 1),
    "Jacobian-free": (isr.Implicit(isr.Neumann(0), tolerance=TOLERANCE), 1),
}


def solve(params: Any, y: Any, way: Any, iterations: int) -> isr.Solution:
    """What the model makes of soft-focus pictures with noise."""
    return isr.unroll(
        y,
        blurs.soft_focus(),
        priors.network(params, STRENGTH),
        alpha=jnp.zeros(iterations),
        w=jnp.full(iterations, -jnp.inf),
        sigma=jnp.full(len(y), NOISE),
        step=STEP,
        backward=way,
    )


def observed(truth: Any, rng: np.random.Generator) -> np.ndarray:
    """Blurred, with noise."""
    blurred = np.asarray(blurs.soft_focus().forward(jnp.asarray(truth)))
    return blurred + NOISE * rng.standard_normal(truth.shape).astype(np.float32)


class Pictures:
    """Patches of four photographs to train on, and four parts of a fifth to measure."""

    def __init__(self, side: int):
        whole = {"coffee": 200, "chelsea": 150, "rocket": 210, "camera": 256}
        self.side, self.whole = side, [common.grey(name, n)[0] for name, n in whole.items()]
        corners = ((0, 60), (60, 120), (128, 40), (180, 180))
        self.truth = np.concatenate([common.grey("astronaut", 64, *c) for c in corners])
        self.y = observed(self.truth, np.random.default_rng(99))

    def batch(self, rng: np.random.Generator, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
        """(y, truth) of random patches."""
        parts = []
        for image in (self.whole[i] for i in rng.integers(len(self.whole), size=n)):
            top, left = rng.integers(0, len(image) - self.side + 1, 2)
            parts.append(image[top : top + self.side, left : left + self.side])
        truth = np.stack(parts)
        return observed(truth, rng), truth


class Counting:
    """A solver of one's own: Lineax's GMRES as `Implicit` has it, with its products counted."""

    def __init__(self):
        self.products = 0

    def add(self) -> None:
        """One more."""
        self.products += 1

    def solve(self, matvec: Any, b: Any) -> Any:
        """u with matvec(u) = b."""

        def counted(u):
            jax.debug.callback(self.add)
            return matvec(u)

        solver = lineax.GMRES(rtol=0.0, atol=TOLERANCE / 2, norm=jnp.linalg.norm, max_steps=1000)
        operator = lineax.FunctionLinearOperator(counted, jax.eval_shape(lambda: b))
        return lineax.linear_solve(operator, b, solver, throw=False).value

    def limit(self, first: Any) -> Any:
        """Of the residual."""
        return jnp.full_like(first, TOLERANCE)


class Trainer:
    """One model and one way to train it."""

    def __init__(self, name: str, seed: int, pictures: Pictures):
        self.way, self.length = WAYS[name]
        self.pictures, self.rng = pictures, np.random.default_rng(seed)
        params = priors.init(jax.random.key(seed))
        params["layer2"]["kernel"] *= 0.1  # a small residual to begin with
        self.optimiser = optax.adam(RATE)
        self.state = (params, self.optimiser.init(params))
        self.advance = jax.jit(self._advance).lower(self.state, *pictures.batch(self.rng)).compile()
        self.measure = jax.jit(self._measure)
        self.seconds, self.steps, self.iterations = 0.0, 0, 0
        self.curve: list[Found] = []

    def loss(self, params: Any, y: Any, truth: Any, way: Any) -> tuple[Any, Any]:
        """Squared error, and iterations forwards."""
        solution = solve(params, y, way, self.length)
        return jnp.mean((solution.image - truth) ** 2) / 255, solution.iterations

    def _advance(self, state: Any, y: Any, truth: Any) -> tuple[Any, Any]:
        gradient, n = jax.grad(self.loss, has_aux=True)(state[0], y, truth, self.way)
        updates, inner = self.optimiser.update(gradient, state[1])
        return (optax.apply_updates(state[0], updates), inner), n

    def _measure(self, params: Any, y: Any) -> tuple[Any, Any, Any]:
        end = solve(params, y, isr.Until(1e-4), 1)
        return solve(params, y, isr.Full(), K).image, end.image, end.iterations

    def train(self, seconds: float) -> None:
        """Until so many have been spent in all; what patches take counts for no one."""
        while self.seconds < seconds:
            batch = self.pictures.batch(self.rng)
            begin = time.perf_counter()
            self.state, n = jax.block_until_ready(self.advance(self.state, *batch))
            self.seconds += time.perf_counter() - begin
            self.steps, self.iterations = self.steps + 1, self.iterations + int(n)

    def products(self) -> int:
        """With the transposed Jacobian, of one gradient at the end, for the linear solve."""
        if not isinstance(self.way, isr.Implicit):
            return self.length
        if self.way.solver is not None:
            return self.way.solver.terms
        counting = Counting()
        way, batch = dataclasses.replace(self.way, solver=counting), self.pictures.batch(self.rng)
        gradient = jax.grad(lambda params: self.loss(params, *batch, way)[0])
        jax.block_until_ready(jax.jit(gradient)(self.state[0]))
        jax.effects_barrier()
        return counting.products

    def look(self) -> None:
        """At the validation pictures: PSNR after K iterations, and at the fixed point."""
        pictures = self.pictures
        at_k, end, n = self.measure(self.state[0], pictures.y)
        row = {"seconds": self.seconds, "steps": self.steps, "forward": self.iterations}
        psnr = {"psnr": common.psnr(end, pictures.truth), "at K": common.psnr(at_k, pictures.truth)}
        self.curve.append(row | psnr | {"iterations": int(n)})


def measure(quick: bool) -> Found:
    """All ways in turns, a slice of seconds each, so that other work slows all alike."""
    pictures = Pictures(16 if quick else 32)
    seconds, slices, seeds = (1.0, 1, 1) if quick else (75.0, 15, 2)
    names = ["Full, K = 10", "Jacobian-free"] if quick else [*WAYS]
    found: Found = {"y": common.psnr(pictures.y, pictures.truth), "runs": []}
    for seed in range(seeds):
        trainers = {name: Trainer(name, seed, pictures) for name in names}
        for part in range(slices + 1):
            for name, trainer in trainers.items():
                trainer.train(seconds * part / slices)
                trainer.look()
                last = trainer.curve[-1]
                print(f"{seed} {name:22} {last}", flush=True)
        for name, trainer in trainers.items():
            products = trainer.products()
            run = {"way": name, "seed": seed, "products": products, "curve": trainer.curve}
            found["runs"].append(run)
    return found


STYLES = {
    "Full, K = 10": (common.BLACK, "-", "o"),
    "Implicit(GMRES)": (common.RED, "--", "s"),
    "Implicit(Neumann(5))": (common.ORANGE, "--", "^"),
    "Jacobian-free": (common.GREEN, "-", "v"),
}


def cost(run: Found) -> np.ndarray:
    """Passes through the network and its transpose, since the start, at each look."""
    forward = np.array([row["forward"] for row in run["curve"]])
    steps = np.array([row["steps"] for row in run["curve"]])
    # What goes back through parameters is one more, which Full's products have in them.
    return forward + steps * (run["products"] + (not run["way"].startswith("Full")))


def draw(found: Found, path: Path) -> None:
    """PSNR at the fixed point over seconds, over passes and over steps; lines of a seed each."""
    figure, axes = common.figure(10.5, 3.6, 1, 3, sharey=True)
    for run in found["runs"]:
        color, line, marker = STYLES[run["way"]]
        curve, name = run["curve"], None if run["seed"] else run["way"]
        style = {"color": color, "ls": line, "marker": marker, "ms": 3, "lw": 1, "label": name}
        psnr = [row["psnr"] for row in curve]
        axes[0, 0].plot([row["seconds"] for row in curve], psnr, **style)
        axes[0, 1].plot(cost(run) / 1000, psnr, **style)
        axes[0, 2].plot([row["steps"] for row in curve], psnr, **style)
    best = max(row["psnr"] for run in found["runs"] for row in run["curve"])
    axes[0, 0].set_ylim(best - 1.2, best + 0.1)
    common.label(
        axes[0, 0], "a  the same time", "seconds of training", "PSNR at the fixed point, dB"
    )
    common.label(axes[0, 1], "b  the same work", "thousand passes of the network", "", False)
    common.label(axes[0, 2], "c  the same steps", "steps of Adam", "", False)
    common.save(figure, path)


if __name__ == "__main__":
    common.run("training", measure, draw)
