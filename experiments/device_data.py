"""Training pairs made on the accelerator, from photographs that lie in its memory.

All photographs are one array of pixels, so that a patch is a gather, and drawing, turning and
reducing it are part of the program of the step: no host keeps up with a GPU that trains 10 Mpixel
a second. The reduction is MATLAB's, rounded like its own (`evaluation.degrade`), from a patch with
the margin that it sees, so that low-resolution patches are those of the whole photograph.
"""

import dataclasses
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from isrrescnet_jax.images import read_rgb
from isrrescnet_jax.physics.sampling import imresize_taps
from isrrescnet_jax.trees import pytree

from . import harness

HALVED = 1000  # photographs with a longer side are used at half their size as well


@pytree
@dataclasses.dataclass(frozen=True)
class Photographs:
    """Photographs of all sizes; a pytree.

    Attributes:
        pixels: of all, row by row, one photograph behind the other.
        start: of each in `pixels`.
        height, width: of each.
    """

    pixels: UInt8[Array | np.ndarray, "total 3"]
    start: Int[Array | np.ndarray, " photographs"]
    height: Int[Array | np.ndarray, " photographs"]
    width: Int[Array | np.ndarray, " photographs"]


def load(folder: Path, smallest: int) -> Photographs:
    """All photographs below a folder whose sides are at least `smallest`."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".webp"))

    def read(path: Path) -> Iterable[UInt8[np.ndarray, "h w 3"]]:
        image = read_rgb(path)
        yield image
        if max(image.shape) >= HALVED:
            yield np.asarray(Image.fromarray(image).reduce(2))

    with ThreadPoolExecutor() as pool:
        groups = list(pool.map(lambda path: list(read(path)), files))
    images = [a for group in groups for a in group if min(a.shape[:2]) >= smallest]
    if not images:
        raise SystemExit(f"{folder}: no photographs with sides of at least {smallest} pixels")
    height, width = np.array([a.shape[:2] for a in images], np.int32).T
    sizes = height.astype(np.int64) * width
    start = (np.cumsum(sizes) - sizes).astype(np.int32)
    return Photographs(np.concatenate([a.reshape(-1, 3) for a in images]), start, height, width)


def patches(
    photographs: Photographs, key: Array, count: int, side: int
) -> UInt8[Array, "count side side 3"]:
    """Random patches, turned and flipped at random.

    A photograph that is large enough is drawn with a probability as the square root of its size. Of
    half as many more as are needed, those with the strongest differences between neighbours are
    kept: smooth sky teaches nothing.
    """
    drawn = count + count // 2
    one, two, three, four = jax.random.split(key, 4)
    area = photographs.height.astype(jnp.float32) * photographs.width
    fits = jnp.minimum(photographs.height, photographs.width) >= side
    total = jnp.cumsum(jnp.where(fits, jnp.sqrt(area), 0))
    which = jnp.searchsorted(total, jax.random.uniform(one, (drawn,)) * total[-1])
    place = jax.random.uniform(two, (drawn, 2))
    height, width = photographs.height[which], photographs.width[which]
    sizes = jnp.stack([height, width], 1) - side + 1
    top, left = jnp.minimum((place * sizes).astype(jnp.int32), sizes - 1).T
    flips = jax.random.bernoulli(three, shape=(3, drawn, 1, 1))

    index = jnp.arange(side)
    row, column = index[:, None], index[None, :]
    row = jnp.where(flips[0], side - 1 - row, row)
    column = jnp.where(flips[1], side - 1 - column, column)
    row, column = jnp.where(flips[2], column, row), jnp.where(flips[2], row, column)
    corner = photographs.start[which] + top * width + left
    image = photographs.pixels[corner[:, None, None] + row * width[:, None, None] + column]

    green = image[..., 1].astype(jnp.int32)
    detail = sum(jnp.abs(jnp.diff(green, axis=axis)).sum((1, 2)) for axis in (1, 2))
    # At random among the strongest: ties would always fall alike.
    best = jax.lax.top_k(detail * (1 + 1e-3 * jax.random.uniform(four, (drawn,))), count)[1]
    return image[best]


def margin(scale: int) -> int:
    """Pixels around a patch that its reduction sees."""
    return 2 * scale


def pair(
    patch: Float[Array, "n s s 3"], scale: int
) -> tuple[Float[Array, "n lr lr 3"], Float[Array, "n hr hr 3"]]:
    """(lr, hr): of a patch with its margin, the inside, and its reduction as `degrade` makes it."""
    side = patch.shape[1]
    m = margin(scale)
    taps = imresize_taps(side, side // scale)

    def rounded(x):
        return jnp.clip(jnp.floor(x + 0.5), 0, 255)

    lr = rounded(taps(rounded(taps(patch, 1)), 2))
    inner = m // scale
    return lr[:, inner:-inner, inner:-inner], patch[:, m:-m, m:-m]


def crops(folder: Path, side: int) -> list[UInt8[np.ndarray, "side side 3"]]:
    """The middle of every second photograph of a folder, in the order of their names."""
    out = []
    for path in sorted(folder.glob("*.png"))[::2]:
        out.append(harness.middle(read_rgb(path), side))
    return out
