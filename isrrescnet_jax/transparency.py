"""Pictures with transparency through a network that knows colours only."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Real

Model = Callable[[Float[np.ndarray, "h w c"]], Float[np.ndarray, "H W c"]]

# What a picture is put on: a page, something in between, and a dark page.
_BACKGROUNDS = np.array([255, 128, 0], np.float32)
# Pixels: an edge of the mask farther away changes alpha by less than a grey level.
_NEAR = 3
# Grey levels beyond those around that a composite may have, and a colour, which is seen less.
_RINGING, _TINT = 6, 32
_FAR = 16  # grey levels from what was made: no picture comes near
_AT_ONCE = 1 << 18  # pixels of the result


def restore(
    model: Model, color: Real[np.ndarray, "h w c"], alpha: Real[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "H W c"], Float[np.ndarray, "H W"]]:
    """Colour and alpha that look on any background like what the model makes of the composite.

    With f the model, c the colour, a = alpha / 255 and backgrounds b, white first, of white, grey
    and black,

        (C, A) = argmin max_b |A C + (1 - A) b - f(a c + (1 - a) b)|

    in each pixel near an edge of alpha, over the channels, too; composites and colour stay within
    the values around, but for a few grey levels. A model that is not linear leaves a rest, for one
    picture has one edge, on whatever it is put. Where alpha is flat it stays what it is, to the
    last bit. Colours that are not seen do not count; there those of the nearest visible pixels go
    on, for programs that blend neighbours.

    Args:
        model: the network, for values in [0, 255]; a multiple of height and width comes out.
        color: values in [0, 255].
        alpha: values in [0, 255].

    Returns:
        Colour and alpha in [0, 255], or as the model gives it where all of alpha is flat.
    """
    sheets = composites(color, alpha)
    return restored(color, alpha, sheets, [model(each) for each in sheets])


def composites(
    color: Real[np.ndarray, "h w c"], alpha: Real[np.ndarray, "h w"]
) -> list[Float[np.ndarray, "h w c"]]:
    """What the model is to see: the picture on each background, or one of flat alpha as it is."""
    color, alpha = np.asarray(color, np.float32), np.asarray(alpha, np.float32)
    if not _edges(alpha).any():
        return [_extended(color, alpha)]
    opacity = alpha[..., None] / np.float32(255)
    return [opacity * color + (1 - opacity) * b for b in _BACKGROUNDS]


def restored(
    color: Real[np.ndarray, "h w c"],
    alpha: Real[np.ndarray, "h w"],
    sheets: Sequence[Float[np.ndarray, "h w c"]],
    made: Sequence[Float[np.ndarray, "H W c"]],
) -> tuple[Float[np.ndarray, "H W c"], Float[np.ndarray, "H W"]]:
    """`restore`, from the `composites` that the model has seen, and what it made of them."""
    color, alpha = np.asarray(color, np.float32), np.asarray(alpha, np.float32)
    if len(made) == 1:
        return made[0], _repeated(alpha, len(made[0]) // len(alpha))
    near, opacity = _edges(alpha), alpha[..., None] / np.float32(255)
    made = [np.clip(each, 0, 255) for each in made]
    low, high = _ranges(sheets, _RINGING)
    color = _extended(color, alpha)
    darkest, brightest = _ranges([color], _TINT)

    scale = len(made[0]) // len(alpha)
    big = _repeated(color, scale)
    big_alpha = _repeated(alpha, scale)
    height = max(1, _AT_ONCE // (alpha.shape[1] * scale**2))
    for start in range(0, len(alpha), height):
        rows = slice(start, start + height)
        fine = slice(start * scale, (start + height) * scale)
        wanted = np.stack([each[fine] for each in made])
        clear = 1 - _repeated(opacity[rows], scale)  # the share of the background
        seen = _middle(wanted - clear * _BACKGROUNDS[:, None, None, None])  # and of the colour
        at = np.nonzero(_repeated(near[rows], scale))
        around = (slice(None), at[0] // scale + start, at[1] // scale)
        clear[(*at, 0)], seen[at] = _nearest(
            wanted[:, *at], (low[around], high[around]), (darkest[around][0], brightest[around][0])
        )
        np.divide(seen, 1 - clear, out=big[fine], where=clear < 1 - 1e-4)
        big_alpha[fine][at] = 255 * (1 - clear[(*at, 0)])
    return np.clip(big, 0, 255), big_alpha


def _nearest(
    made: Float[np.ndarray, "b n c"],
    composites: tuple[Float[np.ndarray, "b n c"], Float[np.ndarray, "b n c"]],
    colors: tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n c"]]:
    """The background's share w and the colour's p of each pixel, p + w b nearest to what was made.

    For a given w the best p is known, and the largest difference is convex in w: golden sections.
    Where a hard edge lies elsewhere on each background nothing comes near, and the best would be
    wide; the median of what channels and pairs of backgrounds say is one edge, and sharp.

    Args:
        made: what the model makes of the picture on each background.
        composites, colors: between what they may be.
    """
    backgrounds = _BACKGROUNDS[:, None, None]

    def best(clear: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, "n c"], np.ndarray]:
        clear = clear[:, None]
        behind = clear * backgrounds
        least = np.maximum((composites[0] - behind).max(0), colors[0] * (1 - clear))
        most = np.minimum((composites[1] - behind).min(0), colors[1] * (1 - clear))
        seen = np.clip(_middle(made - behind), np.minimum(least, most), most)
        far = np.abs(seen + behind - made).max((0, 2))
        return seen, far + 255 * np.maximum(least - most, 0).max(1)

    first, last = np.zeros(made.shape[1], np.float32), np.ones(made.shape[1], np.float32)
    for _ in range(24):  # which leave a hundred-thousandth
        step = np.float32(0.381966) * (last - first)
        left = best(first + step)[1] < best(last - step)[1]
        first, last = np.where(left, first, first + step), np.where(left, last - step, last)
    clear = (first + last) / 2
    apart, gaps = (values - np.roll(values, 1, 0) for values in (made, backgrounds))
    median = np.clip(np.median(apart / gaps, (0, 2)), 0, 1)
    clear = np.where(best(clear)[1] > _FAR, median, clear)
    return clear, best(clear)[0]


def _middle(values: Float[np.ndarray, "b ..."]) -> Float[np.ndarray, "..."]:
    """From which the largest difference to all of them is least."""
    return (values.max(0) + values.min(0)) / 2


def _ranges(
    pictures: Sequence[Float[np.ndarray, "h w c"]], more: float
) -> tuple[Float[np.ndarray, "b h w c"], Float[np.ndarray, "b h w c"]]:
    """The smallest and largest values within two pixels, and some grey levels more."""
    from scipy import ndimage

    low = [ndimage.minimum_filter(each, (5, 5, 1), mode="nearest") for each in pictures]
    high = [ndimage.maximum_filter(each, (5, 5, 1), mode="nearest") for each in pictures]
    return np.maximum(np.stack(low) - more, 0), np.minimum(np.stack(high) + more, 255)


def _edges(alpha: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    from scipy import ndimage  # only for pictures that need it

    size = 2 * _NEAR + 1
    lowest = ndimage.minimum_filter(alpha, size, mode="nearest")
    return lowest != ndimage.maximum_filter(alpha, size, mode="nearest")


def _extended(
    color: Float[np.ndarray, "h w c"], alpha: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w c"]:
    """The colours; under fully transparent pixels those of the nearest others."""
    hidden = alpha <= 0
    if hidden.all() or not hidden.any():
        return color
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    rows, columns = np.asarray(nearest)
    return color[rows, columns]


def _repeated(values: np.ndarray, scale: int) -> np.ndarray:
    return values.repeat(scale, 0).repeat(scale, 1)
