"""Step length and acceleration: how many iterations a deblurring takes.

    python -m experiments.studies.steps [--quick] [--draw]

A blurred photograph and a quadratic term of weight 0.01, so that L = 1.01, mu = 0.01 and
L / mu = 101; and the same with smoothed total variation as prior, which is not linear. Counted are
iterations until one more at step 1 / L would change 1e-5 of what it would at the start.

- Step length. Rates are those of the theory, max |1 - s l| over the eigenvalues l: 0.98039 at the
  step 2 / (L + mu), which is the best there is in the worst case. (Polyak, "Introduction to
  optimization", 1987, section 1.4.) A picture is no worst case. Its mean is of the largest
  eigenvalue, which that step hardly damps, and most of what is slow is small: 457 iterations, and
  289 at 0.95 of 2 / L, of 551 at half of it. Beyond 2 / L it diverges. Relaxed(theta) at step s is
  the step theta s.
- Momentum (1 - q) / (1 + q) with q^2 = mu / L is the best of the theory, and of those measured: 75
  iterations at step 1 / L, of 551 without. (Nesterov, "Introductory lectures on convex
  optimization", 2004, section 2.2.) Too much costs as well, 380 at 0.98.
- Anderson: 169 with a memory of 2, 87 with 5, 56 with 10, without a parameter to be known; that is
  as many as Chebyshev's polynomials need in the worst case, 61. (Walker & Ni, SIAM J. Numer. Anal.
  49(4), 2011, of the equivalence with GMRES.) With total variation: 462, and 161, 72, 48.

With a prior that is not multiplied by the step, as `isr.unroll` has it, fixed points depend on the
step: there it is a part of the model, and so not varied here.
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import isrrescnet_jax as isr

from . import blurs, common, priors
from .common import Found

TARGET = 1e-5  # of what one plain iteration would change, beside the same at the start
WEIGHT = 0.01  # of the quadratic term


def changed(iteration: isr.Iteration, x: Array) -> Array:
    """How much one plain iteration would change x."""
    step = iteration.as_map(jnp.zeros(()), jnp.full((), -jnp.inf))
    return jnp.linalg.norm(step((x, x))[0] - x)


class Problem:
    """A blurred photograph, with or without a prior that is not linear."""

    def __init__(self, side: int, tv: float):
        truth = jnp.asarray(common.grey("astronaut", side, 30, 90), float)
        blur = isr.Convolution(jnp.asarray(blurs.gaussian(1.5, 9)))
        noise = jax.random.normal(jax.random.key(0), truth.shape, truth.dtype)
        self.blurred = blur.forward(truth) + noise
        self.operator = blurs.Regularised(blur, jnp.asarray(WEIGHT))
        self.y = self.operator.observation(self.blurred, 128.0)
        self.prior = jax.tree_util.Partial(priors.edges, jnp.asarray(tv))
        kernel = jnp.zeros((side, side)).at[:9, :9].set(jnp.asarray(blur.kernel))
        self.eigenvalues = np.unique(np.abs(np.fft.fft2(np.asarray(kernel))) ** 2) + WEIGHT
        self.most, self.least = self.eigenvalues.max(), self.eigenvalues.min()

    def residuals(
        self, length: int, step: float, momentum: float = 0.0, accelerate: Any = None
    ) -> np.ndarray:
        """Of every iterate, relative to that of the start, the blurred image."""
        parts = (self.y, self.operator, self.prior)
        free = isr.Unconstrained()
        plain = isr.Iteration(*parts, jnp.ones(1), 1 / self.most, free)
        found = isr.unroll(
            *parts,
            alpha=jnp.zeros(length),
            w=jnp.full(length, math.log(momentum) if momentum else -jnp.inf),
            sigma=jnp.ones(1),
            step=jnp.asarray(step),
            constraint=free,
            accelerate=isr.Plain() if accelerate is None else accelerate,
            observe=jax.tree_util.Partial(changed, plain),
            start=self.blurred,
        ).observed
        return np.asarray(found / changed(plain, self.blurred))

    def rate(self, step: float, momentum: float) -> float:
        """Of the theory: the largest root of r^2 - (1 + b) (1 - s l) r + b (1 - s l)."""
        t = 1 - step * self.eigenvalues
        root = np.sqrt(((1 + momentum) * t) ** 2 - 4 * momentum * t + 0j)
        return float(max(abs((1 + momentum) * t + sign * root).max() / 2 for sign in (-1, 1)))


def counted(residuals: np.ndarray) -> int | None:
    """Iterations until the residual is, and stays, below the target; None if it does not."""
    above = np.flatnonzero(~(residuals <= TARGET))
    count = int(above[-1]) + 2 if len(above) else 1
    return count if count <= len(residuals) else None


def row(residuals: np.ndarray, **settings: Any) -> Found:
    """Iterations that it takes, and by how much each of the last half shrinks what is left."""
    count = counted(residuals)
    found: Found = settings | {"iterations": count}
    if count is not None and count > 8:
        first, last = count // 2, count - 1
        found["rate"] = (residuals[last] / residuals[first]) ** (1 / (last - first))
    return found


def theory(rate: float) -> Found:
    """Iterations at this rate from the first one on; none if it grows."""
    return {"rate": rate, "iterations": math.log(TARGET) / math.log(rate) if rate < 1 else None}


def sweep(problem: Problem, length: int, quick: bool, linear: bool) -> Found:
    """Momentum, relaxation and memory at step 1 / L, and steps where all have one solution.

    With a prior besides, which is not multiplied by the step, fixed points depend on the step.
    """
    most, least = problem.most, problem.least
    root = math.sqrt(least / most)
    best, nesterov = 1 / (1 + least / most), (1 - root) / (1 + root)
    parts = [0.5, best] if quick else [*np.arange(1, 10) / 10, 0.95, best, 1.02]
    momenta = [nesterov] if quick else [0.0, 0.3, 0.5, 0.7, 0.8, nesterov, 0.9, 0.95, 0.98]
    memories = [5] if quick else [*range(1, 11)]
    thetas = [1.5] if quick else [0.2, 0.6, 1.0, 1.4, 1.8]
    found: Found = {"L": most, "mu": least, "best step": best, "best momentum": nesterov}

    # All steps and all momenta are inputs of one program.
    curves = {"step 1/L": problem.residuals(length, 1 / most)}
    found["steps"] = []
    for part in parts if linear else []:
        step = 2 * part / most
        residuals = problem.residuals(length, step)
        found["steps"].append(row(residuals, step=part) | {"theory": theory(problem.rate(step, 0))})
        if part == best:
            curves["step 2/(L + mu)"] = residuals
    found["momenta"] = []
    for momentum in momenta:
        residuals = problem.residuals(length, 1 / most, momentum)
        one = row(residuals, momentum=momentum)
        if linear:
            one["theory"] = theory(problem.rate(1 / most, momentum))
        found["momenta"].append(one)
        if momentum == nesterov:
            curves["with momentum"] = residuals
    found["relaxed"] = [
        row(problem.residuals(length, 1 / most, 0, isr.Relaxed(jnp.asarray(theta))), theta=theta)
        for theta in thetas
    ]
    found["anderson"] = []
    for memory in memories:
        residuals = problem.residuals(length, 1 / most, 0, isr.Anderson(memory))
        found["anderson"].append(row(residuals, memory=memory))
        if memory == 5:
            curves["Anderson(5)"] = residuals
    # No method that builds polynomials of A^T A needs more if it chooses them well: Chebyshev's.
    found["krylov bound"] = math.acosh(1 / TARGET) / math.acosh((most + least) / (most - least))
    found["curves"] = {name: curve[:600:5] for name, curve in curves.items()}
    return found


def measure(quick: bool) -> Found:
    """Both problems, in double precision."""
    with jax.enable_x64(True):
        side, length = (16, 700) if quick else (40, 2500)
        return {
            name: sweep(Problem(side, tv), length, quick, tv == 0)
            for name, tv in (("quadratic", 0.0), ("total variation", 0.1))
        }


def draw(found: Found, path: Path) -> None:
    """Iterations over step, momentum and memory, and the residual over iterations."""
    figure, axes = common.figure(10, 6.6, 2, 2)
    square, edged = found["quadratic"], found["total variation"]

    def counts(place: int, rows: list[Found], key: str, part: str = "", **style: Any) -> None:
        chosen = [(one[key], (one[part] if part else one)["iterations"]) for one in rows]
        chosen = sorted((x, n) for x, n in chosen if n is not None)
        axes.flat[place].plot(*zip(*chosen, strict=True), **style)

    dots = {"ls": "", "ms": 5}
    theory = {"ls": "-", "color": common.GREY, "label": "theory, ln 1e-5 / ln rate"}
    counts(0, square["steps"], "step", "theory", **theory)
    counts(0, square["steps"], "step", **dots, marker="o", color=common.BLUE, label="steps")
    relaxed = [one | {"step": one["theta"] / 2} for one in square["relaxed"]]
    label = "step 1/L with Relaxed(2 x)"
    counts(0, relaxed, "step", **dots, marker="x", color=common.RED, label=label)
    axes[0, 0].axvline(square["best step"], color=common.ORANGE, ls=":", label="2 / (L + mu)")

    counts(1, square["momenta"], "momentum", "theory", **theory)
    style = {"marker": "o", "color": common.BLUE, "label": "quadratic"}
    other = {"marker": "^", "color": common.GREEN, "label": "with total variation"}
    counts(1, square["momenta"], "momentum", **dots, **style)
    counts(1, edged["momenta"], "momentum", **dots, **other)
    label = "(1 - q) / (1 + q), q^2 = mu / L"
    axes[0, 1].axvline(square["best momentum"], color=common.ORANGE, ls=":", label=label)

    counts(2, square["anderson"], "memory", **style, lw=1)
    counts(2, edged["anderson"], "memory", **other, lw=1)
    label = "Chebyshev's bound, quadratic"
    axes[1, 0].axhline(square["krylov bound"], color=common.GREY, label=label)
    for place in range(3):
        axes.flat[place].set_yscale("log")
        common.plain(axes.flat[place].yaxis)
    y = "iterations to 1e-5"
    common.label(axes[0, 0], "a  step length, quadratic", "step, in units of 2 / L", y)
    common.label(axes[0, 1], "b  momentum at step 1 / L", "momentum exp(w)", y)
    common.label(axes[1, 0], "c  Anderson acceleration at step 1 / L", "memory", y)

    colors = (common.BLACK, common.BLUE, common.ORANGE, common.RED)
    for (name, curve), color in zip(square["curves"].items(), colors, strict=True):
        iterations = 1 + 5 * np.arange(len(curve))
        axes[1, 1].semilogy(iterations, curve, color=color, lw=1.2, label=name)
    axes[1, 1].axhline(TARGET, color=common.GREY, ls=":")
    axes[1, 1].set_ylim(1e-8, 2)
    common.label(axes[1, 1], "d  quadratic", "iteration", "relative residual")
    common.save(figure, path)


if __name__ == "__main__":
    common.run("steps", measure, draw)
