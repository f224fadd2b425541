"""Noise level of an image from its finest wavelet coefficients."""

import functools
import operator

import jax
import numpy as np
from jaxtyping import Array, Float, Inexact

AnyArray = Array | np.ndarray

# High-pass decomposition filter of the Daubechies wavelet with 7 vanishing moments (PyWavelets'
# `db7`, dec_hi).
DB7_HIGH_PASS = np.array(
    [
        -0.07785205408506236,
        0.39653931948230575,
        -0.7291320908465551,
        0.4697822874053586,
        0.14390600392910627,
        -0.22403618499416572,
        -0.07130921926705004,
        0.0806126091510659,
        0.03802993693503463,
        -0.01657454163101562,
        -0.012550998556013784,
        0.00042957797300470274,
        0.0018016407039998328,
        0.0003537138000010399,
    ]
)


def _high_pass(x: Float[AnyArray, "n _ _ c"], axis: int) -> Float[AnyArray, "n _ _ c"]:
    """Reflect-pad by 7, correlate with the filter, keep every second sample: n -> n // 2 + 1."""
    taps = len(DB7_HIGH_PASS)
    outputs = x.shape[axis] // 2 + 1
    pad = [(0, 0)] * x.ndim
    pad[axis] = (taps // 2, taps // 2)
    x = x.__array_namespace__().pad(x, pad, mode="reflect")

    def samples(t):
        return (slice(None),) * axis + (slice(t, t + 2 * outputs - 1, 2),)

    weights = DB7_HIGH_PASS.astype(x.dtype)
    return functools.reduce(
        operator.add, (x[samples(t)] * weight for t, weight in enumerate(weights))
    )


def noise_level(
    y: Inexact[AnyArray, "n h w c"], *, differentiable: bool = False
) -> Float[AnyArray, " n"]:
    """Robust standard deviation of white noise, one per image, in the image's units.

        sigma = mean over channels of median(|d|) / 0.6745

    with d the diagonal db7 detail coefficients and the lower of the two middle values as the
    median of an even count (Donoho & Johnstone, Biometrika 81(3), 1994). Sides under 8 pixels,
    where the reference fails, are reflected as often as needed; an image that is one pixel high or
    wide has no detail and gives 0. Of a complex image it is the level of its parts, real and
    imaginary.

    Args:
        y: images; NumPy arrays are computed on the host and give one.
        differentiable: let gradients flow through it, to the pixels whose coefficient is the
            median; by default none do, as in the reference.

    Example:
        >>> import isrrescnet_jax as isr, jax
        >>> noise = 5 * jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
        >>> 4.5 < float(isr.noise_level(128 + noise)[0]) < 5.5
        True
    """
    xp = y.__array_namespace__()
    if xp.iscomplexobj(y):
        y = xp.concatenate([xp.real(y), xp.imag(y)], axis=3)
    if xp is not np and not differentiable:
        y = jax.lax.stop_gradient(y)
    detail = _high_pass(_high_pass(y, 1), 2)
    n, c = y.shape[0], y.shape[3]
    magnitude = xp.sort(xp.abs(detail).reshape(n, -1, c), axis=1)
    if 1 in y.shape[1:3]:  # the filter's taps sum to rounding error, not to zero
        return xp.zeros(n, y.dtype)
    middle = (magnitude.shape[1] - 1) // 2
    median = magnitude[:, middle : middle + 1].reshape(n, c)  # a symbolic size can slice, no more
    return xp.mean(median / 0.6745, axis=1)
