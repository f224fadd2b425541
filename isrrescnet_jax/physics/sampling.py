"""Interpolation: the reference's two samplers and MATLAB's imresize, axis by axis.

Everything that depends on sizes alone (positions, indices, weights) is computed once with NumPy.
Applied to an image it is a constant of the program, or an input where one program serves images of
many sizes (see `solver.canvas`).
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from .axis import Band, Taps, sparse


def resize(
    x: Inexact[Array, "n h w c"], rows: Taps | Band, columns: Taps | Band
) -> Inexact[Array, "n H W c"]:
    """Separable interpolation; first along the axis that leaves less to do."""
    if rows.outputs <= rows.inputs:
        return columns(rows(x, 1), 2)
    return rows(columns(x, 2), 1)


@functools.lru_cache(maxsize=256)
def window_taps(n: int, before: int, length: int, zeros: bool, scale: int) -> Taps:
    """Pixels -before ... length - before of an axis of n; beyond it edge pixels again, or zeros."""
    index = np.arange(-before, length - before)[:, None]
    inside = (index >= 0) & (index < n) if zeros else np.ones(index.shape)
    return sparse(index, inside.astype(float), n, (scale, scale))


@functools.lru_cache(maxsize=256)
def centre_band(n: int, scale: int) -> Band:
    """Linear interpolation at the centres s i + (s - 1) / 2 of n large pixels."""
    weight = np.zeros((n, scale))
    weight[:, (scale - 1) // 2] += 0.5
    weight[:, scale // 2] += 0.5
    return Band(weight, scale)


def _keys(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2 (IEEE TASSP 29(6), 1981)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


# --- the reference's bilinear sampler -----------------------------------------------------------


@functools.lru_cache(maxsize=256)
def bilinear_taps(n_in: int, n_out: int, dtype: str = "float32") -> Taps:
    """The reference's bilinear sampler: output i at i n_in / (n_out - 1) - 1/2, zero outside.

    That is `grid_sample` without aligned corners on a grid made for aligned ones; the first and
    last samples fall half a pixel outside, which darkens the border. Positions are computed in
    `dtype`, in the reference's order of operations. A single output, where the reference divides
    by zero, samples the centre.
    """
    real = np.dtype(dtype).type
    if n_out == 1:
        position = np.array([(n_in - 1) / 2], real)
    else:
        grid = np.arange(n_out, dtype=real) / real(n_out - 1) * real(2) - real(1)
        position = ((grid + real(1)) * real(n_in) - real(1)) / real(2)
    left = np.floor(position)
    fraction = position - left
    index = left.astype(np.int64)[:, None] + np.arange(2)
    weight = np.stack([1 - fraction, fraction], axis=1)
    inside = (index >= 0) & (index < n_in)
    rate = (n_in // n_out, 1) if n_in > n_out else (1, n_out // n_in)
    return sparse(index, np.where(inside, weight, 0), n_in, rate)


# --- the reference's bicubic sampler ------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def bicubic_weights(n: int, scale: int, dtype: str) -> np.ndarray:
    """Weights (n, scale, 4) of output scale * i + p at position (scale * i + p) / scale - i.

    Positions come from `linspace(0, n, scale n + 1)` as PyTorch computes it in `dtype`: the first
    half from the start, the second half back from the end. Where rounding puts a position just
    below an integer the fraction is a tiny negative number; the spline is smooth there.
    """
    real = np.dtype(dtype).type
    count = scale * n + 1
    i = np.arange(scale * n)
    step = real(n) / real(scale * n)
    from_start = step * i.astype(real)
    from_end = real(n) - step * (count - 1 - i).astype(real)
    position = np.where(i < count // 2, from_start, from_end)
    fraction = (position - (i // scale).astype(real)).reshape(n, scale)
    return _keys(fraction[..., None] - np.arange(-1, 3, dtype=real)).astype(real)


def bicubic_upsample(
    y: Inexact[Array, "n h w c"],
    rows: tuple[Taps, Float[Array | np.ndarray, "h s 4"]],
    columns: tuple[Taps, Float[Array | np.ndarray, "w s 4"]],
) -> Inexact[Array, "n H W c"]:
    """The reference's bicubic interpolation by an integer factor, its defect included.

    With (r, fr) = divmod of row i's position i / s by 1, and (q, fq) of column j's:

        out[i, j] = sum_{a, b} c_a(fq) c_b(fr) in[r + a, q + b],     a, b in {-1, 0, 1, 2}

    The two fractions are swapped: rows are weighted with the column's and columns with the row's.
    The weights of the official checkpoints were trained with this. Indices are clamped.

    Args:
        rows, columns: `window_taps` by 1 before and 2 behind, and `bicubic_weights`.
    """
    (above, by_row), (beside, by_column) = rows, columns
    by_row, by_column = (jnp.asarray(w, y.dtype) for w in (by_row, by_column))
    n, h, w, c = y.shape
    s, padded = by_row.shape[1], beside(above(y, 1), 2)
    out: Any = 0.0
    for b in range(4):
        near = padded[:, :, b : b + w]
        products = (near[:, a : a + h, :, None] * by_column[:, :, a, None] for a in range(4))
        mixed = functools.reduce(jnp.add, products)
        # (n, h, 1, w, s, c) by (h, s, 1, 1, 1)
        out = out + mixed[:, :, None] * by_row[:, :, b, None, None, None]
    return out.reshape(n, h * s, w * s, c)


# --- MATLAB's imresize --------------------------------------------------------------------------


def check_border(border: str) -> str:
    """`border`, or ValueError."""
    if border not in ("symmetric", "replicate"):
        raise ValueError(f"border must be 'symmetric' or 'replicate', not {border!r}")
    return border


@functools.lru_cache(maxsize=256)
def imresize_taps(n_in: int, n_out: int, border: str = "symmetric") -> Taps:
    """One axis of MATLAB's `imresize(..., "bicubic")`: pixel-centred, antialiased when reducing.

    Output i is centred at (i + 1/2) n_in / n_out - 1/2; when reducing, the kernel is stretched by
    n_in / n_out. Weights are normalised to sum to one.

    Args:
        n_in, n_out: lengths of the axis before and after.
        border: "symmetric" mirrors the image about its edge, the edge pixel included, as MATLAB
            does; "replicate" repeats the edge pixel.
    """
    check_border(border)
    ratio = n_out / n_in
    stretch = min(ratio, 1.0)
    width = 4 / stretch
    centre = (np.arange(n_out) + 0.5) / ratio - 0.5
    left = np.floor(centre - width / 2).astype(np.int64)
    index = left[:, None] + np.arange(math.ceil(width) + 2)
    weight = _keys(stretch * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.any(weight != 0, axis=0)
    index, weight = index[:, used], weight[:, used]
    if border == "replicate":
        index = np.clip(index, 0, n_in - 1)
    else:
        index = index % (2 * n_in)
        index = np.where(index < n_in, index, 2 * n_in - 1 - index)
    rate = (n_in // n_out, 1) if n_in > n_out else (1, n_out // n_in)
    return sparse(index, weight, n_in, rate)


@functools.lru_cache(maxsize=256)
def imresize_band(n: int, scale: int, border: str = "symmetric", enlarge: bool = False) -> Band:
    """One axis of `imresize` between n pixels and `scale` times as many.

    In both directions pixel i of the small image goes with the large image's pixels that are less
    than 2 s from its centre s i + (s - 1) / 2; what a border puts elsewhere comes closer still.
    """
    if enlarge:
        taps = imresize_taps(n, scale * n, border)
        index, weight = taps.back_index, taps.back_weight
    else:
        taps = imresize_taps(scale * n, n, border)
        index, weight = taps.index, taps.weight
    margin = 3 * scale // 2
    row = np.arange(n)[:, None]
    band = np.zeros((n, scale + 2 * margin))
    used = np.asarray(weight) != 0
    place = index - scale * row + margin
    np.add.at(band, (np.broadcast_to(row, used.shape)[used], place[used]), weight[used])
    return Band(band, scale, enlarge)
