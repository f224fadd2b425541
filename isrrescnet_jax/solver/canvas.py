"""Images of any size with a handful of compiled programs, on the device.

An image lies in the corner of a canvas. Its size, the places of the network's windows, and the
positions and weights of the operator are inputs of the program, which is one iteration of
`iteration`: 50 sizes then need 4 programs, and an image of any size gives what `reconstruct` gives,
but for rounding. Between iterations Ctrl-C is heard.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Real

from ..physics.noise import noise_level
from ..physics.operators import for_weights
from ..prior.parameters import fuse
from ..prior.projection import shrinkage
from ..weights import Weights
from . import memory as mem
from .iteration import accept, propose
from .unroll import Solution, schedule
from .windows import Plan, Size, Windows, offers, plan


@functools.partial(jax.jit, donate_argnames="carry")
def iterate(
    operator: Any,
    windows: Windows,
    y: Float[Array, "1 h w c"],
    carry: tuple[Array, Array],
    sigma: Float[Array, " 1"],
    numbers: dict[str, Array],
) -> tuple[Array, Array]:
    """One iteration on a canvas: (x_k, x_(k-1)) -> (x_(k+1), x_k).

    Args:
        operator: placed on the canvas.
        numbers: alpha, w, step, size (values in the image), and whether it is the first iteration,
            which starts from the initial image and not from `carry`.
    """
    x, previous = lax.cond(numbers["first"], lambda: (operator.initial(y),) * 2, lambda: carry)
    residual = functools.partial(windows.residual, sigma=sigma)
    z, r = propose(operator, residual, x, previous, y, numbers["w"], numbers["step"])
    squared = jnp.sum(jnp.sum(jnp.square(r), (2, 3)), 1)
    return accept(z, r, shrinkage(squared, numbers["size"], sigma, numbers["alpha"])), x


def on_canvas(operator: Any, h: int, w: int, canvas: Size) -> Any:
    """The operator for an image of h x w low-resolution pixels on a larger canvas of them.

    Outside of the image everything it computes is zero.
    """

    def padded(n: int, length: int) -> Any:
        # As wide as the taps of any size are, or there would be a program for each.
        others = [operator.axis(size, "float32") for size in (length, *range(1, 9))]

        def pad(array: np.ndarray, *like: np.ndarray) -> np.ndarray:
            shape = np.max([a.shape for a in (array, *like)], axis=0)
            zeros = np.zeros(shape, array.dtype if array.dtype == np.int32 else np.float32)
            zeros[tuple(map(slice, array.shape))] = array
            return zeros

        return jax.tree.map(pad, operator.axis(n, "float32"), *others)

    return dataclasses.replace(
        operator.at(h, w), rows=padded(h, canvas[0]), columns=padded(w, canvas[1])
    )


@dataclasses.dataclass(frozen=True)
class Canvas:
    """`reconstruct` for one image after the other, of any sizes.

    Attributes:
        weights: what to run.
        operator: how images came about (see `operators.for_weights`). One without a method `at` is
            compiled for each size.
        noise: "estimate", or the known noise level in grey levels.
        iterations: all that were trained by default.
        dtype: of the features.
        tile: side of the tiles in high-resolution pixels, "auto" for what fits into memory, or None
            for any.
        max_memory: bytes that an image may take, on the host and on the device together where
            they share it; None for what is free.
        device: JAX's default device if None.
    """

    weights: Weights
    operator: Any
    noise: Literal["estimate"] | float = "estimate"
    iterations: int | None = None
    dtype: Any = None
    tile: int | Literal["auto"] | None = "auto"
    max_memory: int | None = None
    device: Any = None

    def __post_init__(self):
        object.__setattr__(self, "operator", for_weights(self.operator, self.weights.config))

    @property
    def on(self) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
        """The device."""
        return self.device or jax.local_devices()[0]

    @property
    def strips(self) -> bool:
        """Whether the network passes over a window in strips of rows."""
        return self.on.platform == "cpu"

    @functools.cached_property
    def kernels(self) -> dict[str, Any]:
        """Fused, on the device, once."""
        return jax.device_put(self._fused, self.on)

    @functools.cached_property
    def turned_kernels(self) -> dict[str, Any]:
        """Those for an image that lies on its side."""
        turned = jax.tree.map(lambda a: a.swapaxes(0, 1) if a.ndim == 4 else a, self._fused)
        return jax.device_put(turned, self.on)

    @functools.cached_property
    def _fused(self) -> dict[str, Any]:
        return fuse(jax.tree.map(np.asarray, self.weights.params["network"]))

    @functools.cached_property
    def schedule(self) -> list[tuple[np.float32, np.float32]]:
        """(alpha, w) of every iteration."""
        params = {k: np.asarray(self.weights.params[k], np.float32) for k in ("alpha", "w")}
        return list(
            zip(*schedule(Weights(params, self.weights.config), self.iterations), strict=True)
        )

    @functools.cached_property
    def memory(self) -> int | None:
        """Bytes that may be used; None if that is not known."""
        return mem.free_memory(self.on) if self.max_memory is None else self.max_memory

    def plan(self, height: int, width: int) -> Plan:
        """How the network runs on a high-resolution image of this size.

        Raises:
            ValueError: `max_memory` is not enough.
        """
        config, turn = self.weights.config, hasattr(self.operator, "turned")
        plans, needs = {}, {}
        for windows in offers(config.halo, self.tile):
            chosen = plan(height, width, config.halo, windows, turn, self.strips)
            if chosen is not None:
                plans[windows], (rows, columns) = chosen, chosen.canvas
                needs[windows] = mem.footprint(config, chosen.window, self.dtype, rows * columns)
        memory = self.memory if self.tile == "auto" else None
        return plans[mem.first_that_fits(needs, memory)]

    def takes(self, h: int, w: int) -> bool:
        """Whether an image of h x w low-resolution pixels is small enough to be done at once."""
        # An iteration cannot be interrupted; on a CPU four megapixels take a minute.
        longest = 2048 if self.on.platform == "cpu" else 8192
        height, width = h * self.operator.scale, w * self.operator.scale
        if max(height, width) > longest:
            return False
        try:
            self.plan(height, width)
        except ValueError:
            return False
        return True

    def sigma(self, y: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, " 1"]:
        """Noise level of an image."""
        if self.noise == "estimate":
            return np.asarray(noise_level(y[None]), np.float32)
        return np.full(1, self.noise, np.float32)

    def numbers(self, k: int, size: int) -> dict[str, Any]:
        """Of iteration k on an image of `size` values."""
        alpha, w = self.schedule[k]
        step = np.float32(self.weights.config.step)
        return {"alpha": alpha, "w": w, "step": step, "size": np.float32(size), "first": k == 0}

    def __call__(
        self,
        y: Real[np.ndarray, "h w c"],
        trace: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Solution:
        """As `reconstruct` of one image with values in [0, 255], without the batch axis.

        Args:
            y: the low-resolution image.
            trace: keep every iterate, and the initial image.
            progress: called after each iteration, which need not be finished unless it is kept,
                with how many there were and how many there will be.

        Raises:
            ValueError: `max_memory` is not enough.
        """
        on = self.lay(y)
        operator, windows, canvas, sigma = jax.device_put(
            (on.operator, on.windows, on.canvas, on.sigma), self.on
        )
        zeros = np.zeros(on.shape, np.float32)
        carry = jax.device_put((zeros, zeros), self.on)
        initial, iterates = None, []
        for k in range(len(self.schedule)):
            carry = iterate(operator, windows, canvas, carry, sigma, self.numbers(k, on.size))
            if trace:
                initial = on.image(carry[1]).copy() if k == 0 else initial
                iterates.append(on.image(carry[0]).copy())
            if progress is not None:
                progress(k + 1, len(self.schedule))
        image = on.image(carry[0])
        return Solution(image, np.stack(iterates) if trace else None, initial, on.sigma[0])

    def lay(self, y: Real[np.ndarray, "h w c"]) -> "Laid":
        """An image on its canvas, still on the host.

        Raises:
            ValueError: `max_memory` is not enough.
        """
        y, s = np.asarray(y, np.float32), self.operator.scale
        chosen = self.plan(y.shape[0] * s, y.shape[1] * s)
        operator, kernels, sigma = self.operator, self.kernels, self.sigma(y)
        if chosen.turned:
            operator, kernels, y = operator.turned(), self.turned_kernels, y.swapaxes(0, 1)
        h, w, c = y.shape
        low = (h, w)
        if hasattr(operator, "at"):
            low = (-(-chosen.canvas[0] // s), -(-chosen.canvas[1] // s))
            operator = on_canvas(operator, h, w, low)
        canvas = np.zeros((1, *low, c), np.float32)
        canvas[0, :h, :w] = y
        windows = Windows.planned(chosen, kernels, self.weights.config, self.dtype, self.strips)
        return Laid(chosen, operator, windows, canvas, sigma, (h * s, w * s))


class Laid(NamedTuple):
    """An image on its canvas.

    Attributes:
        plan, operator, windows: what is computed, and how.
        canvas: the low-resolution image in its corner.
        sigma: noise level.
        extent: height and width of the high-resolution image on its canvas.
    """

    plan: Plan
    operator: Any
    windows: Windows
    canvas: Float[np.ndarray, "1 h w c"]
    sigma: Float[np.ndarray, " 1"]
    extent: Size

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the high-resolution canvas."""
        n, h, w, c = self.canvas.shape
        return n, h * self.operator.scale, w * self.operator.scale, c

    @property
    def size(self) -> int:
        """Values in the high-resolution image."""
        return self.extent[0] * self.extent[1] * self.canvas.shape[3]

    def image(self, x: Float[Array | np.ndarray, "1 H W c"]) -> Float[np.ndarray, "h w c"]:
        """What lies in the corner of a high-resolution canvas, on the host and upright."""
        found = np.asarray(x)[0, : self.extent[0], : self.extent[1]]
        return found.swapaxes(0, 1) if self.plan.turned else found
