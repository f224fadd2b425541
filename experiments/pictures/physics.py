"""What the two kinds of physics do: to a photograph's border, a line and a single pixel."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.evaluation.degrade import degrade

from ..studies import common
from .panels import panels

SIDE = 216  # of an image in a picture: a multiple of all of these
KINDS = {"reference": True, "exact": False}


def shown(image) -> np.ndarray:
    """One image of a batch in bytes."""
    return images.to_uint8(np.asarray(image[0]))


def borders(path: Path) -> None:
    """The upper left corner of what the iterations start from."""
    photograph = degrade(common.colour("astronaut"), 4)
    y = jnp.asarray(photograph, jnp.float32)[None]
    initial = {
        kind: shown(isr.Bicubic(4, reference=reference).initial(y))[:72, :72]
        for kind, reference in KINDS.items()
    }
    panels(path, [{"y": photograph[:18, :18]} | initial], side=SIDE)


def fractions(path: Path) -> None:
    """A fine slanted line, reduced and enlarged by both."""
    rows, columns = np.mgrid[:96, :96]
    line = 255 * np.exp(-((columns - 0.35 * rows - 30) ** 2) / 18)
    x = jnp.asarray(line, jnp.float32)[None, :, :, None]
    y = isr.Bicubic(4, reference=False).forward(x)
    enlarged = {
        "reference: U y": isr.Bicubic(4, reference=True).upsample(y),
        "exact: initial(y)": isr.Bicubic(4, reference=False).initial(y),
    }
    cut = slice(28, 64)
    pictures = {"x": shown(x), "y = D x": shown(y).repeat(4, 0).repeat(4, 1)}
    pictures |= {title: shown(image) for title, image in enlarged.items()}
    panels(path, [{title: p[cut, cut] for title, p in pictures.items()}], side=SIDE)


def adjoints(path: Path) -> None:
    """What one low-resolution pixel adds to the gradient: U of a single bright pixel."""
    y = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0)
    pictures = {}
    for kind, reference in KINDS.items():
        response = np.asarray(isr.Bicubic(4, reference=reference).upsample(y)[0])
        peak = f"{response.max():.2f}".rstrip("0").rstrip(".")
        pictures[f"{kind}, peak {peak}"] = 80 + 175 * response / response.max()
    panels(path, [{"y": np.asarray(80 + 175 * y[0])} | pictures], side=SIDE)
