"""Convolutions of an image that fills a part of an array, whose size is an input.

One compiled program then serves images of all sizes: the window is an array of rows and columns,
with the image from the third row and column on, and what lies outside of it has no meaning. On a
CPU it is gone through in strips of rows, elsewhere `surrounded` makes it an image like any other.
Nothing here is differentiated.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from . import winograd
from .conv import conv
from .prelu import prelu

Size = tuple[Int[ArrayLike, ""], Int[ArrayLike, ""]]  # height and width of the image

MARGIN = 2  # pixels around the image in a window, what the 5x5 convolutions need
PIXELS = 8192  # of a strip at least: with fewer, starting operations takes longer than they do


def strip_rows(rows: int, columns: int) -> int:
    """Height of the strips in which a CPU passes over a window.

    A strip stays in the cache from one operation to the next, and those below the image are left
    out. Whole strips fill what the margins leave.
    """
    room = rows - 2 * MARGIN
    heights = [h for h in range(winograd.ROWS, room, winograd.ROWS) if room % h == 0]
    return next((h for h in heights if h * columns >= PIXELS), room)


def inside(
    x: Float[Array, "n h w i"], size: Size, top: Int[ArrayLike, ""] = 0
) -> Float[Array, "n h w i"]:
    """x, whose first row is row `top` of the window, but zero outside of the image."""
    for axis, (first, last) in enumerate(_extent(size), start=1):
        index = lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), axis)
        index = index + top if axis == 1 else index
        x = jnp.where((index >= first) & (index <= last), x, 0)
    return x


def _extent(size: Size) -> list[tuple[Any, Any]]:
    """First and last row, first and last column of the image in a window."""
    return [(MARGIN, MARGIN + length - 1) for length in size]


def surrounded(x: Float[Array, "n h w i"], size: Size, width: int) -> Float[Array, "n h w i"]:
    """x with the image reflected around itself, `width` pixels wide; the edge is not repeated.

    For a GPU a gather, which XLA fuses with what comes before into one pass that reads x once, also
    where each image of a batch has a size of its own; elsewhere lines that are chosen.
    """
    gathered, chosen = (functools.partial(f, width=width) for f in (_gathered, _chosen))
    return lax.platform_dependent(x, size, cuda=gathered, rocm=gathered, default=chosen)


def _gathered(x: Array, size: Size, width: int) -> Array:
    for axis, (first, last) in enumerate(_extent(size), start=1):
        index = jnp.arange(x.shape[axis])
        index = jnp.where(index < first, 2 * first - index, index)
        index = jnp.where(index > last, 2 * last - index, index)
        x = jnp.take(x, index, axis=axis, mode="clip")
    return x


def _chosen(x: Array, size: Size, width: int) -> Array:
    for axis, (first, last) in enumerate(_extent(size), start=1):
        index = lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), axis)
        out = x
        for m in range(1, width + 1):
            for target, source in ((first - m, first + m), (last + m, last - m)):
                out = jnp.where(index == target, lax.dynamic_slice_in_dim(x, source, 1, axis), out)
        x = out
    return x


def in_strips(
    into: Float[Array, "n h w o"],
    size: Size,
    rows: Callable[[Any, Any, int], Float[Array, "n s w o"]],
    before: Sequence[Array] = (),
) -> tuple[Float[Array, "n h w o"], list[Array]]:
    """Write rows(into, first, count) over `into`, for all rows of the image, in strips.

    Strips are written one after the other: `rows` may read those of `into` that it returns.

    Args:
        before: what is computed from `into` before it is overwritten; returned as it is.
    """

    def strip(into, first, count):
        return lax.dynamic_update_slice_in_dim(into, rows(into, first, count), first, 1)

    count = strip_rows(*into.shape[1:3])

    def one(i, carry):
        into, before = carry
        # As XLA cannot know that it stays the same, it does not put off computing it, for which it
        # would keep a copy of `into`.
        before = [jnp.where(i < 0, 0, a) for a in before]
        return strip(into, MARGIN + i * count, count), before

    number = (jnp.asarray(size[0]) + count - 1) // count
    return lax.fori_loop(0, number, one, (into, list(before)))


def conv_window(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "k k i o"],
    bias: Float[Array, " o"],
    size: Size,
    dtype: Any,
    border: Literal["reflect", "zero"] = "reflect",
    precision: Any = None,
) -> Float[Array, "n h w o"]:
    """A convolution with bias of the image of `size` in x; zero where nothing is computed."""
    pad = len(kernel) // 2
    if border == "reflect":
        x = reflect_borders(x, size, pad)

    def rows(_: Any, first: Any, count: int) -> Array:
        seen = lax.dynamic_slice_in_dim(x, first - pad, count + 2 * pad, 1)
        seen = inside(seen, size, first - pad) if border == "zero" else seen
        return (conv(seen, kernel, ((0, 0), (pad, pad)), precision) + bias).astype(dtype)

    return in_strips(jnp.zeros((*x.shape[:3], len(bias)), dtype), size, rows)[0]


# Traced once for all convolutions of a shape: half of the time that tracing takes.
@functools.partial(jax.jit, static_argnames="precision", inline=True)
def conv3x3_reflect_window(
    x: Float[Array, "n h w i"],
    slopes: Float[Array, " i"],
    kernel: Float[Array, "3 3 i o"],
    bias: Float[Array, " o"],
    size: Size,
    into: Float[Array, "n h w o"],
    factor: Float[ArrayLike, ""] | None = None,
    precision: Any = None,
) -> Float[Array, "n h w o"]:
    """conv3x3_reflect(prelu(x)) + bias + factor * into, of the image of `size` in x.

    Only the outermost rows and columns differ from those of the zero-padded convolution. They are
    computed by small products, from two lines each, as the third line that they see is the
    reflection of the second.

    Args:
        into: an array to write the result to.
        factor: none is 0, without reading `into`.
    """
    extent: dict[int, tuple[Any, Any]] = dict(zip((1, 2), _extent(size), strict=True))
    lines, places = [], []
    for axis, weights in ((1, kernel), (2, kernel.swapaxes(0, 1))):
        along, length = extent[3 - axis], x.shape[3 - axis]
        weights = jnp.concatenate([weights[1], weights[0] + weights[2]])
        for edge, inward in zip(extent[axis], (1, -1), strict=True):
            seen = []
            for index in (edge, edge + inward):
                line = jnp.squeeze(lax.dynamic_slice_in_dim(x, index, 1, axis), axis)
                line = _reflected(jnp.pad(prelu(line, slopes), ((0, 0), (1, 1), (0, 0))), along)
                seen += [line[:, t : t + length] for t in range(3)]
            seen = jnp.concatenate(seen, axis=-1)
            line = jnp.dot(seen, weights.reshape(seen.shape[-1], -1), precision=precision) + bias
            line = jnp.expand_dims(line, axis)
            if factor is not None:
                line = line + factor * lax.dynamic_slice_in_dim(into, edge, 1, axis)
            lines.append(line)
            places.append((edge, axis))

    def rows(into: Array, first: Any, count: int) -> Array:
        # What lies around the image reaches only the outermost rows and columns.
        seen = prelu(lax.dynamic_slice_in_dim(x, first - 1, count + 2, 1), slopes)
        out = conv(seen, kernel, ((0, 0), (1, 1)), precision) + bias
        if factor is None:
            return out
        return out + factor * lax.dynamic_slice_in_dim(into, first, count, 1)

    out, lines = in_strips(into, size, rows, lines)
    for line, place in zip(lines, places, strict=True):
        out = lax.dynamic_update_slice_in_dim(out, line, *place)
    return out


def _reflected(line: Float[Array, "n l i"], ends: tuple[Any, Any]) -> Float[Array, "n l i"]:
    """A line with one more pixel at each end; `ends` are the first and last without these."""
    for target, source in ((ends[0], ends[0] + 2), (ends[1] + 2, ends[1])):
        pixel = lax.dynamic_slice_in_dim(line, source, 1, 1)
        line = lax.dynamic_update_slice_in_dim(line, pixel, target, 1)
    return line


def reflect_borders(x: Float[Array, "n H W i"], size: Size, width: int) -> Float[Array, "n H W i"]:
    """Reflect the image of `size` in x by `width` pixels, 1 or 2.

    What surrounds it is overwritten; the edge pixel is not repeated.
    """
    for axis, (first, last) in enumerate(_extent(size), start=1):
        for m in range(1, width + 1):
            before, after = (lax.dynamic_slice_in_dim(x, i, 1, axis) for i in (first + m, last - m))
            x = lax.dynamic_update_slice_in_dim(x, before, first - m, axis)
            x = lax.dynamic_update_slice_in_dim(x, after, last + m, axis)
    return x
