"""The convolution, as fast as each platform has it, and its gradients likewise.

On a CPU the gradients are written out: there XLA brings only the convolutions outside of loops into
its standard layout by itself, and JAX's own gradients, inside `lax.scan`, end in a generic loop
nest that is 20 times slower. Wide 3x3 kernels go through `winograd`, in half of the time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from . import winograd
from .bilinear import Way, bilinear

Pairs = tuple[tuple[int, int], tuple[int, int]]  # zeros (above, below) and (left, right)
Padding = str | int | Sequence[tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def correlate(
    x: Array | np.ndarray, kernel: Array | np.ndarray, *, padding: Pairs, precision: Any
) -> Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (1, 1),
        padding,
        dimension_numbers=_LAYOUT,
        precision=precision,
    )


def _suits_winograd(x, size: tuple[int, ...], outputs: int, padding: Pairs) -> bool:
    # With fewer features its sums take longer than the products that it saves. float64 is for
    # comparisons, and there XLA has no fast correlation along rows.
    wide = min(x.shape[3], outputs) >= 32 and x.dtype != jnp.float64
    return wide and size == (3, 3) and padding == ((1, 1), (1, 1))


def _on_cpu(x, kernel, *, padding, precision):
    # Rows of the image above and below whole groups do as well as zeros around it.
    inner = padding[0] == (0, 0) and x.shape[1] % winograd.ROWS == 2
    around = ((1, 1), padding[1]) if inner else padding
    if _suits_winograd(x, kernel.shape[:2], kernel.shape[3], around):
        return winograd.correlate(x, kernel, rows=padding[0][0])
    return correlate(x, kernel, padding=padding, precision=precision)


def _image_gradient(kernel, out, *, shape, padding, precision):
    """Again a correlation, with the kernel turned around."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    sides = zip(kernel.shape[:2], padding, strict=True)
    around = tuple((k - 1 - before, k - 1 - after) for k, (before, after) in sides)
    return _on_cpu(out, turned, padding=around, precision=precision)


def _kernel_gradient(x, out, *, shape, padding, precision):
    """One product,

        dk[i, j] = sum_(y, x) image[y + i, x] out[y, x - j],

    with the shifts by rows stacked in the channels of the image and those by columns in the
    channels of out, unless `winograd` takes it. As a convolution whose kernel is a whole image it
    takes twice as long.
    """
    if out.size == 0:
        return jnp.zeros_like(x, shape=shape)
    if _suits_winograd(x, shape[:2], shape[3], padding):
        return winograd.kernel_gradient(x, out).astype(x.dtype)
    batch, height, width, outputs = out.shape
    inputs, columns = x.shape[3], x.shape[2]
    left, right = (shape[1] - 1 - p for p in padding[1])
    # In strips of rows whose shifted copies stay in the cache.
    rows = max(r for r in range(1, height + 1) if height % r == 0 and r * width <= 4096 or r == 1)
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, ((0, 0, 0), (*padding[0], 0), (0, 0, 0), (0, 0, 0)))

    def strip(dk, index):
        corner = (index // (height // rows), index % (height // rows) * rows, 0, 0)
        image = lax.dynamic_slice(x, corner, (1, rows + shape[0] - 1, columns, inputs))
        image = jnp.concatenate([image[:, i : i + rows] for i in range(shape[0])], axis=-1)
        grad = lax.dynamic_slice(out, corner, (1, rows, width, outputs))
        grad = lax.pad(grad, zero, ((0, 0, 0), (0, 0, 0), (left, right, 0), (0, 0, 0)))
        shifts = [grad[:, :, shape[1] - 1 - j :][:, :, :columns] for j in range(shape[1])]
        grad = jnp.concatenate(shifts, axis=-1)
        over = (((0, 1, 2), (0, 1, 2)), ((), ()))
        product = lax.dot_general(
            image, grad, over, precision=precision, preferred_element_type=dk.dtype
        )
        return dk + product, None

    wide = jnp.promote_types(x.dtype, jnp.float32)
    dk = jnp.zeros_like(x, wide, (shape[0] * inputs, shape[1] * outputs))
    dk, _ = lax.scan(strip, dk, jnp.arange(batch * (height // rows)))
    dk = dk.reshape(shape[0], inputs, shape[1], outputs)
    return dk.transpose(0, 2, 1, 3).astype(x.dtype)


CPU = Way(_on_cpu, x=_image_gradient, kernel=_kernel_gradient)
_correlate = bilinear("isr_conv", Way(correlate), cpu=CPU)


def _pairs(padding: Padding, size: tuple[int, int]) -> Pairs:
    if isinstance(padding, int):
        padding = ((padding, padding),) * 2
    elif padding == "SAME":
        padding = [((k - 1) // 2, k // 2) for k in size]
    elif padding == "VALID":
        padding = ((0, 0),) * 2
    elif isinstance(padding, str):
        raise ValueError(f"padding must be 'SAME', 'VALID', a number or pairs, not {padding!r}")
    (top, bottom), (left, right) = padding
    return (int(top), int(bottom)), (int(left), int(right))


def conv(
    x: Float[ArrayLike, "n h w i"],
    kernel: Float[ArrayLike, "kh kw i o"],
    padding: Padding = "SAME",
    precision: Any = None,
) -> Float[Array, "n H W o"]:
    """Cross-correlation with stride 1, whose gradients are fast inside `lax.scan` on a CPU too.

    Forward and reverse mode to any order, `vmap` over images and kernels, `jax.checkpoint` and
    `jax.export` work as with `lax.conv_general_dilated`.

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> x, kernel = jnp.ones((1, 5, 6, 2)), jnp.ones((3, 3, 2, 4))
    >>> isr.conv(x, kernel).shape, isr.conv(x, kernel, "VALID").shape
    ((1, 5, 6, 4), (1, 3, 4, 4))
    >>> _, tangent = jax.jvp(lambda k: isr.conv(x, k), (kernel,), (kernel,))
    >>> float(tangent[0, 2, 2, 0])
    18.0

    Args:
        padding: zeros around the image: "SAME" (an output of the same size), "VALID" (none), one
            number for all sides, or ((above, below), (left, right)).
        precision: as in `jax.lax.Precision`; the CPU's way with wide 3x3 kernels is exact.

    Raises:
        ValueError: shapes that do not fit.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(f"images {x.shape} and kernel {kernel.shape} do not fit (nhwi, hwio)")
    height, width = kernel.shape[:2]
    pairs = _pairs(padding, (height, width))
    if any(n + sum(p) < k for n, p, k in zip(x.shape[1:3], pairs, (height, width), strict=True)):
        raise ValueError(f"a kernel of {height} x {width} is larger than images of {x.shape[1:3]}")
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    if precision is None:
        # Of the caller, not of lowering.
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    sides = [n + sum(p) - k + 1 for n, p, k in zip(x.shape[1:3], pairs, kernel.shape, strict=False)]
    shape = (x.shape[0], *sides, kernel.shape[3])
    return _correlate(x, kernel, shape=shape, padding=pairs, precision=precision)


class Conv(nn.Module):
    """`conv` with parameters: takes the place of a `flax.linen.Conv` in two dimensions, stride 1.

    Names and initial values of the parameters are those of Flax, so that either reads the other's.
    Inside `lax.scan` (each iteration of `unroll`), on a CPU, Flax's has gradients that are 35 times
    slower.

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> layer = isr.Conv(features=8, kernel_size=(3, 3))
    >>> params = layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    >>> layer.apply(params, jnp.ones((2, 6, 7, 3))).shape
    (2, 6, 7, 8)

    Attributes:
        features: channels of the output.
        kernel_size: (height, width), or one number for both.
        padding: see `conv`.
        dtype: of the computation; by default what images and parameters promote to.
        precision: as in `jax.lax.Precision`.
    """

    features: int
    kernel_size: int | Sequence[int] = (3, 3)
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    kernel_init: Callable[..., Any] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Any] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w i"]) -> Float[Array, "*b H W o"]:
        """Of one image or of a batch with any number of leading axes."""
        size = self.kernel_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        shape = (*size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        images = x.reshape(-1, *x.shape[-3:])
        out = conv(images, kernel, self.padding, self.precision)
        out = out.reshape(*x.shape[:-3], *out.shape[1:])
        return out if bias is None else out + bias
