"""Convolutions of an image reflected at its borders, where it fills an array or a part of one."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .bilinear import Way, bilinear
from .conv import conv

Size = tuple[Array, Array] | None

MARGIN = 2  # pixels around the image in a window, what the 5x5 convolutions need


def _extent(size: tuple[Array, Array]) -> list[tuple[Any, Any]]:
    """First and last row, first and last column of the image in a window."""
    return [(MARGIN, MARGIN + length - 1) for length in size]


def inside(x: Float[Array, "n h w i"], size: Size) -> Float[Array, "n h w i"]:
    """x, but zero outside of the image of `size`."""
    if size is None:
        return x
    for axis, (first, last) in enumerate(_extent(size), start=1):
        index = lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), axis)
        x = jnp.where((index >= first) & (index <= last), x, 0)
    return x


def _borders(x: Array, kernel: Array, precision: Any) -> tuple[list[Array], list[Array]]:
    """What the reflection adds to the first and last row, and to the first and last column."""

    def border(line, row_kernel):  # (n, l + 2, i) x (3, i, o) -> (n, l, o)
        length = line.shape[1] - 2
        shifts = jnp.concatenate([line[:, t : t + length] for t in range(3)], axis=-1)
        return jnp.dot(shifts, row_kernel.reshape(-1, row_kernel.shape[-1]), precision=precision)

    def reflected(line):
        return jnp.pad(line, ((0, 0), (1, 1), (0, 0)), mode="reflect")

    def zero_padded(line):  # the corners belong to the rows
        return jnp.pad(line, ((0, 0), (1, 1), (0, 0)))

    rows = [border(reflected(x[:, t]), kernel[i]) for t, i in ((1, 0), (-2, 2))]
    columns = [border(zero_padded(x[:, :, t]), kernel[:, j]) for t, j in ((1, 0), (-2, 2))]
    return rows, columns


def reflect_in_place(x: Array, kernel: Array, *, precision: Any) -> Array:
    """`conv3x3_reflect` on a CPU."""
    rows, columns = _borders(x, kernel, precision)
    out = conv(x, kernel, 1, precision)
    out = out.at[:, 0].add(rows[0]).at[:, -1].add(rows[1])
    return out.at[:, :, 0].add(columns[0]).at[:, :, -1].add(columns[1])


def reflect_in_one_pass(x: Array, kernel: Array, *, precision: Any) -> Array:
    """`conv3x3_reflect` on a TPU: the sums fuse into one pass, with the bias.

    By the estimates of its compiler a training step takes a fifth less than with those in place.
    """
    out = conv(x, kernel, 1, precision)
    for axis, lines in zip((1, 2), _borders(x, kernel, precision), strict=True):
        for line, end in zip(lines, (0, -1), strict=True):
            out = out + _line(jnp.expand_dims(line, axis), axis, end, out.shape[axis])
    return out


def reflect_by_padding(x: Array, kernel: Array, *, precision: Any) -> Array:
    """`conv3x3_reflect` on a GPU."""
    # A sum: put together from pieces (`jnp.concatenate`), XLA made of it and PReLU a loop that
    # took five times what reading and writing do, and a training step on an H200 7 % more.
    for axis in (1, 2):
        length = x.shape[axis]
        lines = [lax.slice_in_dim(x, t, t + 1, axis=axis) for t in (1, length - 2)]
        x = jnp.pad(x, [(int(a == axis),) * 2 for a in range(4)])
        for line, end in zip(lines, (0, -1), strict=True):
            x = x + _line(line, axis, end, length + 2)
    return conv(x, kernel, 0, precision)


def _line(line: Float[Array, "n h w i"], axis: int, end: int, length: int) -> Array:
    """A line at the beginning (end = 0) or the end (-1) of zeros, `length` long along `axis`."""
    around = (0, length - 1) if end == 0 else (length - 1, 0)
    return jnp.pad(line, [around if a == axis else (0, 0) for a in range(4)])


_correlate_reflect = bilinear(
    "isr_conv3x3_reflect",
    Way(reflect_in_one_pass),
    cpu=Way(reflect_in_place),
    cuda=Way(reflect_by_padding),
    rocm=Way(reflect_by_padding),
)


def conv3x3_reflect(
    x: Float[Array | np.ndarray, "n h w i"],
    kernel: Float[Array | np.ndarray, "3 3 i o"],
    precision: Any = None,
) -> Float[Array, "n h w o"]:
    """3x3 correlation of the image reflected at its borders; sides of at least 2.

    On a GPU the image is padded by reflection, in the pass over it that PReLU needs anyhow, and the
    bias joins the convolution. Elsewhere that copy is slow, and the same comes of the zero-padded
    convolution: the reflected row above the image is row 1, it feeds output row 0 alone, through
    kernel row 0, and so on around the image. These small products are added.
    """
    if precision is None:
        # Of the caller, not of lowering.
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return _correlate_reflect(x, kernel, shape=(*x.shape[:3], kernel.shape[3]), precision=precision)


# Traced once for all convolutions of a shape: half of the time that tracing takes.
@functools.partial(jax.jit, static_argnames="precision", inline=True)
def conv3x3_reflect_window(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "3 3 i o"],
    size: tuple[Array, Array],
    bias: Float[Array, " o"],
    identity: Float[Array, "n h w o"] | None = None,
    factor: Float[ArrayLike, ""] = 1.0,
    precision: Any = None,
) -> Float[Array, "n h w o"]:
    """`conv3x3_reflect` of an image of `size` that fills a part of x, + bias + factor identity.

    Only the outermost rows and columns of the result differ from those of the zero-padded
    convolution. They are computed by small products, from two lines each, as the third line that
    they see is the reflection of the second.

    Args:
        size: (h, w) of the image x[:, 2 : 2 + h, 2 : 2 + w], which may be traced: one compiled
            program then serves images of all sizes. x must be zero outside of it (see `inside`),
            and the result is of no meaning there.
        identity, factor: multiplied and added here and not behind, as XLA fuses nothing with an
            array that is written to in part: that would read and write all features once more.
    """
    factor = jnp.asarray(factor, x.dtype)
    extent: dict[int, tuple[Any, Any]] = dict(zip((1, 2), _extent(size), strict=True))
    lines = []
    for axis, rows in ((1, kernel), (2, kernel.swapaxes(0, 1))):
        along = extent[3 - axis]
        weights = jnp.concatenate([rows[1], rows[0] + rows[2]]).reshape(-1, kernel.shape[-1])
        if identity is not None:
            weights = jnp.concatenate([weights, factor * jnp.eye(len(bias), dtype=x.dtype)])
        for edge, inward in zip(extent[axis], (1, -1), strict=True):
            seen = []
            for index in (edge, edge + inward):
                line = jnp.squeeze(lax.dynamic_slice_in_dim(x, index, 1, axis), axis)
                line = _reflected(jnp.pad(line, ((0, 0), (1, 1), (0, 0))), along)
                seen += [line[:, t : t + x.shape[3 - axis]] for t in range(3)]
            if identity is not None:
                # In the product: added to it, a CPU takes 6 % longer for all of the network.
                line = lax.dynamic_slice_in_dim(identity, edge, 1, axis)
                seen.append(jnp.squeeze(line, axis))
            new = jnp.dot(jnp.concatenate(seen, axis=-1), weights, precision=precision) + bias
            lines.append((jnp.expand_dims(new, axis), edge, axis))
    out = conv(x, kernel, 1, precision) + bias
    if identity is not None:
        out = out + factor * identity
    for line in lines:
        # Written, not added to: XLA would copy all of `out` to read from it.
        out = lax.dynamic_update_slice_in_dim(out, *line)
    return out


def _reflected(line: Float[Array, "n l i"], ends: tuple[Any, Any]) -> Float[Array, "n l i"]:
    """A line with one more pixel at each end; `ends` are the first and last without these."""
    for target, source in ((ends[0], ends[0] + 2), (ends[1] + 2, ends[1])):
        pixel = lax.dynamic_slice_in_dim(line, source, 1, 1)
        line = lax.dynamic_update_slice_in_dim(line, pixel, target, 1)
    return line


def reflect_borders(
    x: Float[Array, "n H W i"], size: tuple[Array, Array], width: int
) -> Float[Array, "n H W i"]:
    """Reflect the image of `size` in x (see `conv3x3_reflect_window`) by `width` pixels, 1 or 2.

    What surrounds it is overwritten; the edge pixel is not repeated.
    """
    for axis, (first, last) in enumerate(_extent(size), start=1):
        for m in range(1, width + 1):
            before, after = (lax.dynamic_slice_in_dim(x, i, 1, axis) for i in (first + m, last - m))
            x = lax.dynamic_update_slice_in_dim(x, before, first - m, axis)
            x = lax.dynamic_update_slice_in_dim(x, after, last + m, axis)
    return x
