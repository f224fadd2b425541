"""The network on a part of a canvas, in windows of a few sizes.

A canvas is an array that an image fills from its corner on. What the network sees of it is moved
into a window (see `prior.window`): one for a small image, a grid of them for a large one, each with
the halo that an output pixel sees. Size and places are inputs of the program, so that one serves
all images that fit; the residual is that of the whole image, but for rounding.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from ..config import ModelConfig
from ..prior import winograd
from ..prior.network import ResidualNetwork
from ..prior.window import MARGIN, strip_rows
from ..trees import pytree

Size = tuple[int, int]

# Heights and widths of windows; images are laid on their side where that is less work. Sought for
# least work on a CPU, which leaves out the rows below an image: on images whose sides are uniform
# in 64 to 256 pixels 1.25 times that of the images themselves, in the four from 188 to 256 rows,
# and in 256 to 1024 pixels 1.22 times, in the three from 804 to 1036 rows (elsewhere 1.6 and 1.7
# times). Squares are for the sizes that people like best and images that fill them. Those behind
# `LARGEST`, with which a CPU takes half a gigabyte, are only taken where memory has no say.
WINDOWS: tuple[Size, ...] = (
    *((64, 68), (68, 68), (132, 132), (188, 140), (260, 156), (244, 216), (256, 260), (260, 260)),
    *((516, 516), (1036, 400), (804, 668), (1028, 524)),
    *((1028, 1028), (1028, 1452), (1452, 2052), (2052, 2900), (2900, 4100)),
)
FILLED = 0.98  # of a square
LARGEST: Size = (1028, 524)
HALO = 44  # the official network's; what others see beyond it makes windows wider
ROOM = 16  # places that each program has room for


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the network is run on an image.

    Attributes:
        turned: the image lies on its side, rows and columns exchanged; so is all that follows.
        window: height and width of the windows.
        canvas: those of a canvas that the image fits into, and all others that use this window.
        part: height and width of the part of the image in a window.
        places: for every window the corner of its part in the image, and of what is not better done
            by a window before it.
    """

    turned: bool
    window: Size
    canvas: Size
    part: Size
    places: tuple[tuple[Size, Size], ...]


def offers(halo: int, tile: int | str | None) -> tuple[tuple[Size, ...], ...]:
    """Windows to choose from, the largest last, once for every limit on their size.

    Args:
        halo: of the network.
        tile: "auto", or the side of a tile that a window contributes at least, or None for any.
    """
    more = -(-2 * max(0, halo - HALO) // 8) * 8
    listed = tuple((rows + more, columns + more) for rows, columns in WINDOWS)
    if tile is None:
        return (listed,)
    if tile == "auto":
        count = WINDOWS.index(LARGEST) + 1
        useful = [k for k in range(count, 0, -1) if listed[k - 1][0] > 2 * (halo + MARGIN)]
        return tuple(listed[:k] for k in useful)
    side = int(tile) + 2 * (halo + MARGIN)
    side += -(side - 2 * MARGIN) % 32  # whole strips of rows
    return ((*(window for window in listed if window[1] < side), (side, side)),)


def starts(length: int, window: int, halo: int) -> tuple[np.ndarray, np.ndarray]:
    """Where windows along an axis start, and where what each contributes does.

    A window contributes up to where the next one does: it is right from `halo` after its start to
    `halo` before its end, and as far as the image goes where it ends with it.
    """
    if length <= window:
        return np.zeros(1, int), np.zeros(1, int)
    own = window - 2 * halo
    count = -(-(length - 2 * halo) // own)
    first = np.minimum(np.arange(count) * own, length - window)
    return first, np.where(first > 0, np.arange(count) * own + halo, 0)


@functools.lru_cache(maxsize=256)
def plan(
    height: int,
    width: int,
    halo: int,
    windows: tuple[Size, ...],
    turn: bool = True,
    strips: bool = True,
) -> Plan | None:
    """How least work is done on an image of height x width pixels; None if nothing serves.

    Args:
        halo: of the network.
        windows: their heights and widths, the largest last.
        turn: an image may be laid on its side.
        strips: rows below the image cost nothing, see `prior.window.strip_rows`.
    """
    best: tuple[int, bool, Size, Any, Any] | None = None
    for window in windows:
        for turned in (False, True)[: 1 + turn]:
            sides = (width, height) if turned else (height, width)
            rooms = [side - 2 * MARGIN for side in window]
            if any(n > room <= 2 * halo for n, room in zip(sides, rooms, strict=True)):
                continue
            rows, columns = (starts(n, room, halo) for n, room in zip(sides, rooms, strict=True))
            count = len(rows[0]) * len(columns[0])
            square = rooms[0] == rooms[1]
            odd = square and height * width < FILLED * rooms[0] * rooms[1]
            if window != windows[-1] and (odd or count > 1):
                continue
            strip = strip_rows(*window) if strips else window[0]
            work = count * -(-min(sides[0], rooms[0]) // strip) * strip * window[1]
            if best is None or work < best[0]:
                best = (work, turned, window, rows, columns)
    if best is None:
        return None
    _, turned, window, rows, columns = best
    sides = (width, height) if turned else (height, width)
    rooms = [side - 2 * MARGIN for side in window]
    # Doubled as often as needed; for squares, which are for tiles of any image, on both sides.
    times = [max(0, (n - 1) // room).bit_length() for n, room in zip(sides, rooms, strict=True)]
    if rooms[0] == rooms[1]:
        times = [max(times)] * 2
    canvas = [room << often for room, often in zip(rooms, times, strict=True)]
    part = (min(sides[0], rooms[0]), min(sides[1], rooms[1]))
    lines, posts = (
        list(zip(*map(np.ndarray.tolist, axis), strict=True)) for axis in (rows, columns)
    )
    places = tuple(((a, c), (b, d)) for a, b in lines for c, d in posts)
    return Plan(turned, window, (canvas[0], canvas[1]), part, places)


@pytree
@dataclasses.dataclass(frozen=True)
class Windows:
    """The learned prior's residual of an image in the corner of a canvas; a pytree.

    Attributes:
        kernels: fused parameters of `ResidualNetwork`.
        part, places, count: of the `Plan`, as inputs; of the places the first `count`.
        config: what the network depends on; dtype: of its features.
        window: height and width.
        strips: the network passes over them in strips of rows.
    """

    kernels: dict[str, Any]
    part: tuple[Int[ArrayLike, ""], Int[ArrayLike, ""]]
    places: Int[Array | np.ndarray, "p 4"]
    count: Int[ArrayLike, ""]
    config: ModelConfig = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(metadata={"static": True})
    window: Size = dataclasses.field(metadata={"static": True})
    strips: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def planned(
        cls,
        plan: Plan,
        kernels: dict[str, Any],
        config: ModelConfig,
        dtype: Any,
        strips: bool,
    ):
        """From a plan."""
        places = np.array([(*part, *tile) for part, tile in plan.places], np.int32)
        room = max(ROOM, 1 << (len(places) - 1).bit_length())
        free = {"iterations": 1, "scale": None, "physics": "reference", "step": 1.0}
        return cls(
            kernels,
            (np.int32(plan.part[0]), np.int32(plan.part[1])),
            np.pad(places, ((0, room - len(places)), (0, 0))),
            np.int32(len(places)),
            dataclasses.replace(config, **free),
            dtype,
            plan.window,
            strips,
        )

    def residual(
        self, z: Float[Array, "1 H W c"], sigma: Float[Array, " 1"]
    ) -> Float[Array, "1 H W c"]:
        """r(z, sigma), zero outside of the image."""
        network = ResidualNetwork(self.config, self.dtype, "highest")
        shape, (_, height, width, c) = (1, *self.window, 1), z.shape
        # A window starts two pixels before its part, and ends at most so many behind the canvas.
        behind = [
            max(MARGIN + winograd.ROWS, side - MARGIN - length)
            for side, length in zip(self.window, (height, width), strict=True)
        ]
        pad = ((0, 0), (MARGIN, behind[0]), (MARGIN, behind[1]), (0, 0))
        padded = jnp.pad(z, pad)
        index = [lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 2)]

        def one(i: Array, out: Array) -> Array:
            top, left, y, x = self.places[i]
            window = lax.dynamic_slice(padded, (0, top, left, 0), (1, *self.window, c))
            r: Any = network.apply({"params": self.kernels}, window, self.part, sigma, self.strips)
            # Where this is not right yet, a window after it is.
            own: Any = True
            for positions, start, length in zip(index, (y - top, x - left), self.part, strict=True):
                own = own & (positions >= start + MARGIN) & (positions < length + MARGIN)
            old = lax.dynamic_slice(out, (0, top, left, 0), r.shape)
            return lax.dynamic_update_slice(out, jnp.where(own, r, old), (0, top, left, 0))

        out = lax.fori_loop(0, self.count, one, jnp.zeros_like(padded))
        return out[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width]
