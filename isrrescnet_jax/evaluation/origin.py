"""Whether low-resolution images are what the papers measure on."""

import dataclasses
import os
from collections.abc import Mapping
from typing import get_args

import numpy as np
from jaxtyping import UInt8

from .degrade import Border, degrade

# Grey levels by which other ways to compute the same may differ, and by which they may be brighter.
_ROUNDING, _BRIGHTER = 1, 0.5


@dataclasses.dataclass(frozen=True, order=True)
class Difference:
    """Between two images, in grey levels: the mean and the largest over pixels and channels."""

    mean: float
    largest: int


def difference(
    hr: UInt8[np.ndarray, "H W 3"], lr: UInt8[np.ndarray, "h w 3"], scale: int
) -> Difference | None:
    """Between `lr` and what `degrade` makes of `hr` with the border that fits better.

    None where that is no more than rounding.
    """
    found = []
    for border in get_args(Border):
        signed = degrade(hr, scale, border).astype(np.int16) - lr
        apart = np.abs(signed)
        found.append(Difference(float(apart.mean()), int(apart.max())))
        if found[-1].largest <= _ROUNDING and abs(signed.mean()) <= _BRIGHTER:
            return None
    return min(found)


def remark(
    differences: Mapping[str, Difference], folder: str | os.PathLike, images: int, scale: int
) -> str:
    """One line about images, by name, that differ, of so many in a folder; "" if none does."""
    if not differences:
        return ""
    names = list(differences)
    mean = max(one.mean for one in differences.values())
    largest = max(one.largest for one in differences.values())
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return (
        f"{folder}: {len(names)} of {images} images are not the bicubic reduction that papers "
        f"measure on (mean difference up to {mean:.2f}, largest {largest} grey levels: "
        f"{', '.join(names[:3])}{more}): scores cannot be compared with theirs; "
        f"make them with isrrescnet degrade --scale {scale}"
    )
