"""Images larger than memory: the iteration on bands of rows, the images between in files.

Each band has the margin that operator and network see beyond its own rows, so that it contributes
what the whole image would; the shrinkage is one number of all bands. The result is that of
`reconstruct`, but for rounding. One program serves all bands.
"""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real
from tqdm import tqdm

from ..prior.projection import shrinkage
from . import iteration
from . import memory as mem
from .canvas import Canvas
from .unroll import Solution
from .windows import Plan, Windows, offers, plan, starts

IMAGES = 4  # x_k, x_(k-1), z and r, of the size of the image


@jax.jit
def propose(
    operator: Any,
    windows: Windows,
    x: Float[Array, "1 H W c"],
    previous: Float[Array, "1 H W c"],
    y: Float[Array, "1 h w c"],
    sigma: Float[Array, " 1"],
    numbers: dict[str, Array],
    own: tuple[Int[Array, ""], Int[Array, ""]],
) -> tuple[Array, Array, Array]:
    """`iteration.propose` on a band, and |r|^2 over its own rows, `own[0]` up to `own[1]`."""
    residual = functools.partial(windows.residual, sigma=sigma)
    z, r = iteration.propose(operator, residual, x, previous, y, numbers["w"], numbers["step"])
    row = jnp.arange(r.shape[1])
    squared = jnp.where((row >= own[0]) & (row < own[1]), jnp.sum(jnp.square(r), (0, 2, 3)), 0)
    return z, r, jnp.sum(squared)


accept = jax.jit(iteration.accept, donate_argnums=0)


@jax.jit
def initial(operator: Any, y: Float[Array, "1 h w c"]) -> Float[Array, "1 H W c"]:
    """x_0 of a band."""
    return operator.initial(y)


@dataclasses.dataclass(frozen=True)
class Band:
    """Rows of low-resolution pixels: what is read, and which of them are the band's own."""

    first: int
    count: int
    own: slice

    def read(self, scale: int = 1) -> slice:
        """All rows, in the image."""
        return slice(scale * self.first, scale * (self.first + self.count))

    def write(self, scale: int = 1) -> slice:
        """Own rows, in the image."""
        return slice(scale * self.own.start, scale * self.own.stop)

    def inner(self, scale: int = 1) -> slice:
        """Own rows, in the band."""
        return slice(scale * (self.own.start - self.first), scale * (self.own.stop - self.first))


def bands(height: int, rows: int, margin: int) -> list[Band]:
    """Bands of `rows` rows to read, more than two margins, or of all if there are fewer."""
    count = min(rows, height)
    firsts, owns = starts(height, count, margin)
    ends = [*owns[1:], height]
    return [
        Band(int(a), count, slice(*map(int, own)))
        for a, *own in zip(firsts, owns, ends, strict=True)
    ]


def scratch(shape: tuple[int, ...], folder: Path | None) -> Float[np.ndarray, "H W c"]:
    """An array of zeros, in memory or in a file that vanishes with it, however the program ends.

    Raises:
        OSError: the disk has no room for it.
    """
    if folder is None:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:  # without a name already
        size = 4 * int(np.prod(shape, dtype=np.int64))
        if hasattr(os, "posix_fallocate"):  # or a full disk would be a crash later
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, np.float32, "r+", shape=shape)


@dataclasses.dataclass(frozen=True)
class Stream:
    """`Canvas` for images that do not fit into memory.

    Attributes:
        canvas: what is run, and how.
        folder: for the images between the iterations; None to keep them in memory.
        rows: low-resolution rows of a band, its margins included; by default as many as a window
            has.
        progress: show a bar while it works.
    """

    canvas: Canvas
    folder: Path | None = None
    rows: int | None = None
    progress: bool = False

    @classmethod
    def fitting(cls, canvas: Canvas, h: int, w: int, progress: bool = False) -> "Stream":
        """Between the iterations in memory if that is enough for an image of h x w, or in files."""
        s, host = canvas.operator.scale, canvas.memory
        if canvas.on.platform != "cpu" and canvas.max_memory is None:
            host = mem.free_memory(jax.local_devices(backend="cpu")[0])
        _, _, working = cls(canvas).plan(h, w * s)
        images = 4 * IMAGES * canvas.weights.config.channels * h * w * s * s
        fits = host is None or images + working <= host
        return cls(canvas, None if fits else Path(tempfile.gettempdir()), progress=progress)

    def plan(self, h: int, width: int) -> tuple[list[Band], Plan, int]:
        """Bands of h low-resolution rows, how the network runs on each, and the bytes that takes.

        Args:
            h: low-resolution rows of the image.
            width: its high-resolution columns.

        Raises:
            ValueError: there is not enough memory.
        """
        canvas, config = self.canvas, self.canvas.weights.config
        scale = canvas.operator.scale
        margin = -(-config.halo // scale) + canvas.operator.reach
        plans, needs = {}, {}
        for windows in offers(config.halo, "auto" if canvas.tile is None else canvas.tile):
            # So that a band is as high as a window.
            rows = max(self.rows or windows[-1][0] // scale, 2 * margin + 8)
            parts = bands(h, rows, margin)
            high = parts[0].count * scale
            chosen = plan(high, width, config.halo, windows, False, canvas.strips)
            if chosen is not None:
                pixels = high * width
                needs[windows] = mem.footprint(config, chosen.window, canvas.dtype, pixels)
                plans[windows] = (parts, chosen, needs[windows])
        return plans[mem.first_that_fits(needs, canvas.memory)]

    def __call__(self, y: Real[np.ndarray, "h w c"]) -> Solution:
        """As `Canvas`, without the iterates between."""
        canvas, s = self.canvas, self.canvas.operator.scale
        y = np.asarray(y, np.float32)
        h, w, c = y.shape
        parts, chosen, _ = self.plan(h, w * s)
        windows = Windows.planned(
            chosen, canvas.kernels, canvas.weights.config, canvas.dtype, canvas.strips
        )
        windows = jax.device_put(windows, canvas.on)
        placed, sigma, size = canvas.operator.at(h, w), canvas.sigma(y), h * w * s * s * c
        x, previous, z, r = (scratch((h * s, w * s, c), self.folder) for _ in range(IMAGES))

        def there(*arrays: Any) -> Any:
            return jax.device_put(arrays, canvas.on)

        def on(band: Band) -> Any:
            return placed.part(band.first, band.count)

        def watched(parts: list[Band], k: int) -> Iterator[Band]:
            label = f"iteration {k + 1} of {len(canvas.schedule)}"
            return iter(tqdm(parts, label, leave=False, disable=None if self.progress else True))

        for band in parts:
            start = initial(*there(on(band), y[None, band.read()]))
            x[band.write(s)] = previous[band.write(s)] = np.asarray(start)[0, band.inner(s)]
        for k in range(len(canvas.schedule)):
            numbers, squared = canvas.numbers(k, size), 0.0
            for band in watched(parts, k):
                inner = band.inner(s)
                arguments = (
                    on(band),
                    windows,
                    x[None, band.read(s)],
                    previous[None, band.read(s)],
                    y[None, band.read()],
                    sigma,
                    numbers,
                    (inner.start, inner.stop),
                )
                z_band, r_band, part = propose(*there(*arguments))
                z[band.write(s)] = np.asarray(z_band)[0, inner]
                r[band.write(s)] = np.asarray(r_band)[0, inner]
                squared += float(part)  # in float64: 10^8 pixels would round otherwise
            shrink = shrinkage(np.asarray([squared], np.float32), size, sigma, numbers["alpha"])
            x, previous = previous, x
            count = min(s * parts[0].count, len(x))
            for first in range(0, len(x), count):  # the last repeats some of the one before
                rows = slice(min(first, len(x) - count), min(first, len(x) - count) + count)
                x[rows] = np.asarray(accept(*there(z[rows], r[rows], shrink)))
        return Solution(x, None, None, sigma[0])
