"""Picture in, picture out: the network behind array types, channel counts and memory limits."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Num, Real

from .dihedral import VARIANTS, turn, turn_back
from .physics.operators import Bicubic
from .solver.canvas import Canvas
from .solver.stream import Stream
from .solver.together import together
from .solver.unroll import Solution
from .transparency import restore
from .weights import Weights, load_weights


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """A network made ready for one job; call it on one picture after the other.

    Pictures of all sizes share a few compiled programs (see `solver.canvas`), and those larger than
    memory go in bands of rows (`solver.stream`). Values are in [0, 255] throughout.

    >>> import jax, numpy as np, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> upscaler = isr.Upscaler(weights)
    >>> [upscaler(np.zeros(shape, np.float32)).shape for shape in [(8, 9, 3), (10, 8, 1)]]
    [(16, 18, 3), (20, 16, 1)]

    Attributes:
        weights: what to run.
        scale: the factor; that of the weights by default. The network works at high resolution
            and accepts any, but does best at the one it was trained for.
        operator: how the picture came about; `Bicubic(scale)` by default. Of the physics of the
            weights, unless it was made with another `reference` (with a warning).
        noise: "estimate", or the known noise level in grey levels.
        iterations: all that were trained by default.
        dtype: of the features, "float32" (the default), "bfloat16" or "auto"; see `fastest_dtype`.
        ensemble: average over the 8 flips and rotations ("+" in the paper), 8 times the work. For
            operators that these do not change.
        tile: side of the tiles in high-resolution pixels; "auto" takes what fits into
            memory, None never cuts a picture. The result does not depend on it.
        max_memory: bytes that a picture may take; by default, what is free.
        batch: how many pictures of about one size are computed at once where there are several
            (`each`): "auto" takes one on CPUs, and what keeps a GPU or TPU busy.
        device: JAX's default device if None.
        progress: show a bar for images that go in bands, where the output is a terminal.

    Raises:
        ValueError: neither weights nor operator name a scale, they disagree, or `tile` or `batch`
            is below 1.
    """

    weights: Weights
    scale: int | None = None
    operator: Any = None
    noise: Literal["estimate"] | float = "estimate"
    iterations: int | None = None
    dtype: Any = None
    ensemble: bool = False
    tile: int | Literal["auto"] | None = "auto"
    max_memory: int | None = None
    batch: int | Literal["auto"] = "auto"
    device: jax.Device | None = None  # pyright: ignore[reportInvalidTypeForm]
    progress: bool = False

    def __post_init__(self):
        operator = self.operator
        if operator is None:
            scale = self.scale or self.weights.config.scale
            if scale is None:
                raise ValueError("these weights name no scale: give one")
            operator = Bicubic(scale)
        if self.scale not in (None, operator.scale):
            raise ValueError(f"scale {self.scale} and operator {operator} do not agree")
        object.__setattr__(self, "operator", operator)
        object.__setattr__(self, "scale", operator.scale)
        object.__setattr__(self, "dtype", fastest_dtype(self.dtype, self.device))
        if self.ensemble and not _symmetric(getattr(operator, "kernel", None)):
            warnings.warn(
                "the ensemble turns the picture, but not the kernel, which is not symmetric",
                stacklevel=3,
            )
        if isinstance(self.tile, int) and self.tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, not {self.tile}")
        if isinstance(self.batch, int) and self.batch < 1:
            raise ValueError(f"batch must be at least 1 picture, not {self.batch}")
        self._canvas  # noqa: B018 (warns here, if it must)

    @functools.cached_property
    def _canvas(self) -> Canvas:
        names = ("noise", "iterations", "dtype", "tile", "max_memory", "device")
        return Canvas(self.weights, self.operator, **{name: getattr(self, name) for name in names})

    @property
    def singly(self) -> bool:
        """Whether pictures are computed one by one."""
        return self.batch == 1 or (self.batch == "auto" and self._canvas.strips)

    def _run(
        self, planes: Sequence[Float[np.ndarray, "_ _ k"]]
    ) -> list[Float[np.ndarray, "_ _ k"]]:
        """On canvases, or in bands of rows where one would be too large."""
        canvas = self._canvas
        small = [i for i, plane in enumerate(planes) if self.at_once(*plane.shape[:2])]
        wanted = None if self.batch == "auto" else self.batch
        images = together(canvas, [planes[i] for i in small], wanted)
        found = {i: np.asarray(image) for i, image in zip(small, images, strict=True)}
        for i, plane in enumerate(planes):
            if i not in found:
                h, w, _ = plane.shape
                stream = Stream.fitting(canvas, h, w, self.progress)
                found[i] = np.asarray(stream(plane).image)
        return [found[i] for i in range(len(planes))]

    def at_once(self, h: int, w: int) -> bool:
        """Whether a picture of h x w pixels is computed as a whole, as `trace` does it."""
        return not hasattr(self._canvas.operator, "at") or self._canvas.takes(h, w)

    def _planes(self, color: Real[np.ndarray, "h w c"]) -> list[Float[np.ndarray, "h w k"]]:
        """One picture as the network takes it: grey as RGB, or colours as grey pictures."""
        color = np.asarray(color, np.float32)
        if color.ndim != 3 or color.shape[2] not in (1, 3) or 0 in color.shape:
            raise ValueError(f"a picture must be (h, w, 3) or (h, w, 1), not {color.shape}")
        channels = self.weights.config.channels
        if channels == 1:
            return [color[:, :, i : i + 1] for i in range(color.shape[2])]
        return [np.broadcast_to(color, (*color.shape[:2], channels))]

    def _images(
        self, planes: Sequence[Float[np.ndarray, "_ _ k"]]
    ) -> Sequence[Float[np.ndarray, "_ _ k"]]:
        """Of each plane; with `ensemble` the mean over the dihedral group."""
        if not self.ensemble:
            return self._run(planes)
        totals: list[Any] = [0.0] * len(planes)
        for variant in VARIANTS:
            for i, image in enumerate(self._run([turn(plane, variant) for plane in planes])):
                totals[i] = totals[i] + turn_back(image, variant)
        return [total / np.float32(len(VARIANTS)) for total in totals]

    def __call__(self, color: Real[np.ndarray, "h w c"]) -> Float[np.ndarray, "H W c"]:
        """The super-resolved picture, in [0, 255] and not rounded.

        Raises:
            ValueError: not (h, w, 3) or (h, w, 1), or `max_memory` is not enough.
        """
        return self.each([color])[0]

    def each(self, colors: Sequence[Real[np.ndarray, "_ _ _"]]) -> list[Float[np.ndarray, "_ _ _"]]:
        """The super-resolved pictures, of any sizes: what a call gives, but for rounding.

        Pictures of about one size share a pass over the network, see `batch`.

        Raises:
            ValueError: as for a call, of any of them.
        """
        planes = [self._planes(color) for color in colors]
        images = iter(self._images([plane for of_one in planes for plane in of_one]))
        return [
            joined([next(images) for _ in of_one], np.shape(color)[2])
            for of_one, color in zip(planes, colors, strict=True)
        ]

    def trace(
        self,
        color: Real[np.ndarray, "h w c"],
        progress: Callable[[int, int], None] | None = None,
    ) -> Solution:
        """All iterates, as `reconstruct(..., trace=True)` gives them, of a batch of one.

        The colours of a grey network are a batch; `joined` makes a picture of it.

        Args:
            color: as for a call.
            progress: called after each iteration with how many there were, and how many there are.
        """
        solutions = [self._canvas(plane, True, progress) for plane in self._planes(color)]

        def batch(name: str, axis: int):
            return np.stack([getattr(solution, name) for solution in solutions], axis)

        return Solution(
            batch("image", 0), batch("iterates", 1), batch("initial", 0), batch("sigma", 0)
        )


def joined(
    planes: Sequence[Float[np.ndarray, "H W k"]] | Float[np.ndarray, "n H W k"], channels: int
) -> Float[np.ndarray, "H W c"]:
    """What the network made of one picture, as a picture of that many channels, 1 or 3.

    >>> import numpy as np
    >>> [joined(np.zeros(shape), c).shape for shape, c in [((3, 4, 5, 1), 3), ((1, 4, 5, 3), 1)]]
    [(4, 5, 3), (4, 5, 1)]
    """
    image = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
    grey = channels == 1 and image.shape[2] == 3
    return image.mean(2, keepdims=True) if grey else image


def _symmetric(kernel: Any) -> bool:
    """Whether the flips and rotations leave a kernel as it is; true where that is not known."""
    if kernel is None or isinstance(kernel, Tracer):
        return True
    kernel = np.asarray(kernel)
    kernel = np.moveaxis(kernel, 0, -1) if kernel.ndim == 3 else kernel
    turned = (turn(kernel, variant) for variant in VARIANTS)
    first = next(turned)
    return all(a.shape == first.shape and np.allclose(a, first) for a in turned)


def fastest_dtype(dtype: Any, device: Any = None) -> Any:
    """The type of the features for a device: bfloat16 never on a CPU.

    XLA's convolutions in bfloat16 take longer there, with and without instructions for it: 1.8
    times as long on a Zen 5, 2.5 times on a processor with AMX. On GPUs and TPUs they are faster.

    Args:
        dtype: "auto" chooses; bfloat16 on a CPU becomes float32, with a warning; others stay.
        device: JAX's default device if None.
    """
    if dtype is None or (dtype != "auto" and np.dtype(dtype) != jnp.bfloat16):
        return dtype
    if (device or jax.local_devices()[0]).platform != "cpu":
        return "bfloat16" if dtype == "auto" else dtype
    if dtype != "auto":
        message = "bfloat16 is slower than float32 on a CPU: computing in float32"
        warnings.warn(message, stacklevel=3)
    return "float32"


def upscale(
    image: Num[np.ndarray, "h w *c"],
    scale: int | None = None,
    *,
    weights: Weights | str | None = None,
    ensemble: bool = False,
    tile: int | Literal["auto"] | None = "auto",
    dtype: Any = None,
    noise: Literal["estimate"] | float = "estimate",
    iterations: int | None = None,
    operator: Any = None,
) -> Num[np.ndarray, "H W *c"]:
    """Upscale one picture.

    >>> import jax, numpy as np, isrrescnet_jax as isr
    >>> image = np.zeros((8, 9, 4), np.uint8)  # with an alpha channel
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> picture = isr.upscale(image, weights=weights)
    >>> picture.shape, picture.dtype  # with the shipped weights: isr.upscale(image, scale=4)
    ((16, 18, 4), dtype('uint8'))

    Args:
        image: (h, w), (h, w, 1), (h, w, 3), or with an alpha channel (h, w, 2), (h, w, 4); uint8,
            uint16 (0 to 65535), or floating point in [0, 255]. Colour and alpha become what looks
            on any background as if it had been put there before; colours that are not seen do not
            count.
        scale: 4 by default, or the scale of the weights where they are given.
        weights: the shipped ones for the scale by default, a name, a file or `Weights`.
        ensemble, tile, dtype, noise, iterations, operator: see `Upscaler`.

    Returns:
        The picture, `scale` times as high and wide, of the same type and with the same channels;
        integers are rounded half to even and saturated.

    Raises:
        ValueError: another shape or type, or a scale for which no weights are shipped.
    """
    image = np.asarray(image)
    if scale is None and operator is not None:
        scale = operator.scale
    if weights is None:
        weights = f"x{scale or 4}"
    if not isinstance(weights, Weights):
        weights = load_weights(weights)
    upscaler = Upscaler(weights, scale, operator, noise, iterations, dtype, ensemble, tile)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        raise ValueError(f"an image must be (h, w) or (h, w, 1 to 4), not {image.shape}")
    if not (image.dtype in (np.uint8, np.uint16) or np.issubdtype(image.dtype, np.floating)):
        raise ValueError(f"an image must be uint8, uint16 or floating point, not {image.dtype}")
    unit = 255 / 65535 if image.dtype == np.uint16 else 1
    planes = np.atleast_3d(image).astype(np.float32) * np.float32(unit)
    colors = planes.shape[2] - (planes.shape[2] in (2, 4))
    if planes.shape[2] > colors:
        result = np.dstack(restore(upscaler, planes[:, :, :colors], planes[:, :, colors]))
    else:
        result = upscaler(planes)
    if np.issubdtype(image.dtype, np.integer):
        result = np.clip(np.rint(result / unit), 0, np.iinfo(image.dtype).max)
    return result.astype(image.dtype).reshape(*result.shape[:2], *image.shape[2:])
