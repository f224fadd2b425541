"""Pictures of any size with a handful of compiled programs, in bounded memory.

The picture stays on the host, in NumPy, where nothing is compiled for its size: the iterations of
`unroll` need three float32 images besides the observation. Only the network runs on the device, in
windows of a few shapes. A small picture has a window to itself, of which it fills a part (see
`network.conv3x3_reflect_window`); a large one is cut into tiles with the halo that it sees. An
upright picture goes through the programs of those that lie, turned, as the kernels then are. The
projection needs one norm, which is summed over the whole picture. The result does not depend on
windows, tiles and turning, but for rounding.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..config import ModelConfig
from ..physics.noise import noise_level
from ..physics.operators import for_weights
from ..prior import winograd
from ..prior.border import MARGIN
from ..prior.network import ResidualNetwork
from ..prior.parameters import fuse
from ..weights import Weights
from .tiling import window_starts
from .unroll import Solution, schedule

# Sides of windows: at most 1.5 times what a picture needs, where that is more than an instant's
# work. The shorter side is at least half of the longer, or there would be a program for each pair.
SIDES = (68, 132, 196, 260, 388, 604, 900, 1348, 2020, 3028, 4540)
# Float32 images of the picture's size that an iteration needs: x_k, the next z and a residual.
IMAGES = 3

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the network is run on a picture.

    Attributes:
        window: height and width of the array that the network is compiled for.
        tile: height and width of what a window contributes.
        places: for every tile the corner of its picture part in the picture, and its own.
        part: height and width of the picture part in a window.
    """

    window: Size
    tile: Size
    part: Size
    places: tuple[tuple[Size, Size], ...]


@functools.lru_cache(maxsize=64)
def plan(height: int, width: int, halo: int, tile: int) -> Plan:
    """Windows for a picture of height x width pixels.

    Args:
        halo: of the network.
        tile: the largest side of a tile; a side of the picture up to it is not cut.
    """

    def axis(length: int):
        if length <= tile:
            part, starts, tiles = length, [0], [0]
        else:
            part, starts, tiles = window_starts(length, tile, halo)
        side = part + 2 * MARGIN if len(starts) == 1 else largest
        return side, part, min(tile, length), list(zip(starts, tiles, strict=True))

    def window(side: int) -> int:
        window = next((s for s in SIDES if side <= s <= largest), max(largest, side))
        return window + -window % winograd.ROWS  # whole groups of rows

    largest = tile + 2 * (halo + MARGIN)
    (h, part_h, tile_h, rows), (w, part_w, tile_w, columns) = axis(height), axis(width)
    longer = window(max(h, w))
    shorter = window(max(min(h, w), longer // 2))
    shape = (shorter, longer) if h <= w else (longer, shorter)
    places = tuple(((int(a), int(c)), (int(b), int(d))) for a, b in rows for c, d in columns)
    return Plan(shape, (tile_h, tile_w), (part_h, part_w), places)


def footprint(config: ModelConfig, side: int, dtype: Any = None) -> int:
    """Bytes of device memory that the network needs in a window of side x side pixels.

    Five arrays of features, in their type: four is what the compiler plans on a CPU.
    """
    features = 2 if jnp.dtype(dtype or jnp.float32) == jnp.bfloat16 else 4
    return side**2 * (5 * features * config.features + 8 * config.channels)


def free_memory(device: jax.Device) -> int | None:
    """Bytes that are free: of the device, or of the host that it is a part of; None if unknown."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def choose_tile(config: ModelConfig, memory: int | None, dtype: Any = None, images: int = 0) -> int:
    """The largest tile for which a window fits into half of `memory` - `images` bytes.

    Beyond 512 pixels the halo costs less than a tenth of the work in each direction, and smaller
    windows stay closer to the processor.

    Raises:
        ValueError: not even the smallest fits.
    """
    border = 2 * (config.halo + MARGIN)
    for tile in (512, 256, 128, 64, 32):
        needs = images + 2 * footprint(config, tile + border, dtype)
        if memory is None or needs <= memory:
            return tile
    raise ValueError(
        f"{memory / 2**20:.0f} MiB of memory are not enough: this picture and the smallest tile "
        f"take {needs / 2**20:.0f}"
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _residual(config: ModelConfig, dtype: Any, kernels: Any, window: Any, size: Any) -> Any:
    network = ResidualNetwork(config, dtype, "highest")
    return network.apply({"params": kernels}, window, size)


@jax.jit
def _gradient(operator: Any, v: Any, y: Any) -> Any:
    return operator.gradient(v, y)


@jax.jit
def _initial(operator: Any, y: Any) -> Any:
    return operator.initial(y)


@dataclasses.dataclass(frozen=True)
class Streamer:
    """`reconstruct` for one picture after the other, of any sizes.

    Attributes:
        weights: what to run.
        operator: how pictures came about (see `operators.for_weights`). Operators with
            `numpy = True`, such as all of ours, run on the host; others are compiled for each size.
        noise: "estimate", or the known noise level in grey levels.
        iterations: all that were trained by default.
        dtype: of the features.
        tile: side of the tiles in high-resolution pixels, or "auto".
        max_memory: bytes that a picture may take, on the host and on the device together where
            they share it; None for what is free.
        device: JAX's default device if None.
    """

    weights: Weights
    operator: Any
    noise: Literal["estimate"] | float = "estimate"
    iterations: int | None = None
    dtype: Any = None
    tile: int | Literal["auto"] = "auto"
    max_memory: int | None = None
    device: Any = None

    def __post_init__(self):
        object.__setattr__(self, "operator", for_weights(self.operator, self.weights.config))

    @functools.cached_property
    def kernels(self) -> tuple[Any, Any]:
        """Fused, on the device, once: for lying pictures, and for upright ones, turned."""
        kernels = fuse(jax.tree.map(np.asarray, self.weights.params["network"]))
        turned = jax.tree.map(lambda k: k.swapaxes(0, 1) if k.ndim == 4 else k, kernels)
        return jax.device_put((kernels, turned), self.device or jax.local_devices()[0])

    @functools.cached_property
    def schedule(self) -> tuple[np.ndarray, np.ndarray]:
        """(alpha, w)."""
        params = {k: np.asarray(self.weights.params[k], np.float32) for k in ("alpha", "w")}
        return schedule(Weights(params, self.weights.config), self.iterations)

    @functools.cached_property
    def network(self) -> ModelConfig:
        """What the compiled program depends on."""
        free = {"iterations": 1, "scale": None, "physics": "reference", "step": 1.0}
        return dataclasses.replace(self.weights.config, **free)

    def plan(self, height: int, width: int) -> Plan:
        """How the network runs on a high-resolution picture of this size.

        Raises:
            ValueError: `max_memory` is not enough.
        """
        config, tile = self.weights.config, self.tile
        if tile == "auto":
            device = self.device or jax.local_devices()[0]
            memory = free_memory(device) if self.max_memory is None else self.max_memory
            images = self.host_bytes(height, width) if device.platform == "cpu" else 0
            tile = choose_tile(config, memory, self.dtype, images)
        return plan(height, width, config.halo, tile)

    def host_bytes(self, height: int, width: int) -> int:
        """Bytes of host memory for a picture of this size, at its peak."""
        images = IMAGES if getattr(self.operator, "numpy", False) else IMAGES + 3
        return 4 * self.weights.config.channels * height * width * images

    def residual(
        self, z: Float[np.ndarray, "H W c"], out: Float[np.ndarray, "H W c"]
    ) -> Float[np.ndarray, "H W c"]:
        """The network's r(z), written into `out`."""
        result, upright = out, z.shape[0] > z.shape[1]
        if upright:
            z, out = z.swapaxes(0, 1), out.swapaxes(0, 1)
        kernels = self.kernels[upright]
        p = self.plan(*z.shape[:2])
        (height, width), (tile_h, tile_w) = p.part, p.tile
        size = (np.int32(height), np.int32(width))

        def started() -> Iterator[tuple[Size, Size, jax.Array]]:
            for part, tile in p.places:
                window = np.zeros((1, *p.window, z.shape[2]), np.float32)
                y, x = part
                inside = np.s_[0, MARGIN : MARGIN + height, MARGIN : MARGIN + width]
                window[inside] = z[y : y + height, x : x + width]
                window = jax.device_put(window, self.device)
                yield part, tile, _residual(self.network, self.dtype, kernels, window, size)

        def finish(part: Size, tile: Size, r: jax.Array) -> None:
            (top, left), (y, x) = part, tile
            rows, columns = y - top + MARGIN, x - left + MARGIN
            out[y : y + tile_h, x : x + tile_w] = np.asarray(r)[
                0, rows : rows + tile_h, columns : columns + tile_w
            ]

        # The device has the next window before the last one's result is fetched.
        previous = None
        for current in started():
            if previous is not None:
                finish(*previous)
            previous = current
        finish(*previous)
        return result

    def _on_host(self, method: str, *arrays: np.ndarray) -> np.ndarray:
        arrays = tuple(a[None] for a in arrays)
        if getattr(self.operator, "numpy", False):
            return getattr(self.operator, method)(*arrays)[0]
        compiled = {"gradient": _gradient, "initial": _initial}[method]
        return np.array(compiled(self.operator, *arrays)[0])

    def __call__(self, y: Float[np.ndarray, "h w c"], trace: bool = False) -> Solution:
        """As `reconstruct` of one picture with values in [0, 255], without the batch axis.

        Args:
            y: the low-resolution picture.
            trace: keep every iterate, and the initial image.

        Raises:
            ValueError: `max_memory` is not enough.
        """
        y = np.asarray(y, np.float32)
        alpha, w = self.schedule
        sigma = noise_level(y[None])[0] if self.noise == "estimate" else np.float32(self.noise)
        current = self._on_host("initial", y)
        previous, initial = current.copy(), current.copy() if trace else None
        count = np.sqrt(np.float32(current.size - 1))
        iterates = []
        for alpha_k, w_k in zip(alpha, w, strict=True):
            # In place: previous becomes v = x_k + exp(w_k) (x_k - x_{k-1}), then z.
            z = np.subtract(current, previous, out=previous)
            z *= np.exp(w_k)
            z += current
            gradient = self._on_host("gradient", z, y)
            if self.weights.config.step != 1:
                gradient *= np.float32(self.weights.config.step)
            z -= gradient
            r = self.residual(z, gradient)
            radius = np.exp(alpha_k) * sigma * count
            norm = np.sqrt(_squared_norm(r))
            r *= np.float32(0 if radius <= 0 else radius / norm if norm > radius else 1)
            z -= r
            current, previous = np.clip(z, 0, 255, out=z), current
            del gradient, r
            if trace:
                iterates.append(current.copy())
        return Solution(current, np.stack(iterates) if trace else None, initial, sigma)


def _squared_norm(r: np.ndarray) -> float:
    """In strips and in float64, so that 10^8 pixels neither round nor need memory."""
    return sum(float(np.sum(np.square(rows, dtype=np.float64))) for rows in r)
