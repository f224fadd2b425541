"""Interpolation: the reference's two samplers with their quirks, and MATLAB's imresize.

Everything that depends on sizes alone (positions, indices, weights) is computed once with NumPy;
what is traced are gathers or slices and a few multiply-adds on images of 1 or 3 channels. All also
take NumPy arrays, which stay on the host and are worked on in strips of rows.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

STRIP = 64  # rows of a NumPy array that are worked on at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Taps:
    """A sparse interpolation matrix for one axis: out[i] = sum_t weight[i, t] in[index[i, t]]."""

    index: np.ndarray  # (outputs, taps), integers
    weight: np.ndarray  # (outputs, taps)

    def __call__(self, x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
        """Apply along `axis`."""
        shape = [1] * x.ndim
        shape[axis] = -1
        out, take = 0.0, x.__array_namespace__().take
        for index, weight in zip(self.index.T, self.weight.T, strict=True):
            out = out + take(x, index, axis=axis) * weight.astype(x.dtype).reshape(shape)
        return out

    def transposed(self, y: Float[np.ndarray, "..."], axis: int, length: int) -> np.ndarray:
        """The transposed matrix along `axis`, to `length` elements; NumPy only."""
        import scipy.sparse  # a tenth of a second, which upscaling as usual does without

        row = np.repeat(np.arange(len(self.index)), self.index.shape[1])
        entries = (self.weight.astype(y.dtype).ravel(), (self.index.ravel(), row))
        matrix = scipy.sparse.csr_array(entries, shape=(length, len(self.index)))
        first = np.moveaxis(y, axis, 0)
        x = matrix @ first.reshape(len(first), -1)
        return np.moveaxis(x.reshape(length, *first.shape[1:]), 0, axis)


def _in_strips(work: Callable[[int, int], None], length: int, step: int) -> None:
    """work(first, last) over [0, length), on all cores: NumPy lets other threads run."""
    firsts = range(0, length, step)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda first: work(first, min(first + step, length)), firsts))


def resize(x: Float[Array, "n h w c"], rows: Taps, columns: Taps) -> Float[Array, "n H W c"]:
    """Separable interpolation, rows first."""
    if isinstance(x, np.ndarray):
        out = np.empty((len(x), len(rows.index), len(columns.index), x.shape[3]), x.dtype)

        def strip(first, last):
            taps = Taps(rows.index[first:last], rows.weight[first:last])
            out[:, first:last] = columns(taps(x, 1), 2)

        _in_strips(strip, out.shape[1], STRIP)
        return out
    return columns(rows(x, 1), 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Reduction:
    """Reduction of an axis by an integer factor s, the same weights for every output:

        out[i] = sum_(b, p) weight[b, p] in[s (i + b - B) + p],    b = 0 ... 2 B,  p = 0 ... s - 1

    Both ways are sums of slices, so that neither needs a gather or a scatter.

    Attributes:
        weight: (2 B + 1, s).
        border: how the axis goes on beyond its ends, as in `imresize_taps`.
    """

    weight: np.ndarray
    border: str = "symmetric"

    @property
    def scale(self) -> int:
        """s."""
        return self.weight.shape[1]

    @property
    def margin(self) -> int:
        """Inputs beyond the ends of the axis that are seen, B s."""
        return len(self.weight) // 2 * self.scale

    def _index(self, length: int, margin: int) -> np.ndarray:
        """Index into an axis with a margin at each end."""
        mode = "symmetric" if self.border == "symmetric" else "edge"
        return np.pad(np.arange(length), margin, mode=mode)

    def gather(self, x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
        """Along an axis of s (n + 2 B) inputs, its margins included, to n outputs."""
        s, n = self.scale, x.shape[axis] // self.scale - len(self.weight) + 1
        terms, before = [], (slice(None),) * axis
        for (b, p), weight in np.ndenumerate(self.weight.astype(x.dtype)):
            if weight:
                first = s * b + p
                terms.append(x[(*before, slice(first, first + s * (n - 1) + 1, s))] * weight)
        return sum(terms[1:], terms[0])

    def spread(self, y: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
        """The other way: s n values of what the n + 2 B along an axis weigh in on them.

        Of an axis that zeros surround, 2 B at each end, this is the transpose of `gather`.
        """
        blocks, before = len(self.weight), (slice(None),) * axis
        n, phases, xp = y.shape[axis] - blocks + 1, [], y.__array_namespace__()
        for weights in self.weight.T.astype(y.dtype):
            terms = [
                y[(*before, slice(blocks - 1 - b, blocks - 1 - b + n))] * weight
                for b, weight in enumerate(weights)
                if weight
            ]
            terms = terms or [xp.zeros_like(y[(*before, slice(0, n))])]
            phases.append(sum(terms[1:], terms[0]))
        out = xp.stack(phases, axis + 1)
        return out.reshape(*y.shape[:axis], -1, *y.shape[axis + 1 :])

    def surrounded(self, y: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
        """y with the zeros of `spread`."""
        pad = [(0, 0)] * y.ndim
        pad[axis] = (len(self.weight) - 1,) * 2
        return y.__array_namespace__().pad(y, pad)

    def extend(self, x: Float[Array, "..."], axis: int, margin: int) -> Float[Array, "..."]:
        """An axis with a margin at each end."""
        if not margin:
            return x
        pad = [(0, 0)] * x.ndim
        pad[axis] = (margin, margin)
        mode = "symmetric" if self.border == "symmetric" else "edge"
        return x.__array_namespace__().pad(x, pad, mode=mode)

    def fold(self, x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
        """The transpose of `extend`: margins are added to what they repeat."""
        m = self.margin
        if not m:
            return x
        length, xp = x.shape[axis] - 2 * m, x.__array_namespace__()
        index, near = self._index(length, m), min(m, length)
        before = (slice(None),) * axis
        out = x[(*before, slice(m, m + length))]
        ends = ((index[:m], slice(0, m), 0), (index[-m:], slice(m + length, None), length - near))
        for target, margin, first in ends:
            # (near, m), which pixel of the margin repeats which of the axis
            which = (target == first + np.arange(near)[:, None]).astype(x.dtype)
            added = xp.moveaxis(xp.tensordot(which, x[(*before, margin)], (1, axis)), 0, axis)
            part = (*before, slice(first, first + near))
            if isinstance(x, np.ndarray):
                out[part] += added
            else:
                out = out.at[part].add(added)
        return out


@functools.lru_cache
def bicubic_reduction(scale: int, border: str = "symmetric") -> Reduction:
    """MATLAB's antialiased bicubic reduction by an integer factor (see `imresize_taps`)."""
    blocks = 2
    offset = np.arange(-blocks * scale, (blocks + 1) * scale)
    weight = _keys((offset - (scale - 1) / 2) / scale)
    return Reduction((weight / weight.sum()).reshape(-1, scale), _known(border))


@functools.lru_cache
def bilinear_reduction(scale: int) -> Reduction:
    """Linear interpolation at the centres s i + (s - 1) / 2 of the large pixels."""
    weight = np.zeros((1, scale))
    weight[0, (scale - 1) // 2 : scale // 2 + 1] = 1
    return Reduction(weight / weight.sum())


def reduce(x: Float[Array, "n h w c"], by: Reduction) -> Float[Array, "n h/s w/s c"]:
    """Rows, then columns."""
    s, m = by.scale, by.margin
    if not isinstance(x, np.ndarray):
        for axis in (1, 2):
            x = by.gather(by.extend(x, axis, m), axis)
        return x

    def strip(first, last):
        part = _rows(x, by, m, s * first, s * last)
        out[:, first:last] = by.gather(by.extend(by.gather(part, 1), 2, m), 2)

    n, h, w, c = x.shape
    out = np.empty((n, h // s, w // s, c), x.dtype)
    _in_strips(strip, h // s, STRIP)
    return out


def reduce_adjoint(y: Float[Array, "n h w c"], by: Reduction) -> Float[Array, "n s*h s*w c"]:
    """The transpose of `reduce`: columns, then rows."""
    if not isinstance(y, np.ndarray):
        for axis in (2, 1):
            y = by.fold(by.spread(by.surrounded(y, axis), axis), axis)
        return y
    s, blocks = by.scale, len(by.weight)
    wide = by.surrounded(by.fold(by.spread(by.surrounded(y, 2), 2), 2), 1)

    def strip(first, last):  # of the h + 2 B groups of s rows
        out[:, first * s : last * s] = by.spread(wide[:, first : last + blocks - 1], 1)

    out = np.empty((len(y), (wide.shape[1] - blocks + 1) * s, *wide.shape[2:]), y.dtype)
    _in_strips(strip, wide.shape[1] - blocks + 1, STRIP // s)
    return by.fold(out, 1)


def interpolate(y: Float[Array, "n h w c"], by: Reduction) -> Float[Array, "n s*h s*w c"]:
    """The interpolation by s whose kernel is that of the reduction: columns, then rows.

    s^2 D^T but for the borders, where y goes on as `by` says; for `bicubic_reduction` it is
    `imresize(y, s)`.
    """
    s, b = by.scale, len(by.weight) // 2
    by = dataclasses.replace(by, weight=by.weight * s)
    if not isinstance(y, np.ndarray):
        for axis in (2, 1):
            y = by.spread(by.extend(y, axis, b), axis)
        return y

    def strip(first, last):
        wide = by.spread(by.extend(_rows(y, by, b, first, last), 2, b), 2)
        out[:, first * s : last * s] = by.spread(wide, 1)

    n, h, w, c = y.shape
    out = np.empty((n, h * s, w * s, c), y.dtype)
    _in_strips(strip, h, STRIP // s)
    return out


def _rows(x: np.ndarray, by: Reduction, margin: int, first: int, last: int) -> np.ndarray:
    """Rows first to last of x with a margin; a view where it lies inside."""
    index = by._index(x.shape[1], margin)[first : last + 2 * margin]
    if margin <= first and last + margin <= x.shape[1]:
        return x[:, index[0] : index[-1] + 1]
    return x[:, index]


def resize_adjoint(
    y: Float[np.ndarray, "n H W c"], rows: Taps, columns: Taps, h: int, w: int
) -> Float[np.ndarray, "n h w c"]:
    """The adjoint of `resize` of images of h x w pixels; NumPy only, JAX derives its own."""
    return np.ascontiguousarray(rows.transposed(columns.transposed(y, 2, w), 1, h))


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
    return Taps(np.clip(index, 0, n_in - 1), np.where(inside, weight, 0))


# --- the reference's bicubic sampler ------------------------------------------------------------


def _cubic_weights(t: np.ndarray) -> np.ndarray:
    """Catmull-Rom weights (a = -1/2) of the neighbours -1, 0, 1, 2 at fraction t: (4, ...)."""
    return np.stack(
        [
            ((-0.5 * t + 1) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((-1.5 * t + 2) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )


@functools.lru_cache(maxsize=256)
def _bicubic_weights(n: int, scale: int, dtype: str) -> np.ndarray:
    """Weights (4, n, scale) of output scale * i + p at position (scale * i + p) / scale - i.

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
    return _cubic_weights(fraction).astype(real)


def bicubic_upsample(y: Float[Array, "n h w c"], scale: int) -> Float[Array, "n H W c"]:
    """The reference's bicubic interpolation by an integer factor, its defect included.

    With (r, fr) = divmod of row i's position i / s by 1, and (q, fq) of column j's:

        out[i, j] = sum_{a, b} c_a(fq) c_b(fr) in[r + a, q + b],     a, b in {-1, 0, 1, 2}

    The two fractions are swapped: rows are weighted with the column's and columns with the row's.
    The weights of the official checkpoints were trained with this. Indices are clamped.
    """
    n, h, w, c = y.shape
    real = jnp.dtype(y.dtype).name
    by_column = _bicubic_weights(w, scale, real)  # (4, w, s): weights of the row offset
    by_row = _bicubic_weights(h, scale, real)  # (4, h, s): weights of the column offset
    pad = y.__array_namespace__().pad
    padded = pad(y, ((0, 0), (1, 2), (1, 2), (0, 0)), mode="edge")

    def rows(first, last):
        out = 0.0
        for b in range(4):
            columns = padded[:, first : last + 3, b : b + w]
            mixed = sum(
                columns[:, a : a + last - first, :, None] * by_column[a][:, :, None]
                for a in range(4)
            )  # (n, rows, w, s, c)
            # (n, rows, s, w, s, c)
            out = out + mixed[:, :, None] * by_row[b, first:last][:, :, None, None, None]
        return out.reshape(n, (last - first) * scale, w * scale, c)

    if not isinstance(y, np.ndarray):
        return rows(0, h)
    out = np.empty((n, h * scale, w * scale, c), y.dtype)

    def strip(first, last):
        out[:, first * scale : last * scale] = rows(first, last)

    _in_strips(strip, h, STRIP // scale)
    return out


# --- MATLAB's imresize --------------------------------------------------------------------------


def _keys(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2 (IEEE TASSP 29(6), 1981)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def _known(border: str) -> str:
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
    _known(border)
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
    return Taps(index, weight)


def imresize(
    x: Float[Array, "n h w c"], scale: float, border: str = "symmetric"
) -> Float[Array, "n H W c"]:
    """Bicubic resizing as MATLAB's `imresize` does it on real-valued images (no rounding)."""
    h, w = x.shape[1:3]
    new_h, new_w = math.ceil(h * scale), math.ceil(w * scale)
    return resize(x, imresize_taps(h, new_h, border), imresize_taps(w, new_w, border))
