"""More iterations than were trained: a prior that was trained for ten, and one that contracts.

    python -m experiments.studies.beyond [--quick] [--draw]

Three crops of 96 x 96 pixels of the photograph in `examples`, at half of the size, are brought back
by the shipped weights `x2_k10`, and by `ConvexRidge.shipped()` with exact physics, which has never
seen this problem; it is told the noise level that is best on another photograph. 60 iterations.

- Trained for ten, it is best after ten, 28.46 dB. 2.76 of that are the tenth's, whose projection
  leaves the residual as it is (alpha is 4.50, and about -1.05 before). As `isr.reconstruct` repeats
  it beyond the trained K, that pair expands, with an eigenvalue of modulus 1.83: 22.30 dB after 20
  iterations, 14.16 after 60. (So it is in Gilton, Ongie & Willett, "Deep equilibrium
  architectures for inverse problems in imaging", IEEE TCI 7, 2021.)
- Repeating the ninth pair is about neutral (1.001), and still drifts, to 22.77 dB at a change of
  0.0027 in each iteration; relaxed by 1/2 to 24.03. A safer schedule makes no fixed point.
- The convex prior gains with every iteration, 26.25 dB after ten and 27.42 after 60, and with a
  constant momentum 26.73 and 27.74; the change falls to 2.5e-4 and 1.8e-4. It does not reach what
  ten trained iterations do. (Goujon et al., "A neural-network-based convex regularizer for inverse
  problems", IEEE TCI 9, 2023: convergence by construction, for some of the quality.)
- The two start apart, 23.45 and 25.26 dB, as the physics of `x2_k10` are the reference's.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import isrrescnet_jax as isr
from isrrescnet_jax import analysis
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.evaluation.metrics import luma_psnr
from isrrescnet_jax.prior.ridge import STEP, ConvexRidge

from .. import harness
from . import common
from .common import Found

SCALE, TRAINED = 2, 10
CORNERS = ((20, 170), (200, 60), (330, 300))  # of crops of the photograph in `examples`
LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # that the contractive prior may be told


class Picture:
    """A crop, and what is left of it at half of the size."""

    def __init__(self, whole: Any, top: int, left: int, side: int):
        self.truth = np.asarray(whole)[top : top + side, left : left + side]
        self.y = jnp.asarray(degrade(self.truth, SCALE), jnp.float32)[None]

    def row(self, iterates: Any, start: Any) -> Found:
        """PSNR of every iterate and its relative change."""
        images = np.concatenate([np.asarray(start)[None], np.asarray(iterates)])[:, 0]
        rows = images.reshape(len(images), -1)
        change = np.linalg.norm(np.diff(rows, axis=0), axis=1) / np.linalg.norm(rows[1:], axis=1)
        truth = self.truth.astype(float)
        return {"psnr": [luma_psnr(a, truth, SCALE) for a in images], "residual": change}


def trained(picture: Picture, iterations: int, repeated: int, theta: float) -> Found:
    """By the shipped weights, ten iterations as they were trained, and more of the same kind.

    Args:
        picture: what is upscaled.
        iterations: in all.
        repeated: which of the trained (alpha, w) is taken from the eleventh iteration on.
        theta: of the relaxation from there on.
    """
    weights = isr.load_weights("x2_k10")
    first = isr.reconstruct(weights, picture.y, trace=True)
    last = {name: weights.params[name][repeated - 1 :][:1] for name in ("alpha", "w")}
    config = dataclasses.replace(weights.config, iterations=1)
    more = isr.Weights(weights.params | last, config)
    relaxed = isr.Relaxed(jnp.float32(theta))
    start = first.state
    rest = isr.reconstruct(
        more,
        picture.y,
        iterations=iterations - TRAINED,
        trace=True,
        start=start,
        accelerate=relaxed,
    )
    assert first.iterates is not None and rest.iterates is not None
    return picture.row(jnp.concatenate([first.iterates, rest.iterates]), first.initial)


# --- the contractive prior, made in this one place ------------------------------------------------

STEPS = STEP * SCALE**2  # |D|^2 is 1 / SCALE^2
MOMENTUM = float(np.log((1 - STEP**0.5) / (1 + STEP**0.5)))


def contractive(picture: Picture, iterations: int, level: float, w: float = -np.inf) -> Found:
    """By the convex prior and exact physics, from the same image, with a constant momentum w."""
    operator = isr.Bicubic(SCALE, reference=False)
    still: dict[str, Any] = {"alpha": jnp.zeros(iterations), "w": jnp.full(iterations, w)}
    still |= {"sigma": jnp.full(1, level), "step": STEPS}
    found = isr.unroll(picture.y, operator, ConvexRidge.shipped(), trace=True, **still)
    return picture.row(found.iterates, found.initial)


# --------------------------------------------------------------------------------------------------


def radius(picture: Picture) -> Found:
    """Modulus of the largest eigenvalue of one more iteration, where the ten have led."""
    weights = isr.load_weights("x2_k10")
    end = isr.reconstruct(weights, picture.y)
    assert end.state is not None
    sigma, key, found = jnp.asarray(end.sigma), jax.random.key(0), {}
    learned, operator = isr.LearnedPrior.from_weights(weights), isr.Bicubic(SCALE, reference=True)
    for repeated in (9, 10):
        pair = (weights.params[name][repeated - 1] for name in ("alpha", "w"))
        step = isr.Iteration(picture.y, operator, learned, sigma).as_map(*pair)
        found[f"trained, pair {repeated}"] = analysis.spectral_radius(
            step, (end.image, end.state.previous), key, krylov=12
        )
    return found


def measure(quick: bool) -> Found:
    """Every way to go on, on the same crops; the contractive prior's level from another."""
    side, iterations = (24, 16) if quick else (96, 60)
    whole = harness.photograph(512, 512)
    crops = [Picture(whole, *corner, side) for corner in CORNERS[: 1 if quick else None]]
    other = Picture(common.colour("coffee"), 150, 150, side)
    tried = {level: contractive(other, iterations, level)["psnr"][-1] for level in LEVELS}
    level = max(tried, key=tried.__getitem__)
    ways: dict[str, Any] = {
        "trained, last pair": lambda crop: trained(crop, iterations, 10, 1.0),
        "trained, ninth pair": lambda crop: trained(crop, iterations, 9, 1.0),
        "trained, ninth, relaxed": lambda crop: trained(crop, iterations, 9, 0.5),
        "contractive": lambda crop: contractive(crop, iterations, level),
        "contractive, momentum": lambda crop: contractive(crop, iterations, level, MOMENTUM),
    }
    found: Found = {"level": level, "levels": tried, "radius": {} if quick else radius(crops[0])}
    found["ways"] = {}
    for name, way in ways.items():
        rows = [way(crop) for crop in crops]
        mean = {key: np.mean([row[key] for row in rows], 0) for key in ("psnr", "residual")}
        print(f"{name:26} {mean['psnr'][TRAINED]:.2f} dB, {mean['psnr'][-1]:.2f}", flush=True)
        found["ways"][name] = mean
    return found


def draw(found: Found, path: Path) -> None:
    """PSNR and residual over the iterations."""
    figure, axes = common.figure(10, 3.9, 1, 2)
    colors = (common.RED, common.ORANGE, common.PINK, common.BLUE, common.SKY)
    for (name, row), color in zip(found["ways"].items(), colors, strict=True):
        line = "--" if name.startswith("trained") else "-"
        style = {"color": color, "ls": line, "lw": 1.5, "label": name}
        axes[0, 0].plot(row["psnr"], **style)
        axes[0, 1].semilogy(range(1, len(row["psnr"])), row["residual"], **style)
    for one in axes[0]:
        one.axvline(TRAINED, color=common.GREY, ls=":", label="as many as were trained")
    y = "|x_k - x_(k-1)| / |x_k|"
    common.label(axes[0, 0], "a  quality", "iteration k", "PSNR on Y, dB")
    common.label(axes[0, 1], "b  residual", "iteration k", y, legend=False)
    common.save(figure, path)


if __name__ == "__main__":
    common.run("beyond", measure, draw)
