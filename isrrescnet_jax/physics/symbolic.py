"""Bicubic physics at a size that a program learns when it runs, for `jax.export`.

`sampling` computes with NumPy what depends on the length of an axis. Of a symbolic length it is
computed in the program: the bands of the exact operator are the same everywhere but at the ends,
and positions of the reference's samplers follow from the index.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import sampling
from .axis import Band, Taps
from .operators import Bicubic
from .placed import Axis, Placed

# Pixels at each end whose weights the border may change; of the 2 that it does, twice as many.
END = 4
SHORTEST = 2 * END  # below it both ends would meet, and the noise estimate reflects more than once


def at_any_size(operator: Bicubic, h: Any, w: Any) -> Placed:
    """`operator.at(h, w)` in float32 for symbolic h and w of at least `SHORTEST` pixels.

    What is lost is the transpose of `Taps`, and with it derivatives through the reference's.
    """
    axis = _of_reference if operator.reference else _exact
    return Placed(operator, axis(operator, h), axis(operator, w))


def _exact(operator: Bicubic, n: Any) -> Axis:
    """Bands of a short axis, whose middle pixel is repeated."""
    i = jnp.arange(n)
    i = jnp.where(i < END, i, jnp.maximum(i - n + 2 * END + 1, END))

    def band(enlarge: bool) -> Band:
        short = sampling.imresize_band(2 * END + 1, operator.scale, operator.border, enlarge)
        weight = jnp.asarray(np.asarray(short.weight, np.float32))
        return Band(jnp.take(weight, i, axis=0), operator.scale, enlarge)

    return {"initial": band(True), "down": band(False)}


def _of_reference(operator: Bicubic, n: Any) -> Axis:
    """The positions of `sampling.bilinear_taps` and `sampling.bicubic_weights`, in their order."""
    s = operator.scale
    one, two = np.float32(1), np.float32(2)
    length, longer = (jnp.asarray(a, jnp.float32) for a in (n, s * n))
    i = jnp.arange(s * n)
    grid = i.astype(jnp.float32) / (longer - one) * two - one
    position = ((grid + one) * length - one) / two
    left = jnp.floor(position)
    near = left.astype(jnp.int32)[:, None] + np.arange(2, dtype=np.int32)
    weight = jnp.stack([1 - (position - left), position - left], axis=1)
    initial = _taps(near, jnp.where((near >= 0) & (near < n), weight, 0), n)
    window = jnp.arange(-1, n + 2)[:, None]
    # PyTorch's `linspace`: the first half from the start, the second back from the end.
    step = length / longer
    back = length - step * (s * n - i).astype(jnp.float32)
    position = jnp.where(i < (s * n + 1) // 2, step * i.astype(jnp.float32), back)
    fraction = (position - (i // s).astype(jnp.float32)).reshape(n, s)
    weights = _keys(fraction[..., None] - np.arange(-1, 3, dtype=np.float32))
    return {
        "initial": initial,
        "near": _taps(window, jnp.ones((n + 3, 1), jnp.float32), n),
        "weight": weights,
    }


def _taps(index: Array, weight: Float[Array, "o t"], n: Any) -> Taps:
    """`sparse` without the transpose, of which only the size is there."""
    index = jnp.clip(index, 0, n - 1).astype(jnp.int32)
    nothing = jnp.zeros((n, 1), jnp.int32)
    return Taps(index, weight, nothing, nothing.astype(jnp.float32))


def _keys(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Keys' kernel, as in `sampling`."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x <= 1, near, jnp.where(x <= 2, far, 0))
