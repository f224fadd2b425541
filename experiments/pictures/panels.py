"""Rows of images with captions, every pixel a square of whole pixels of the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num

from ..studies import common

_INK = "#343a40"


def panels(
    path: Path,
    rows: Sequence[Mapping[str, Num[np.ndarray, "h w *c"]]],
    notes: Sequence[str] = (),
    side: int = 192,
    gap: int = 8,
    colours: int | None = None,
) -> None:
    """Draw them.

    Args:
        path: the PNG to write.
        rows: the images of each row with their captions, square, in [0, 255].
        notes: a small one to the left of each row, from bottom to top.
        side: of an image in the picture, in pixels: a multiple of theirs shows them unchanged.
        gap: between two of them.
        colours: so many at most; all by default.
    """
    head, margin = 26, 20 if notes else 0
    width = margin + gap + max(map(len, rows)) * (side + gap)
    height = len(rows) * (side + head) + gap
    figure = common.blank(width / common.DPI, height / common.DPI)
    figure.set_layout_engine("none")
    for i, row in enumerate(rows):
        top = (i + 1) * head + i * side
        for j, (caption, image) in enumerate(row.items()):
            left = margin + gap + j * (side + gap)
            place = (left / width, 1 - (top + side) / height, side / width, side / height)
            axes = figure.add_axes(place)
            axes.imshow(np.squeeze(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_axis_off()
            options = {"ha": "center", "va": "bottom", "fontsize": 8.5, "color": _INK}
            figure.text((left + side / 2) / width, 1 - (top - 5) / height, caption, **options)
        if notes:
            middle = (margin / 2 + 2) / width, 1 - (top + side / 2) / height
            options = {"ha": "center", "va": "center", "fontsize": 6.5, "color": _INK}
            figure.text(*middle, notes[i], rotation=90, **options)
    common.save(figure, path, colours)
