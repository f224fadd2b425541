"""The contractive prior measured: denoising, deblurring, convergence, and gradients.

    python -m experiments.contractive_table --kodak FOLDER [--json FILE] [--images 25]

Of the middle 192 pixels of each image. The strength of every method on every problem (h of
non-local means, lambda of total variation, the level that the prior is told) is chosen on every
sixth crop, and the PSNR, over RGB, is that of the others; where the prior removes noise it is told
the true level. Total variation is of each channel by itself, as in scikit-image, and of all three
together, which is stronger. Non-local means have the slow mode, which is the better one.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float
from scipy.fft import dctn, idctn
from skimage.restoration import denoise_nl_means

import isrrescnet_jax as isr
from isrrescnet_jax import analysis
from isrrescnet_jax.evaluation import metrics
from isrrescnet_jax.images import read_rgb
from isrrescnet_jax.prior.ridge import STEP, ConvexRidge, shipped_params

from . import contractive, harness

PACKAGES = ("isrrescnet-jax", "jax", "scikit-image", "scipy")
BLUR, NOISE = 1.6, 2.0  # of the deblurring problem: standard deviations, in pixels and grey levels
NOTHING = isr.Mask(1.0)  # the operator of denoising
KINDS = {"TV of each channel": False, "TV of all": True}
TRY = np.array([0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7])  # strengths, relative to one that is about it
Images = Float[np.ndarray, "n h w 3"]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured.

    Attributes:
        kodak: folder of the images.
        images: the first so many.
        levels: of the noise to be removed.
        json: file for the numbers.
    """

    kodak: Path
    images: int = 25
    levels: tuple[float, ...] = (5.0, 15.0, 25.0)
    json: Path | None = None


def crops(folder: Path, count: int, side: int = 192) -> Images:
    """The middle of the first images."""
    found = []
    for path in sorted(folder.glob("*.png"))[:count]:
        found.append(harness.middle(read_rgb(path).astype(np.float32), side))
    return np.stack(found)


def psnr(images: Images, clean: Images) -> float:
    """Mean of the images, in [0, 255]."""
    return float(np.mean(list(map(metrics.psnr, np.clip(images, 0, 255), clean))))


def best(
    restore: Callable[[Images, float], Images], strengths: Iterable[float], y: Images, hr: Images
) -> tuple[float, float]:
    """PSNR with the strength that is best on every sixth crop, of the others, and that strength."""
    chosen = max(strengths, key=lambda strength: psnr(restore(y[::6], strength), hr[::6]))
    y, hr = others(y), others(hr)
    return psnr(restore(y, chosen), hr), float(chosen)


def others(images: Images) -> Images:
    """Those on which no strength is chosen."""
    return np.stack([image for i, image in enumerate(images) if i % 6])


# --- the methods ----------------------------------------------------------------------------------


def fixed_point(y: Images, operator: Any, sigma: float, step: float = STEP, **options: Any) -> Any:
    """With the prior, from the accelerated iteration run to a relative change of 1e-6."""
    options = {"backward": isr.Until(1e-6, 3000), "w": contractive.MOMENTUM} | options
    w = jnp.full(1, options.pop("w"))
    level = jnp.full(len(y), sigma)
    prior = ConvexRidge.shipped()
    return isr.unroll(
        y, operator, prior, alpha=jnp.zeros(1), w=w, sigma=level, step=step, **options
    )


def non_local_means(y: Images, h: float, sigma: float) -> Images:
    """Of scikit-image, with patches of 5 x 5 within 13 x 13, and weights that are Gaussian."""
    options = {"patch_size": 5, "patch_distance": 6, "channel_axis": -1, "fast_mode": False}
    return np.stack([denoise_nl_means(a, h=h, sigma=sigma, **options) for a in y])


def total_variation(
    y: Images, weight: float, together: bool, blur: float = 0.0, steps: int = 50
) -> Images:
    """argmin_x 1/2 |A x - y|^2 + weight TV(x), of images that go on by reflection.

    By alternating directions; what is linear is solved exactly in the cosine transform, in which
    A, a symmetric blur, and differences are diagonal. (Goldstein & Osher, "The split Bregman
    method for L1-regularized problems", SIAM J. Imaging Sci. 2(2), 2009.)

    Args:
        together: the length of the gradient is that of all channels, or of each by itself.
        blur: standard deviation of A, or 0 for the identity.
    """
    rho = weight / 5  # differences below 5 are shrunk away at once

    def eigenvalues(n, kernel):  # of the symmetric kernel (2 r + 1,)
        r = len(kernel) // 2
        return np.cos(np.pi * np.outer(np.arange(n), np.arange(-r, r + 1)) / n) @ kernel

    def of(kernel):
        rows, columns = (eigenvalues(n, kernel) for n in y.shape[1:3])
        return rows[:, None, None], columns[None, :, None]

    a = np.prod(np.broadcast_arrays(*of(gaussian(blur))), axis=0) if blur else np.ones((1, 1, 1))
    laplacian = sum(of(np.array([-1.0, 2.0, -1.0])))
    over = (a**2 + rho * laplacian).astype(y.dtype)
    data = a.astype(y.dtype) * cosines(y)
    d = u = np.zeros((2, *y.shape), y.dtype)
    x = y
    for _ in range(steps):
        x = cosines((data - rho * cosines(divergence(d - u))) / over, idctn)
        gradient = np.zeros_like(d)
        gradient[0, :, :-1], gradient[1, :, :, :-1] = np.diff(x, axis=1), np.diff(x, axis=2)
        v = gradient + u
        length = np.sqrt(np.sum(v**2, axis=(0, 4) if together else 0, keepdims=True))
        d = v * np.maximum(1 - weight / rho / np.maximum(length, 1e-9), 0)
        u = v - d
    return x


def cosines(x: Images, transform: Any = dctn) -> Images:
    """The orthogonal cosine transform of each image, or its inverse."""
    return transform(x, axes=(1, 2), norm="ortho")


def divergence(p: Float[np.ndarray, "2 n h w 3"]) -> Images:
    """Minus the transpose of the gradient whose last row and column are zero."""
    rows, columns = p[0].copy(), p[1].copy()
    rows[:, -1] = columns[:, :, -1] = 0
    rows[:, 1:] -= p[0, :, :-1]
    columns[:, :, 1:] -= p[1, :, :, :-1]
    return rows + columns


def gaussian(deviation: float) -> Float[np.ndarray, " k"]:
    """Its samples, of sum 1, to four deviations."""
    at = np.arange(-int(4 * deviation + 0.5), int(4 * deviation + 0.5) + 1)
    samples = np.exp(-(at**2) / (2 * deviation**2))
    return samples / samples.sum()


# --- the measurements -----------------------------------------------------------------------------


def denoising(hr: Images, sigma: float) -> dict[str, float]:
    """PSNR of the noisy crops and of what each method makes of them."""
    y = hr + np.random.default_rng(0).normal(0, sigma, hr.shape).astype(np.float32)
    found = {"sigma": sigma, "noisy": psnr(others(y), others(hr))}
    for name, together in KINDS.items():
        weights = 0.6 * sigma * TRY

        def smooth(a: Images, weight: float, together: bool = together) -> Images:
            return total_variation(a, weight, together)

        found[name], found[f"{name}: lambda"] = best(smooth, weights, y, hr)
    h = [k * sigma for k in (0.7, 0.8, 0.9, 1.0)]
    found["non-local means"], found["h"] = best(lambda a, k: non_local_means(a, k, sigma), h, y, hr)
    ours = fixed_point(others(y), NOTHING, sigma, backward=isr.Until(1e-4))
    return found | {"ours": psnr(np.asarray(ours.image), others(hr))}


def deblurring(hr: Images) -> dict[str, float]:
    """The same for a blur by a Gaussian, with little noise."""
    kernel = jnp.asarray(gaussian(BLUR), "float32")
    rows, columns = (
        isr.Convolution(k, border="symmetric") for k in (kernel[:, None], kernel[None])
    )
    operator = rows @ columns
    blurred = np.asarray(operator.forward(jnp.asarray(hr)))
    y = blurred + np.random.default_rng(1).normal(0, NOISE, hr.shape).astype(np.float32)
    found = {"blur": BLUR, "sigma": NOISE, "blurred": psnr(others(y), others(hr))}
    for name, together in KINDS.items():
        weights = 0.045 * NOISE * TRY

        def sharpen(a: Images, weight: float, together: bool = together) -> Images:
            return total_variation(a, weight, together, BLUR, 200)

        found[name], found[f"{name}: lambda"] = best(sharpen, weights, y, hr)
    options = {"step": 1.0, "w": np.log(0.9), "backward": isr.Until(2e-5, 500)}
    solutions = []

    def ours(a: Images, level: float) -> Images:
        solutions.append(fixed_point(a, operator, level, **options))
        return np.asarray(solutions[-1].image)

    found["ours"], found["level"] = best(ours, 0.75 * NOISE * TRY, y, hr)
    end = solutions[-1]
    return found | {"iterations": int(end.iterations), "residual": float(end.residual.max())}


def convergence(hr: Images, sigma: float = 15.0) -> list[dict[str, Any]]:
    """Iterations of denoising until the relative change is below 1e-4, and what it is after 200."""
    hr = hr[:4]
    y = hr + np.random.default_rng(2).normal(0, sigma, hr.shape).astype(np.float32)
    ways = {
        "plain": {"w": -jnp.inf},
        "Anderson(5)": {"w": -jnp.inf, "accelerate": isr.Anderson(5)},
        "momentum": {"w": contractive.MOMENTUM},
    }
    rows = []
    for name, options in ways.items():
        until = fixed_point(y, NOTHING, sigma, backward=isr.Until(1e-4), **options)
        after = fixed_point(y, NOTHING, sigma, backward=isr.Until(0.0, 200), **options)
        residual = float(after.residual.max())
        rows.append({"way": name, "iterations": int(until.iterations), "residual": residual})
    return rows


def gradients(hr: Images, sigma: float = 15.0, side: int = 16) -> dict[str, float]:
    """Relative difference of implicit gradients from unrolled ones, in double precision."""
    clean = jnp.asarray(hr[:1, :side, :side], jnp.float64)
    noise = np.random.default_rng(3).normal(0, sigma, clean.shape)
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), shipped_params())

    def loss(inputs, backward, count):
        params, y = inputs
        options = {"alpha": jnp.zeros(count), "w": jnp.full(count, -jnp.inf), "step": STEP}
        prior = ConvexRidge.from_params(params)
        level = jnp.full(1, sigma)
        found = isr.unroll(y, NOTHING, prior, sigma=level, backward=backward, **options)
        return jnp.mean((found.image - clean) ** 2)

    inputs = params, clean + noise
    gradient = jax.jit(jax.grad(loss), static_argnums=(1, 2))
    implicit = gradient(inputs, isr.Implicit(tolerance=1e-7), 1)
    unrolled = gradient(inputs, isr.Full(), 300)

    def error(a, b):
        a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (a, b))
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    names = ("parameters", "measurements")
    return {name: error(*pair) for name, *pair in zip(names, implicit, unrolled, strict=True)}


def norms(hr: Images, sigma: float = 15.0) -> dict[str, float]:
    """|J| of z - N(z) and of N, where it is applied: at noisy images, and at one colour."""
    prior, level, zero = ConvexRidge.shipped(), jnp.full(1, sigma), jnp.zeros(())
    clean = hr[:1, :64, :64]
    noisy = clean + np.random.default_rng(4).normal(0, sigma, clean.shape).astype(np.float32)
    taken = {"N": lambda z: prior(z, level, zero), "z - N": lambda z: z - prior(z, level, zero)}
    points = {"noisy": jnp.asarray(noisy), "flat": jnp.full((1, 64, 64, 3), 128.0)}
    norm = jax.jit(analysis.spectral_norm, static_argnums=0)
    return {
        f"{name}, {where}": float(norm(f, z, jax.random.key(0)))
        for name, f in taken.items()
        for where, z in points.items()
    }


def main(measured: Measurement) -> None:
    """Measure all of it."""
    hr = crops(measured.kodak, measured.images)
    print(harness.environment(*PACKAGES), flush=True)
    names = ["noisy", *KINDS, "non-local means", "ours"]
    table, rows = harness.Table("denoising, sigma", *names), []
    for sigma in measured.levels:
        rows.append(denoising(hr, sigma))
        table.row(f"{sigma:g}", *(f"{rows[-1][name]:.2f}" for name in names))
    deblurred = deblurring(hr)
    names = ["blurred", *KINDS, "ours"]
    table = harness.Table("deblurring, pixels, sigma", *names, "iterations", "residual")
    cells = [f"{deblurred[name]:.2f}" for name in names]
    cells += [deblurred["iterations"], f"{deblurred['residual']:.1e}"]
    table.row(f"{BLUR:g}, {NOISE:g}", *cells)
    converged = convergence(hr)
    table = harness.Table("denoising, sigma 15", "iterations to 1e-4", "residual after 200")
    for row in converged:
        table.row(row["way"], row["iterations"], f"{row['residual']:.1e}")
    with jax.enable_x64(True):
        errors = gradients(hr)
    table = harness.Table("implicit gradient beside 300 unrolled iterations", "relative error")
    for name, error in errors.items():
        table.row(name, f"{error:.1e}")
    jacobians = norms(hr)
    table = harness.Table("Jacobian", "norm")
    for name, norm in jacobians.items():
        table.row(name, f"{norm:.4f}")
    found = {
        "denoising": rows,
        "deblurring": deblurred,
        "convergence": converged,
        "gradients": errors,
        "norms": jacobians,
    }
    harness.write_json(measured.json, found, *PACKAGES)


if __name__ == "__main__":
    main(tyro.cli(Measurement))
