"""Ways to differentiate K iterations: how well their gradients agree, and what they cost.

    python -m experiments.studies.ways [--quick] [--draw]

A soft-focus picture of 32 x 32 pixels is sharpened with a random network of 2 625 parameters as
prior; the iteration contracts, with a spectral radius of 0.762. Gradients of the squared error with
respect to the parameters, in double precision, each beside that of `Full` at the same K.

- Checkpointed(1) and Truncated(K, K) have the gradient of `Full` to the last digits, in 1.8 of 9.9
  MiB at K = 30. Only with `Full` does memory grow much with K.
- The bias of truncation shrinks geometrically with k2, from 0.67 at k2 = 1 to 4e-7 at k2 = 50 of
  K = 60: by 0.749 for each iteration, where the spectral radius is 0.762. (Shaban, Cheng, Hatch &
  Boots, "Truncated back-propagation for bilevel optimization", AISTATS 2019.) A Neumann series of
  as many terms leaves out the same.
- `Implicit` is the limit: 0.19 from `Full` at K = 10, and 9.5e-4 at K = 30.
- Jacobian-free gradients have a positive product with the implicit ones on all of 25 maps, of
  spectral radii from 0.60 to 0.998: cosines from 0.48 to 0.97, the lowest where the map hardly
  contracts. (Fung et al., "JFB: Jacobian-free backpropagation for implicit networks", AAAI 2022,
  under conditions that are not checked here.) But they are shorter, by up to 70 times: a rate for
  one is none for the other, unless the optimiser takes no notice of lengths, as Adam.
- The mean of Random(5) is the gradient of a mean over iterates, so another one: cosine 0.83 at
  K = 30.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

import isrrescnet_jax as isr
from isrrescnet_jax import analysis

from . import blurs, common, priors
from .common import Found

STRENGTH = 0.5  # e of the prior
DRAWS = 32
TOLERANCE, STEPS = 1e-6, 5000  # of `Implicit`


@dataclasses.dataclass(frozen=True)
class Draws:
    """`isr.Random(k2, key)` for each of the keys: what it is in the mean."""

    k2: int
    keys: Array


@isr.pytree
@dataclasses.dataclass(frozen=True)
class Problem:
    """A soft-focus picture of grey values, and the iteration that sharpens it.

    Attributes:
        truth, y: sharp, and as it was seen.
        params: of the network.
        step: of the iteration; |A|^2 is 1, its least eigenvalue 1/4.
    """

    truth: Array
    y: Array
    params: Any
    step: Any

    @classmethod
    def make(cls, side: int, seed: int = 0, step: float = 1.0) -> "Problem":
        """With random noise and a random network, whose norms are 1 as they are drawn."""
        truth = jnp.asarray(common.grey("astronaut", side, 30, 90), float)
        keys = jax.random.split(jax.random.key(seed))
        noise = 5 * jax.random.normal(keys[0], truth.shape, truth.dtype)
        params = jax.tree.map(lambda a: a.astype(float), priors.init(keys[1]))
        y = blurs.soft_focus().forward(truth) + noise
        return cls(truth, y, params, jnp.asarray(step))

    def error(self, image: Array) -> Array:
        """What the gradient is of."""
        return jnp.mean((image - self.truth) ** 2)

    def parts(self, params: Any) -> tuple[Array, Any, Any]:
        """Observation, operator and prior."""
        prior = jax.tree_util.Partial(priors.residual, (params, STRENGTH))
        return self.y, blurs.soft_focus(), prior

    def map(self, params: Any, x: Array) -> Array:
        """One iteration, without a momentum."""
        one = isr.Iteration(*self.parts(params), jnp.ones(1), self.step)
        return one.as_map(jnp.zeros(()), jnp.full((), -jnp.inf))((x, x))[0]

    def solve(self, params: Any, way: Any, iterations: int) -> Array:
        """The image after K iterations, or after as many as the way takes."""
        data: dict[str, Any] = {"sigma": jnp.ones(1), "step": self.step}
        data |= {"alpha": jnp.zeros(iterations), "w": jnp.full(iterations, -jnp.inf)}
        return isr.unroll(*self.parts(params), backward=way, **data).image

    def loss(self, iterations: int) -> Any:
        """(params, way) -> error; of `Draws`, what has their mean gradient."""

        def one(params, way):
            return self.error(self.solve(params, way, iterations))

        def loss(params, way):
            if not isinstance(way, Draws):
                return one(params, way)
            gradients = jax.lax.map(
                lambda key: ravel_pytree(jax.grad(one)(params, isr.Random(way.k2, key)))[0],
                way.keys,
            )
            return jax.lax.stop_gradient(gradients.mean(0)) @ ravel_pytree(params)[0]

        return loss

    def fixed_point(self) -> Array:
        """Where the iterations end."""
        return self.solve(self.params, isr.Until(1e-13, STEPS), 1)

    def rate(self) -> float:
        """By how much an iteration shrinks what is left, in the end: the spectral radius."""
        at = self.fixed_point()
        return analysis.spectral_radius(lambda x: self.map(self.params, x), at, jax.random.key(2))


def ways(k: int) -> dict[str, Any]:
    """Of K iterations, by the names of the table."""
    limits = {"steps": STEPS, "tolerance": TOLERANCE}
    return {
        "Full": isr.Full(),
        "Checkpointed(1)": isr.Checkpointed(),
        "Checkpointed(sqrt K)": isr.Checkpointed(max(1, round(k**0.5))),
        "Truncated(K, K)": isr.Truncated(k, k),
        "Truncated(K, 5)": isr.Truncated(k, 5),
        "Truncated(K, 1)": isr.Truncated(k, 1),
        "Window(K, 5)": isr.Window(k, 5),
        "Random(5), mean": Draws(5, jax.random.split(jax.random.key(3), DRAWS)),
        "Implicit(GMRES)": isr.Implicit(**limits),
        "Implicit(Neumann(5))": isr.Implicit(isr.Neumann(5), **limits),
        "Implicit(Neumann(0))": isr.Implicit(isr.Neumann(0), **limits),
    }


def agreement(problem: Problem, lengths: list[int], names: tuple[str, ...]) -> list[Found]:
    """A row for each way at each K, beside `Full` at that K."""
    rows = []
    for k in lengths:
        # At K = 1 all draws are alike, and XLA makes one of them.
        chosen = {
            n: w for n, w in ways(k).items() if n in names and (k > 1 or n != "Random(5), mean")
        }
        table = analysis.agreement(problem.loss(k), problem.params, chosen, repeats=15)
        print(f"K = {k}\n{table}", flush=True)
        for a in table:
            seconds = a.seconds / (DRAWS if a.name.startswith("Random") else 1)
            row = {"way": a.name, "K": k, "cosine": a.cosine, "error": a.error}
            rows.append(row | {"milliseconds": 1e3 * seconds, "MiB": a.bytes / 2**20})
    return rows


def bias(problem: Problem, iterations: int, windows: list[int]) -> Found:
    """What truncation to k2 iterations leaves out, and a Neumann series of as many terms."""
    names = {str(k2): isr.Truncated(iterations, k2) for k2 in windows}
    cut = analysis.agreement(problem.loss(iterations), problem.params, names, repeats=1)
    limits = {"steps": STEPS, "tolerance": 1e-12}
    series = {str(k2): isr.Implicit(isr.Neumann(k2 - 1), **limits) for k2 in windows}
    exact = isr.Implicit(isr.Neumann(400), **limits)
    sums = analysis.agreement(problem.loss(1), problem.params, series, exact, repeats=1)
    errors = [a.error for a in cut]
    late = slice(len(windows) // 3, None)
    slope = np.polyfit(windows[late], np.log(errors[late]), 1)[0]
    found = {
        "K": iterations,
        "k2": windows,
        "truncated": errors,
        "neumann": [a.error for a in sums],
    }
    return found | {"fitted rate": float(np.exp(slope)), "spectral radius": problem.rate()}


@functools.partial(jax.jit, static_argnums=2)
def both(problem: Problem, x: Array, terms: int) -> tuple[Array, Array]:
    """Of the Jacobian-free gradient beside the implicit one at x: cosine, and ratio of lengths."""
    free, implicit = (
        ravel_pytree(
            analysis.fixed_point_gradient(
                problem.map, problem.params, x, problem.error, isr.Neumann(n)
            ).gradient
        )[0]
        for n in (0, terms)
    )
    lengths = jnp.linalg.norm(free), jnp.linalg.norm(implicit)
    return free @ implicit / (lengths[0] * lengths[1]), lengths[0] / lengths[1]


def jacobian_free(side: int, steps: list[float], seeds: int, terms: int) -> list[Found]:
    """For maps that contract well or hardly, by the length of their steps."""
    rows = []
    for step in steps:
        for seed in range(seeds):
            problem = Problem.make(side, seed, step)
            cosine, length = both(problem, problem.fixed_point(), terms)
            row = {"step": step, "seed": seed, "spectral radius": problem.rate()}
            rows.append(row | {"cosine": float(cosine), "length": float(length)})
    return rows


def measure(quick: bool) -> Found:
    """All three, in double precision: what is left of a gradient is seen over many decades."""
    with jax.enable_x64(True):
        problem = Problem.make(12 if quick else 32)
        some = ("Truncated(K, K)", "Truncated(K, 1)", "Implicit(Neumann(0))")
        lengths = ([10], some) if quick else ([1, 2, 3, 5, 10, 20, 30], tuple(ways(1)))
        cut = (40, [1, 8]) if quick else (60, [1, 2, 5, 10, 20, 30, 40, 50])
        maps = ([1.0], 1, 200) if quick else ([1.6, 1.0, 0.5, 0.25, 0.1], 5, 4000)
        return {
            "parameters": ravel_pytree(problem.params)[0].size,
            "ways": agreement(problem, *lengths),
            "bias": bias(problem, *cut),
            "jacobian-free": jacobian_free(12, *maps),
        }


STYLES = {  # colour, line and marker
    "Full": (common.BLACK, "-", "o"),
    "Checkpointed(1)": (common.GREY, "-", "s"),
    "Truncated(K, 5)": (common.BLUE, "-", "^"),
    "Truncated(K, 1)": (common.SKY, "-", "v"),
    "Window(K, 5)": (common.BLUE, ":", "x"),
    "Random(5), mean": (common.PINK, "-", "D"),
    "Implicit(GMRES)": (common.RED, "--", "o"),
    "Implicit(Neumann(5))": (common.ORANGE, "--", "^"),
    "Implicit(Neumann(0))": (common.GREEN, "--", "v"),
}


def draw(found: Found, path: Path) -> None:
    """Error, memory and time over K; the bias of truncation; Jacobian-free gradients."""
    figure, axes = common.figure(11, 6.4, 2, 3)
    for name, (color, line, marker) in STYLES.items():
        rows = [row for row in found["ways"] if row["way"] == name]
        lengths = [row["K"] for row in rows]
        style = {"color": color, "ls": line, "marker": marker, "ms": 4, "lw": 1.2, "label": name}
        for place, key in enumerate(("error", "MiB", "milliseconds")):
            axes[0, place].plot(lengths, common.shown(row[key] for row in rows), **style)
    axes[0, 0].set_yscale("log")
    axes[0, 2].set_yscale("log")
    common.label(axes[0, 0], "a  error", "iterations K", "|g - Full| / |Full| at the same K", False)
    common.label(axes[0, 1], "b  memory", "iterations K", "kept in between, MiB", False)
    common.label(axes[0, 2], "c  time", "iterations K", "one gradient, ms", False)
    handles = axes[0, 1].get_legend_handles_labels()
    axes[1, 2].axis("off")
    axes[1, 2].legend(*handles, loc="center", fontsize=8, title="a, b and c", frameon=False)

    cut = found["bias"]
    k2, rate = np.asarray(cut["k2"]), cut["spectral radius"]
    axes[1, 0].semilogy(k2, cut["truncated"], "o", color=common.BLUE, label="Truncated(K, k2)")
    axes[1, 0].semilogy(k2, cut["neumann"], "x", color=common.RED, label="Neumann(k2 - 1)")
    line = cut["truncated"][0] * rate ** (k2 - 1.0)
    axes[1, 0].semilogy(k2, line, "-", color=common.GREY, label=f"{rate:.3f}^k2")
    common.label(axes[1, 0], f"d  bias at K = {cut['K']}", "k2", "relative error of the gradient")

    rows = found["jacobian-free"]
    slow = [1 - row["spectral radius"] for row in rows]
    axes[1, 1].plot(slow, [row["cosine"] for row in rows], "o", color=common.GREEN, label="cosine")
    lengths = [row["length"] for row in rows]
    axes[1, 1].plot(slow, lengths, "x", color=common.PINK, label="ratio of lengths")
    axes[1, 1].set_xscale("log")
    axes[1, 1].set_ylim(0, 1.05)
    title = "e  Jacobian-free beside implicit gradients"
    common.label(axes[1, 1], title, "1 - spectral radius (contracts hardly ... well)", "")
    common.save(figure, path)


if __name__ == "__main__":
    common.run("ways", measure, draw)
