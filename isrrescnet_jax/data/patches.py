"""Random patches, the same of both images of a pair."""

import numpy as np
from jaxtyping import UInt8

from .. import dihedral
from .pairs import Image8, Pair


def random_patch(
    pair: Pair, rng: np.random.Generator, *, patch: int, scale: int, augment: bool
) -> Pair:
    """A random square of a pair, the LR one at (i, j) and the HR one at (s i, s j).

    Args:
        pair: as `Pairs` gives it.
        rng: draws i and j uniformly from all places, and the variant.
        patch: side of the HR square.
        augment: flip and transpose both alike, into one of 8 variants (see `dihedral.turn`).
    """
    size = patch // scale
    i, j = (int(rng.integers(side - size + 1)) for side in pair["lr"].shape[:2])
    variant = int(rng.integers(8)) if augment else 0
    return {
        "lr": _square(pair["lr"], i, j, size, variant),
        "hr": _square(pair["hr"], scale * i, scale * j, patch, variant),
    }


def _square(image: Image8, i: int, j: int, size: int, variant: int) -> UInt8[np.ndarray, "n n 3"]:
    # As items of three bytes: NumPy turns them around twice as fast as single ones.
    pixels = image.view("V3")[i : i + size, j : j + size, 0]
    turned = np.ascontiguousarray(dihedral.turn(pixels, variant))
    return turned.view(np.uint8).reshape(size, size, 3)
