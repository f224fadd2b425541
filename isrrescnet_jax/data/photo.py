"""How photographs are degraded: blur, noise and JPEG, on batches and on the device.

Everything works under `jit` on arrays of one shape, so that training data is made where the step
runs; what differs from image to image are values. Nothing here is meant to be differentiated.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from ..solver.iteration import clip

# Example tables K.1 and K.2 of the standard (ITU-T T.81), which the IJG's library scales.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# Orthonormal DCT-II: row u has sqrt(1/4) cos((2 i + 1) u pi / 16), row 0 times sqrt(1/2).
_DCT = 0.5 * np.cos(np.outer(np.arange(8), 2 * np.arange(8) + 1) * np.pi / 16)
_DCT[0] *= math.sqrt(0.5)


def gaussian_blur(
    x: Float[Array, "n h w c"], deviation: Float[Array, " n"], largest: float = 3.0
) -> Float[Array, "n h w c"]:
    """Each image convolved with a Gaussian of its own width, exp(-t^2 / (2 deviation^2)) / sum.

    Args:
        x: images; beyond the border the edge pixel is repeated.
        deviation: standard deviation in pixels, from 0, which leaves an image as it is to the bit,
            to `largest`.
        largest: static; the sums end at 4 times this distance.
    """
    radius = math.ceil(4 * largest)
    t = np.arange(-radius, radius + 1)
    width = jnp.where(deviation > 0, deviation, 1)[:, None]
    weights = jnp.where(deviation[:, None] > 0, jnp.exp(-0.5 * jnp.square(t / width)), t == 0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(x.dtype)[:, :, None, None, None]
    for axis in (1, 2):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(4)]
        wide, length = jnp.pad(x, pad, mode="edge"), x.shape[axis]
        shifted = (jax.lax.slice_in_dim(wide, i, i + length, axis=axis) for i in range(len(t)))
        x = functools.reduce(jnp.add, (s * weights[:, i] for i, s in enumerate(shifted)))
    return x


def _nearest(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Rounded, halves up, as integer arithmetic with a shift does it."""
    return jnp.floor(x + 0.5)


def _coded(x: Float[Array, "n h w c"], table: Int[Array, "n 8 8"]) -> Float[Array, "n h w c"]:
    """Planes after quantisation of the DCT of their 8x8 blocks, rounded and clipped."""
    n, h, w, c = x.shape
    blocks = (x - 128).reshape(n, h // 8, 8, w // 8, 8, c)
    dct = jnp.asarray(_DCT, x.dtype)
    q = table[:, None, :, None, :, None]
    # libjpeg has coefficients in eighths, so that ties are common: they go away from zero.
    forward = jnp.einsum("ui,vj,nyixjc->nyuxvc", 8 * dct, dct, blocks, precision="highest")
    eighths = _nearest(forward).astype(jnp.int32)
    levels = jnp.sign(eighths) * ((jnp.abs(eighths) + 4 * q) // (8 * q)) * q
    levels = levels.astype(x.dtype)
    back = jnp.einsum("ui,vj,nyuxvc->nyixjc", dct, dct, levels, precision="highest")
    return clip(_nearest(back + 128).reshape(n, h, w, c))


def _doubled(x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w c"]:
    """Chroma at full size: a triangle filter of 3/4 and 1/4, with the rounding of libjpeg."""
    for axis in (1, 2):
        wide = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        before, after = (
            jax.lax.slice_in_dim(wide, i, i + x.shape[axis], axis=axis) for i in (0, 2)
        )
        pair = jnp.stack([3 * x + before, 3 * x + after], axis=axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return jnp.floor((x + 8 - jnp.arange(x.shape[2])[:, None] % 2) / 16)


def jpeg(x: Float[Array, "n h w 3"], quality: Num[Array, " n"]) -> Float[Array, "n h w 3"]:
    """What a baseline JPEG file of each image gives back, as libjpeg writes and reads it.

    In YCbCr, with chroma at half the resolution (4:2:0) and the tables of the IJG at this quality,

        q = clip((table s + 50) // 100, 1, 255),    s = 5000 // quality or 200 - 2 quality

    for qualities below 50 or from there on. (ITU-T T.81; JFIF 1.02; jcparam.c and
    jdsample.c of the library.)

    Args:
        x: whole numbers in [0, 255]; h and w multiples of 16.
        quality: from 1 to 100, whole numbers.

    Returns:
        Whole numbers in [0, 255].

    Raises:
        ValueError: h or w is no multiple of 16.
    """
    n, h, w, _ = x.shape
    if h % 16 or w % 16:
        raise ValueError(f"height and width must be multiples of 16, not {h} and {w}")
    quality = quality.astype(jnp.int32)  # floats may be divided inexactly
    s = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None]
    luminance, chrominance = (
        jnp.clip((table * s + 50) // 100, 1, 255) for table in (LUMINANCE, CHROMINANCE)
    )
    r, g, b = (x[..., i : i + 1] for i in range(3))
    y = _nearest(0.299 * r + 0.587 * g + 0.114 * b)
    cb = _nearest(128 - 0.168735892 * r - 0.331264108 * g + 0.5 * b)
    cr = _nearest(128 + 0.5 * r - 0.418687589 * g - 0.081312411 * b)
    fours = jnp.concatenate([cb, cr], -1).reshape(n, h // 2, 2, w // 2, 2, 2).sum((2, 4))
    # libjpeg rounds halves down and up in turn.
    chroma = jnp.floor((fours + 1 + jnp.arange(w // 2)[:, None] % 2) / 4)
    y, chroma = _coded(y, luminance), _doubled(_coded(chroma, chrominance)) - 128
    cb, cr = chroma[..., :1], chroma[..., 1:]
    green = y + _nearest(-0.344136286 * cb - 0.714136286 * cr)
    return clip(jnp.concatenate([y + _nearest(1.402 * cr), green, y + _nearest(1.772 * cb)], -1))


def photo_degrade(
    key: Array,
    lr: Float[Array, "n h w 3"],
    noise: tuple[float, float] = (0.0, 25.0),
    quality: tuple[int, int] = (40, 95),
    noisy: float = 0.5,
    compressed: float = 0.5,
) -> tuple[Float[Array, "n h w 3"], Float[Array, " n"]]:
    """Low-resolution images as cameras leave them: white Gaussian noise, rounding, then `jpeg`.

    Args:
        key: of all draws, which are independent for each image.
        lr: in [0, 255]; h and w multiples of 16.
        noise: range of the standard deviation sigma in grey levels, from which it is drawn evenly.
        quality: range of the whole-numbered quality, both ends included.
        noisy, compressed: probability that an image gets noise (else sigma = 0), and is compressed.

    Returns:
        The images, whole numbers in [0, 255], and sigma, which JPEG does not change.
    """
    n, keys = len(lr), jax.random.split(key, 5)
    sigma = jax.random.uniform(keys[0], (n,), lr.dtype, *noise)
    sigma = jnp.where(jax.random.bernoulli(keys[1], noisy, (n,)), sigma, 0)
    white = jax.random.normal(keys[2], lr.shape, lr.dtype)
    y = clip(_nearest(lr + sigma[:, None, None, None] * white))
    file = jpeg(y, jax.random.randint(keys[3], (n,), quality[0], quality[1] + 1))
    chosen = jax.random.bernoulli(keys[4], compressed, (n,))
    return jnp.where(chosen[:, None, None, None], file, y), sigma
