"""A picture through a network, with all that belongs to it: transparency, depth, what it says."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float

from ..transparency import Model, composites, restored
from .metadata import Metadata
from .picture import Picture, to_uint8


def enlarged(
    model: Model, picture: Picture, scale: int, *, software: str | None = None, strip: bool = False
) -> Picture:
    """A picture enlarged, with its transparency, bit depth, colour profile and metadata.

    >>> import numpy as np
    >>> picture = Picture(np.full((2, 3, 3), 7.0, np.float32))
    >>> big = enlarged(lambda color: color.repeat(2, 0).repeat(2, 1), picture, 2)
    >>> big.color.shape, big.alpha, big.bits
    ((4, 6, 3), None, 8)

    Args:
        model: colours (h, w, c) in [0, 255] to colours (scale h, scale w, c), not rounded.
        scale: the factor of the model, by which the print's dots per inch grow.
        software: what is said to have made it; by default what the picture says.
        strip: leave out what the picture says about itself.

    Raises:
        ValueError: the model gives values that are not finite.
    """
    one = lambda colors: map(model, colors)  # noqa: E731
    return enlarged_together(one, [picture], scale, software=software, strip=strip)[0]


def enlarged_together(
    models: Callable[[Sequence[Float[np.ndarray, "h w c"]]], Iterable[Float[np.ndarray, "H W c"]]],
    pictures: Sequence[Picture],
    scale: int,
    *,
    software: str | None = None,
    strip: bool = False,
) -> list[Picture]:
    """`enlarged` of each picture, where the model takes many at once (`Upscaler.each`).

    Raises:
        ValueError: as there.
    """
    sheets = [
        [picture.color] if picture.alpha is None else composites(picture.color, picture.alpha)
        for picture in pictures
    ]
    made, found = iter(models([color for sheet in sheets for color in sheet])), []
    for picture, sheet in zip(pictures, sheets, strict=True):
        metadata = Metadata() if strip else picture.metadata.enlarged(scale)
        metadata = dataclasses.replace(metadata, software=software or metadata.software)
        results = [next(made) for _ in sheet]
        color, alpha = results[0], None
        if picture.alpha is not None:
            color, alpha = restored(picture.color, picture.alpha, sheet, results)
        if not np.isfinite(np.sum(color, dtype=np.float64)):
            raise ValueError("the weights give values here that are not finite")
        found.append(dataclasses.replace(picture, color=color, alpha=alpha, metadata=metadata))
    return found


def rounded(picture: Picture) -> Picture:
    """The same with values of 8 bits, a quarter of the memory."""
    color, alpha = picture.color, picture.alpha
    alpha = None if alpha is None else to_uint8(alpha)
    return dataclasses.replace(picture, color=to_uint8(color), alpha=alpha, bits=8)
