"""Photographs at x4: beside bicubic interpolation and the truth, and iteration by iteration.

All come with scikit-image, and are free; none was trained on. What is enlarged is a square of them,
reduced by `degrade` and upscaled by itself: what one sees is what is measured, borders included.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.evaluation import metrics
from isrrescnet_jax.evaluation.degrade import degrade, resize

from ..studies import common
from .panels import panels

SCALE = 4
CREDITS = {
    "astronaut": "NASA, public domain",
    "chelsea": "Stéfan van der Walt, CC0",
    "coffee": "Rachel Michetti, CC0",
    "rocket": "SpaceX, public domain",
}


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square of a photograph.

    Attributes:
        name: of the photograph, in `skimage.data`.
        left, top: its corner.
    """

    name: str
    left: int
    top: int

    def truth(self, side: int) -> UInt8[np.ndarray, "side side 3"]:
        """Its pixels."""
        photograph = common.colour(self.name)
        return photograph[self.top : self.top + side, self.left : self.left + side]


# Sharp edges, an eye in fur, letters and a lattice that are finer than the input's pixels.
CROPS = (
    Crop("coffee", 324, 232),
    Crop("chelsea", 120, 72),
    Crop("astronaut", 124, 336),
    Crop("rocket", 0, 300),
)
FACE = Crop("astronaut", 184, 72)


def example(path: Path) -> None:
    """The photograph that the README upscales, a quarter as high and wide."""
    small = degrade(common.colour("astronaut"), SCALE)
    images.write(images.Picture(small.astype(np.float32)), path)


def _caption(title: str, image: UInt8[np.ndarray, "h w 3"], truth: np.ndarray) -> str:
    return f"{title}, {metrics.luma_psnr(image, truth):.2f} dB"


def crops(path: Path, side: int) -> None:
    """Each crop as it was given, interpolated, by us, and as it was."""
    upscaler = isr.Upscaler(isr.load_weights(f"x{SCALE}"))
    rows = []
    for crop in CROPS:
        truth = crop.truth(side)
        low = degrade(truth, SCALE)
        bicubic = resize(low, side, side)
        ours = images.to_uint8(upscaler(low.astype(np.float32)))
        row = {f"input, {low.shape[1]} × {low.shape[0]} pixels": low}
        row |= {_caption("bicubic", bicubic, truth): bicubic}
        row |= {_caption(f"ISRResCNet x{SCALE}", ours, truth): ours}
        rows.append(row | {"truth": truth})
    notes = [f"{crop.name}: {CREDITS[crop.name]}" for crop in CROPS]
    panels(path, rows, notes)


def iterates(path: Path, side: int) -> None:
    """All that the weights with ten iterations make of a face, with the truth at the end."""
    truth = FACE.truth(side)
    low = degrade(truth, SCALE).astype(np.float32)
    solution = isr.Upscaler(isr.load_weights(f"x{SCALE}_k10")).trace(low)
    assert solution.iterates is not None
    every = [images.to_uint8(np.asarray(x)[0]) for x in (solution.initial, *solution.iterates)]
    named = [(_caption(f"x$_{{{k}}}$", x, truth), x) for k, x in enumerate(every)]
    named.append(("truth", truth))
    panels(path, [dict(named[:6]), dict(named[6:])])
