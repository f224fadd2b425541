"""The network on a part of a canvas, in windows of a few sizes.

A canvas is an array that an image fills from its corner on. What the network sees of it is moved
into a square window (see `prior.border`): one for a small image, a grid of them for a large one,
each with the halo that an output pixel sees. Size and places are inputs of the program, so that one
serves all images that fit; the residual is that of the whole image, but for rounding.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from ..config import ModelConfig
from ..prior import winograd
from ..prior.border import MARGIN
from ..prior.network import ResidualNetwork

# Sides of windows grow by 1.4; an image that hardly exceeds one is cut, if that is less work.
SIDES = (68, 100, 132, 188, 260, 356, 516, 708, 1028, 1452, 2052, 2900, 4100)
CUTS = 16  # places that each program has room for

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the network is run on an image.

    Attributes:
        side: of the square windows.
        canvas: side of a canvas that the image fits into, and all others that use this window.
        part: height and width of the part of the image in a window.
        tile: height and width of what a window contributes.
        places: for every tile the corner of its part in the image, and its own.
    """

    side: int
    canvas: int
    part: Size
    tile: Size
    places: tuple[tuple[Size, Size], ...]


def window_side(tile: int, halo: int) -> int:
    """Side of the window for a tile."""
    side = tile + 2 * (halo + MARGIN)
    return side + -side % winograd.ROWS  # whole groups of rows


def window_starts(length: int, tile: int, halo: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Window length, and the starts of the windows and of the tiles along one axis."""
    count = -(-length // tile)
    # The last tile is moved back to end with the image; it repeats some of the one before.
    tiles = np.minimum(np.arange(count) * tile, max(length - tile, 0))
    window = min(tile + 2 * halo, length)
    return window, np.clip(tiles - halo, 0, length - window), tiles


@functools.lru_cache(maxsize=256)
def plan(height: int, width: int, halo: int, tile: int | None) -> Plan:
    """The windows that take least work for an image of height x width pixels.

    Args:
        halo: of the network.
        tile: the largest side of a tile; None for any.
    """
    longest = max(height, width)
    largest = window_side(tile or longest, halo)
    sides = [side for side in SIDES if side < largest] + [largest]
    if tile is None:  # of those in the list, the first that the image fits into
        room = (side for side in SIDES if side >= longest + 2 * MARGIN)
        largest = next(room, largest)
        sides = [side for side in SIDES if side < largest] + [largest]

    def axis(length: int, side: int) -> tuple[int, int, np.ndarray, np.ndarray] | None:
        room = side - 2 * MARGIN
        if length <= room:
            return length, length, np.zeros(1, int), np.zeros(1, int)
        own = room - 2 * halo
        if own < 1 or (side != largest and length > 2 * room):
            return None
        return (own, *window_starts(length, own, halo))

    best: tuple[int, int, Any, Any] | None = None
    for side in sides:
        rows, columns = axis(height, side), axis(width, side)
        if rows is None or columns is None:
            continue
        count = len(rows[3]) * len(columns[3])
        if side != largest and count > CUTS:
            continue
        if best is None or count * side**2 < best[0]:
            best = (count * side**2, side, rows, columns)
    assert best is not None  # the largest window takes every image
    _, side, (tile_h, part_h, *rows), (tile_w, part_w, *columns) = best
    canvas = 2 * (side - 2 * MARGIN)
    while canvas < longest:
        canvas *= 2
    rows, columns = (list(zip(*axis, strict=True)) for axis in (rows, columns))
    places = tuple(((int(a), int(c)), (int(b), int(d))) for a, b in rows for c, d in columns)
    return Plan(side, canvas, (part_h, part_w), (tile_h, tile_w), places)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
    """The learned prior's residual of an image in the corner of a canvas; a pytree.

    Attributes:
        kernels: fused parameters of `ResidualNetwork`.
        part, tile, places, count: of the `Plan`, as inputs; of the places the first `count`.
        config: what the network depends on; dtype: of its features.
        side: of the windows.
    """

    kernels: dict[str, Any]
    part: tuple[Int[ArrayLike, ""], Int[ArrayLike, ""]]
    tile: tuple[Int[ArrayLike, ""], Int[ArrayLike, ""]]
    places: Int[Array | np.ndarray, "p 4"]
    count: Int[ArrayLike, ""]
    config: ModelConfig = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(metadata={"static": True})
    side: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def planned(cls, plan: Plan, kernels: dict[str, Any], config: ModelConfig, dtype: Any = None):
        """From a plan."""
        places = np.array([(*part, *tile) for part, tile in plan.places], np.int32)
        room = max(CUTS, 1 << (len(places) - 1).bit_length())
        free = {"iterations": 1, "scale": None, "physics": "reference", "step": 1.0}
        return cls(
            kernels,
            (np.int32(plan.part[0]), np.int32(plan.part[1])),
            (np.int32(plan.tile[0]), np.int32(plan.tile[1])),
            np.pad(places, ((0, room - len(places)), (0, 0))),
            np.int32(len(places)),
            dataclasses.replace(config, **free),
            dtype,
            plan.side,
        )

    def residual(
        self, z: Float[Array, "1 H W c"], sigma: Float[Array, " 1"]
    ) -> Float[Array, "1 H W c"]:
        """r(z, sigma), zero outside of the image."""
        network = ResidualNetwork(self.config, self.dtype, "highest")
        side, (_, height, width, c) = self.side, z.shape
        # A window starts two pixels before its part, and ends at most so many behind the canvas.
        behind = [max(MARGIN + winograd.ROWS, side - MARGIN - length) for length in (height, width)]
        pad = ((0, 0), (MARGIN, behind[0]), (MARGIN, behind[1]), (0, 0))
        padded = jnp.pad(z, pad)
        index = [lax.broadcasted_iota(jnp.int32, (1, side, side, 1), axis) for axis in (1, 2)]

        def one(i: Array, out: Array) -> Array:
            top, left, y, x = self.places[i]
            window = lax.dynamic_slice(padded, (0, top, left, 0), (1, side, side, c))
            r: Any = network.apply({"params": self.kernels}, window, self.part, sigma)
            own: Any = True
            for positions, start, length in zip(index, (y - top, x - left), self.tile, strict=True):
                first = start + MARGIN
                own = own & (positions >= first) & (positions < first + length)
            old = lax.dynamic_slice(out, (0, top, left, 0), r.shape)
            return lax.dynamic_update_slice(out, jnp.where(own, r, old), (0, top, left, 0))

        out = lax.fori_loop(0, self.count, one, jnp.zeros_like(padded))
        return out[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width]
