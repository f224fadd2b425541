"""Several images in one program: those of one size bucket, which is a canvas and its window.

An accelerator is hardly busy with a small image. What differs between images of a bucket are the
inputs of the program of `canvas.iterate`, so that many of them need nothing but an axis more.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Real

from . import memory as mem
from .canvas import Canvas, Laid, iterate
from .windows import Plan, Windows

PIXELS = 1 << 21  # of windows at once, which is as much as the largest image has


def bucket(plan: Plan) -> Any:
    """What images must have in common; None for one of several windows, busy enough by itself."""
    return None if len(plan.places) > 1 else (plan.turned, plan.window, plan.canvas)


def most(canvas: Canvas, plan: Plan, wanted: int | None) -> int:
    """How many images of a bucket go together: a power of two.

    On a CPU one, unless it is asked for more: batches make nothing faster there, and strips of rows
    below an image, which are left out otherwise, are computed.
    """
    if bucket(plan) is None or not hasattr(canvas.operator, "at"):
        return 1
    if wanted is None:
        wanted = 1 if canvas.strips else max(1, PIXELS // (plan.window[0] * plan.window[1]))
    rows, columns = plan.canvas
    each = mem.footprint(canvas.weights.config, plan.window, canvas.dtype, rows * columns)
    if canvas.memory is not None:
        wanted = min(wanted, max(1, canvas.memory // each))
    return 1 << (wanted.bit_length() - 1)


def together(
    canvas: Canvas, images: Sequence[Real[np.ndarray, "_ _ c"]], wanted: int | None = None
) -> list[Float[np.ndarray, "_ _ c"]]:
    """`canvas(image).image` of each, but for rounding.

    Args:
        canvas: of the network.
        images: of any sizes that the canvas takes.
        wanted: how many images of a bucket go together at most; None for what the device likes.

    Raises:
        ValueError: as `Canvas`.
    """
    s = canvas.operator.scale
    buckets: dict[Any, list[int]] = {}
    found: dict[int, Float[np.ndarray, "_ _ c"]] = {}
    for i, image in enumerate(images):
        plan = canvas.plan(image.shape[0] * s, image.shape[1] * s)
        key = most(canvas, plan, wanted), bucket(plan), image.shape[2]
        buckets.setdefault(key, []).append(i)
    for (limit, *_), of_it in buckets.items():
        for part in powers(of_it, limit):
            if len(part) == 1:
                found[part[0]] = canvas(images[part[0]]).image
            else:
                laid = [canvas.lay(images[i]) for i in part]
                found |= zip(part, _solve(canvas, laid), strict=True)
    return [found[i] for i in range(len(images))]


def powers(items: Sequence[int], limit: int) -> Iterator[Sequence[int]]:
    """Parts of lengths that are powers of two, as a program is compiled for each length.

    >>> [len(part) for part in powers(range(13), 4)]
    [4, 4, 4, 1]
    """
    while items:
        count = min(limit, 1 << (len(items).bit_length() - 1))
        yield items[:count]
        items = items[count:]


def _solve(canvas: Canvas, laid: Sequence[Laid]) -> list[Float[np.ndarray, "_ _ c"]]:
    """Of images in one bucket."""
    tree, arrays = stacked(laid)
    leaves, operator, windows, images, carry, sigma, sizes = jax.device_put(arrays, canvas.on)
    for k in range(len(canvas.schedule)):
        numbers = canvas.numbers(k, 0)
        carry = iterate_each(tree, leaves, operator, windows, images, carry, sigma, sizes, numbers)
    return [each.image(image) for each, image in zip(laid, np.asarray(carry[0]), strict=True)]


def stacked(laid: Sequence[Laid]) -> tuple[Any, tuple[Any, ...]]:
    """What `iterate_each` takes before `numbers`: what is static, and the arrays."""
    first = laid[0]
    leaves, trees = zip(
        *(jax.tree.flatten((o.operator.rows, o.operator.columns, o.windows.part)) for o in laid),
        strict=True,
    )
    leaves = [np.stack(leaf) for leaf in zip(*leaves, strict=True)]
    images = np.stack([each.canvas for each in laid])
    sigma = np.stack([each.sigma for each in laid])
    zeros = np.zeros((len(laid), *first.shape), np.float32)
    sizes = np.array([each.size for each in laid], np.float32)
    shared = first.operator, first.windows
    return trees[0], (leaves, *shared, images, (zeros, zeros), sigma, sizes)


@functools.partial(jax.jit, static_argnames="tree", donate_argnames="carry")
def iterate_each(
    tree: Any,
    leaves: list[Array],
    operator: Any,
    windows: Windows,
    y: Float[Array, "b 1 h w c"],
    carry: tuple[Array, Array],
    sigma: Float[Array, "b 1"],
    sizes: Float[Array, " b"],
    numbers: dict[str, Any],
) -> tuple[Array, Array]:
    """`canvas.iterate` of every image.

    Args:
        tree, leaves: what the images differ in: rows and columns of the operator, and the part of
            the window that the image fills.
        operator, windows: of any of them.
    """

    def one(leaves, y, carry, sigma, size):
        rows, columns, part = jax.tree.unflatten(tree, leaves)
        own = dataclasses.replace(operator, rows=rows, columns=columns)
        seen = dataclasses.replace(windows, part=part)
        return iterate(own, seen, y, carry, sigma, numbers | {"size": size})

    return jax.vmap(one)(leaves, y, carry, sigma, sizes)
