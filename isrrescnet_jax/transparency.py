"""Pictures with transparency through a network that knows colours only."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Model = Callable[[Float[np.ndarray, "h w c"]], Float[np.ndarray, "H W c"]]

# Pixels: an edge of the mask farther away changes alpha by less than a grey level.
_NEAR = 3
_FAINT = 16  # of alpha: of a colour under it at most a sixteenth is seen


def restore(
    model: Model, color: Float[np.ndarray, "h w c"], alpha: Float[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "H W c"], Float[np.ndarray, "H W"]]:
    """Colour and alpha of a picture, each by the model; values in [0, 255].

    What lies under transparent pixels is not seen, and must not be: there the colours of the
    nearest visible pixels go on, so that no edge but that of alpha is sharpened. Alpha is restored
    as a grey picture. Where it is flat it stays what it is, to the last bit.
    """
    big = model(extended(color, alpha))
    return big, _restored_alpha(model, alpha, len(big) // len(alpha))


def extended(
    color: Float[np.ndarray, "h w c"], alpha: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w c"]:
    """The colours; where hardly anything is seen of them those around, as far as they are seen.

    Under fully transparent pixels they are those of the nearest others, and under faint ones the
    mean of the neighbourhood, weighted by the square of alpha: beside an opaque edge its colour,
    far from one their own.
    """
    hidden, faint = alpha <= 0, (alpha > 0) & (alpha < _FAINT)
    if hidden.all() or not (hidden.any() or faint.any()):
        return color
    from scipy import ndimage  # only for pictures that need it

    if faint.any() and (alpha >= _FAINT).any():
        weight = np.square(alpha.astype(np.float64))[..., None]
        total, mixed = (
            ndimage.gaussian_filter(a, (1.5, 1.5, 0), mode="nearest")
            for a in (weight, weight * color)
        )
        mixed = mixed / np.maximum(total, 1e-9)
        color = np.where(faint[..., None], mixed, color).astype(color.dtype)
    if not hidden.any():
        return color
    nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    rows, columns = np.asarray(nearest)
    return color[rows, columns]


def _restored_alpha(
    model: Model, alpha: Float[np.ndarray, "h w"], scale: int
) -> Float[np.ndarray, "H W"]:
    from scipy import ndimage

    lowest = ndimage.minimum_filter(alpha, 2 * _NEAR + 1, mode="nearest")
    flat = lowest == ndimage.maximum_filter(alpha, 2 * _NEAR + 1, mode="nearest")
    kept = alpha.repeat(scale, 0).repeat(scale, 1)
    if flat.all():
        return kept
    big = np.clip(model(alpha[..., None])[..., 0], 0, 255)
    return np.where(flat.repeat(scale, 0).repeat(scale, 1), kept, big)
