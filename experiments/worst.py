"""The crops of validation images that come out worst, beside the truth, to see what they share.

    python -m experiments.worst kodak/ worst.png [--scale 4] [--weights FILE]

Each image contributes its worst crop alone, or one image would take all the places. Crops lie on a
grid, and are ranked by their mean squared error on Y.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from jaxtyping import UInt8
from tyro.conf import Positional

from isrrescnet_jax import Bicubic, Upscaler, images, load_weights
from isrrescnet_jax.evaluation.degrade import degrade, modcrop
from isrrescnet_jax.evaluation.metrics import luma, luma_psnr

from .pictures.panels import panels

Image = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Worst:
    """What is looked at."""

    source: Positional[Path]
    """Folder of images."""
    target: Positional[Path]
    """Picture to write."""
    scale: Literal[2, 3, 4] = 4
    """Factor."""
    weights: str | None = None
    """Shipped name or file; the shipped ones for the scale by default."""
    count: int = 10
    """Crops."""
    side: int = 48
    """Of the crops, in pixels."""


def crops(truth: Image, made: Image, side: int) -> tuple[float, slice, slice]:
    """The largest error of a crop, and where it lies."""
    error = (luma(truth).astype(float) - luma(made)) ** 2
    height, width = error.shape
    places = [
        (slice(y, y + side), slice(x, x + side))
        for y in range(0, height - side + 1, side // 2)
        for x in range(0, width - side + 1, side // 2)
    ]
    errors = [float(error[place].mean()) for place in places]
    return max(errors), *places[int(np.argmax(errors))]


def main(options: Worst) -> None:
    """Find them, print and draw them."""
    scale = options.scale
    upscaler = Upscaler(load_weights(options.weights or f"x{scale}"), scale)
    bicubic = Bicubic(scale, reference=False)
    found = []
    for path in images.find([options.source]):
        truth = modcrop(images.read_rgb(path), scale)
        lr = degrade(truth, scale)
        made = images.to_uint8(upscaler(lr))
        plain = images.to_uint8(np.asarray(bicubic.initial(lr[None].astype(np.float32)))[0])
        error, *place = crops(truth, made, options.side)
        found.append((error, path.stem, *(image[tuple(place)] for image in (truth, plain, made))))
    found.sort(key=lambda crop: -crop[0])
    rows = []
    for _, name, truth, plain, made in found[: options.count]:
        before, after = (luma_psnr(image, truth) for image in (plain, made))
        print(f"{name}: bicubic {before:.2f} dB, this {after:.2f} dB")
        captions = f"{name}: the truth", f"bicubic, {before:.1f} dB", f"x{scale}, {after:.1f} dB"
        rows.append(dict(zip(captions, (truth, plain, made), strict=True)))
    pairs = [rows[i] | rows[i + 1] for i in range(0, len(rows) - 1, 2)]
    panels(options.target, pairs + rows[len(pairs) * 2 :], side=4 * options.side)


if __name__ == "__main__":
    main(tyro.cli(Worst, description=__doc__))
