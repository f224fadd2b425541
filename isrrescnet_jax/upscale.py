"""Picture in, picture out: the network behind array types, channel counts and memory limits."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from . import resample
from .network import LearnedPrior
from .operators import Bicubic
from .tiling import TiledPrior
from .unroll import Solution, reconstruct
from .weights import Weights, load_weights

# Above this many high-resolution pixels `tile="auto"` runs the network in tiles: its features take
# about 1.6 kB for each pixel in float32.
WHOLE_PIXELS = 1024**2
DEFAULT_TILE = 512


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """A network made ready for one job; call it on one picture after the other.

    Compiled once for each picture size. Values are in [0, 255] throughout.

    Attributes:
        weights: what to run.
        scale: the factor; that of the weights by default. The network works at high resolution
            and accepts any, but does best at the one it was trained for.
        operator: how the picture came about; `Bicubic(scale)` by default.
        noise: "estimate", or the known noise level in grey levels.
        iterations: all that were trained by default.
        dtype: of the features, "float32" or "bfloat16".
        ensemble: average over the 8 flips and rotations ("+" in the paper), 8 times the work.
        tile: side of tiles in high-resolution pixels; "auto" tiles pictures of more than a
            megapixel (`WHOLE_PIXELS`), None never does. The result does not depend on it.
    """

    weights: Weights
    scale: int | None = None
    operator: Any = None
    noise: Literal["estimate"] | float = "estimate"
    iterations: int | None = None
    dtype: Any = None
    ensemble: bool = False
    tile: int | Literal["auto"] | None = "auto"

    def __post_init__(self):
        if self.operator is None:
            scale = self.scale or self.weights.config.scale
            if scale is None:
                raise ValueError("these weights name no scale: give one")
            object.__setattr__(self, "operator", Bicubic(scale))
        if self.scale not in (None, self.operator.scale):
            raise ValueError(f"scale {self.scale} and operator {self.operator} do not agree")
        object.__setattr__(self, "scale", self.operator.scale)
        if isinstance(self.tile, int) and self.tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, not {self.tile}")
        # Moved to the device once, not with every picture.
        object.__setattr__(self, "weights", jax.tree.map(jnp.asarray, self.weights))

    def _tile(self, lr: Array) -> int | None:
        if self.tile == "auto":
            pixels = lr.shape[1] * lr.shape[2] * self.scale**2
            return DEFAULT_TILE if pixels > WHOLE_PIXELS else None
        return self.tile

    def _batch(self, color: Float[Array, "h w c"]) -> Float[Array, "n h w c"]:
        """One picture as the network's batch: grey as RGB, or colours as grey pictures."""
        lr = jnp.asarray(color, jnp.float32)
        if lr.ndim != 3 or lr.shape[2] not in (1, 3) or 0 in lr.shape:
            raise ValueError(f"a picture must be (h, w, 3) or (h, w, 1), not {tuple(lr.shape)}")
        channels = self.weights.config.channels
        if channels == 1:
            return jnp.moveaxis(lr, 2, 0)[..., None]
        return jnp.broadcast_to(lr, (*lr.shape[:2], channels))[None]

    def _picture(self, batch: Float[Array, "*k n H W c"], channels: int) -> Float[Array, "..."]:
        """The inverse of `_batch`; grey is the mean of the channels."""
        if self.weights.config.channels == 1:
            return jnp.moveaxis(batch[..., 0], -3, -1)
        batch = batch[..., 0, :, :, :]
        return batch.mean(-1, keepdims=True) if channels == 1 else batch

    def __call__(self, color: Float[Array, "h w c"]) -> Float[np.ndarray, "H W c"]:
        """The super-resolved picture, in [0, 255] and not rounded.

        Raises:
            ValueError: not (h, w, 3) or (h, w, 1).
        """
        lr = self._batch(color)
        run = _ensemble if self.ensemble else _image
        image = run(self.weights, lr, self.operator, **self._options(lr))
        return np.asarray(self._picture(image, np.shape(color)[2]))

    def trace(self, color: Float[Array, "h w c"]) -> Solution:
        """All iterates, as `reconstruct(..., trace=True)` gives them, of a batch of one."""
        lr = self._batch(color)
        return _trace(self.weights, lr, self.operator, **self._options(lr))

    def _options(self, lr: Array) -> dict[str, Any]:
        return {
            "noise": self.noise,
            "iterations": self.iterations,
            "dtype": self.dtype,
            "tile": self._tile(lr),
        }


_jit = functools.partial(jax.jit, static_argnames=("noise", "iterations", "dtype", "tile"))


def _solve(weights, lr, operator, *, tile, dtype, trace=False, **options) -> Solution:
    prior = LearnedPrior.from_weights(weights, dtype)
    if tile is not None:
        prior = TiledPrior(prior, tile)
    return reconstruct(weights, lr, operator=operator, prior=prior, trace=trace, **options)


@_jit
def _image(weights, lr, operator, **options) -> Float[Array, "n H W c"]:
    return _solve(weights, lr, operator, **options).image


@_jit
def _trace(weights, lr, operator, **options) -> Solution:
    return _solve(weights, lr, operator, trace=True, **options)


@_jit
def _ensemble(weights, lr, operator, **options) -> Float[Array, "n H W c"]:
    """Mean over the dihedral group: flips of the picture and of its transpose, in one program."""

    def upright(lr):  # the identity, both mirrors and the half turn, one after the other
        def flipped(flip):
            rows, columns = flip
            mirror = lambda x: jnp.where(rows, x[:, ::-1], x)  # noqa: E731
            mirror_both = lambda x: jnp.where(columns, mirror(x)[:, :, ::-1], mirror(x))  # noqa: E731
            return mirror_both(_solve(weights, mirror_both(lr), operator, **options).image)

        flips = jnp.array([[0, 0], [1, 0], [0, 1], [1, 1]], bool)
        return jax.lax.map(flipped, flips).mean(0)

    transposed = upright(lr.swapaxes(1, 2)).swapaxes(1, 2)
    return (upright(lr) + transposed) / 2


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

    Args:
        image: (h, w), (h, w, 1), (h, w, 3), or with an alpha channel (h, w, 2), (h, w, 4); uint8,
            uint16 (0 to 65535), or floating point in [0, 255]. Alpha is interpolated bicubically.
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
    result = upscaler(planes[:, :, :colors])
    if planes.shape[2] > colors:
        result = np.dstack([result, upscale_alpha(planes[:, :, colors], upscaler.scale)])
    if np.issubdtype(image.dtype, np.integer):
        result = np.clip(np.rint(result / unit), 0, np.iinfo(image.dtype).max)
    return result.astype(image.dtype).reshape(*result.shape[:2], *image.shape[2:])


def upscale_alpha(alpha: Float[np.ndarray, "h w"], scale: int) -> Float[np.ndarray, "H W"]:
    """An alpha channel, interpolated by MATLAB's bicubic and clipped to [0, 255].

    The network is trained on photographs; on the flat areas and hard edges of a mask plain
    interpolation is as good, and leaves 0 and 255 what they are.
    """
    rows, columns = (resample.imresize_taps(n, n * scale) for n in alpha.shape)
    tall = np.einsum("it,itw->iw", rows.weight, alpha[rows.index])
    wide = np.einsum("jt,hjt->hj", columns.weight, tall[:, columns.index])
    return np.clip(wide, 0, 255).astype(np.float32)
