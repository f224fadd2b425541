"""The 8 symmetries of the square: flips and rotations of an image.

They are numbered 0 to 7, and whatever draws them at random relies on the numbers: bit 0 flips the
rows, bit 1 the columns, and then bit 2 transposes.
"""

from typing import Any

from jaxtyping import Shaped

VARIANTS = range(8)


def turn(image: Shaped[Any, "h w *c"], variant: int) -> Shaped[Any, "_ _ *c"]:
    """One of the 8 variants of an image, (h, w, ...) or transposed (w, h, ...); a view of it."""
    image = image[:: -1 if variant & 1 else 1, :: -1 if variant & 2 else 1]
    return image.swapaxes(0, 1) if variant & 4 else image


def turn_back(image: Shaped[Any, "h w *c"], variant: int) -> Shaped[Any, "_ _ *c"]:
    """The image of which `turn` made this one: turn_back(turn(x, variant), variant) = x."""
    image = image.swapaxes(0, 1) if variant & 4 else image
    return image[:: -1 if variant & 1 else 1, :: -1 if variant & 2 else 1]
