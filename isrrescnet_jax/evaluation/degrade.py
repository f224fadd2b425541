"""Low-resolution images out of high-resolution ones, as MATLAB makes them.

Plain NumPy on uint8: the benchmarks' LR images are reproduced bit for bit, on any device. The real-
valued counterpart that gradients pass through is `Bicubic(scale, reference=False).forward`.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from scipy import ndimage

from ..physics.sampling import Taps, imresize_taps

Border = Literal["symmetric", "replicate"]


def modcrop(image: Shaped[np.ndarray, "h w *c"], scale: int) -> Shaped[np.ndarray, "H W *c"]:
    """Cut bottom and right so that both sides are multiples of `scale`.

    Raises:
        ValueError: a side is shorter than `scale`.
    """
    h, w = image.shape[:2]
    if min(h, w) < scale:
        raise ValueError(f"an image of {w}x{h} pixels is too small for scale {scale}")
    return image[: h - h % scale, : w - w % scale]


def resize(
    image: UInt8[np.ndarray, "h w *c"], h: int, w: int, border: Border = "symmetric"
) -> UInt8[np.ndarray, "{h} {w} *c"]:
    """MATLAB's `imresize(image, [h w], "bicubic")` on uint8 with both factors equal.

    Rows first; the result is rounded and saturated to uint8 between the passes, too.
    """
    return _to_uint8(_resize_unrounded(image, h, w, border))


def degrade(
    hr: UInt8[np.ndarray, "H W *c"],
    scale: int,
    border: Border = "symmetric",
    kernel: Float[np.ndarray, "k k"] | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> UInt8[np.ndarray, "h w *c"]:
    """Reduce an image by an integer factor: y = (x * k) reduced bicubically + n.

    In this order: `modcrop`; blur, rounded to uint8 as by MATLAB's `imfilter`; bicubic, antialiased
    reduction as by `imresize`, rounded to uint8 between its passes; noise; rounding to uint8.

    Args:
        hr: grey or with any number of channels, which are treated alike.
        scale: the factor.
        border: how the image goes on beyond its edge: "symmetric" mirrors it, edge pixel included,
            as MATLAB does and the official demo's LR images have it; "replicate" repeats the edge
            pixel, as the usual copies of the benchmarks have it.
        kernel: blur (correlation), odd and square; used as it is, so it should sum to one.
        noise: standard deviation of white Gaussian noise, in grey levels.
        seed: of the noise.

    Raises:
        ValueError: another type or shape, a side shorter than `scale`, a kernel or noise level that
            makes no sense.
    """
    if hr.dtype != np.uint8 or hr.ndim not in (2, 3):
        raise ValueError(f"an image must be uint8 (h, w) or (h, w, c), not {hr.dtype} {hr.shape}")
    if scale < 1:
        raise ValueError(f"scale must be at least 1, not {scale}")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be a number of grey levels of at least 0, not {noise}")
    x = modcrop(hr, scale)
    if kernel is not None:
        x = _to_uint8(_blur(x, np.asarray(kernel, np.float64), border))
    y = _resize_unrounded(x, x.shape[0] // scale, x.shape[1] // scale, border)
    if noise:
        y = y + np.random.default_rng(seed).normal(0, noise, y.shape)
    return _to_uint8(y)


def _resize_unrounded(
    image: UInt8[np.ndarray, "_ _ *c"], h: int, w: int, border: Border
) -> Float[np.ndarray, "{h} {w} *c"]:
    tall = _to_uint8(_apply(imresize_taps(image.shape[0], h, border), image))
    wide = _apply(imresize_taps(image.shape[1], w, border), tall.swapaxes(0, 1))
    return wide.swapaxes(0, 1)


def _apply(taps: Taps, x: UInt8[np.ndarray, "n ..."]) -> Float[np.ndarray, "m ..."]:
    """Interpolate along the first axis; always in the same order, so ties round the same way."""
    weights = taps.weight.T.reshape(*taps.weight.T.shape, *[1] * (x.ndim - 1))
    out = np.zeros((len(taps.index), *x.shape[1:]))
    for index, weight in zip(taps.index.T, weights, strict=True):
        out += weight * x[index]
    return out


def _blur(x: UInt8[np.ndarray, "h w *c"], kernel: np.ndarray, border: Border) -> np.ndarray:
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"a blur kernel must be (k, k) with odd k, not {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise ValueError("a blur kernel must be finite")
    kernel = kernel.reshape(*kernel.shape, *[1] * (x.ndim - 2))
    mode = "nearest" if border == "replicate" else "reflect"  # SciPy's names
    return ndimage.correlate(x.astype(np.float64), kernel, mode=mode)


def _to_uint8(x: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """MATLAB's cast: halves are rounded away from zero, where NumPy rounds them to even."""
    return np.clip(np.floor(x + 0.5), 0, 255).astype(np.uint8)
