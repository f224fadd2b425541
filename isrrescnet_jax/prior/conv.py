"""The convolution as two bilinear primitives, each the transpose of the other.

    correlate         out[n, y, x, o] = sum_(i, j, c) x[n, y + i, x + j, c] kernel[i, j, c, o]
    kernel_gradient   dk[i, j, c, o]  = sum_(n, y, x) x[n, y + i, x + j, c] g[n, y, x, o]

with zeros around x. Whatever is linear in one argument is differentiated by these two alone, in
forward and in reverse mode and to any order, and each is lowered to what suits the platform: the
library's convolution where that is fast, and on a CPU to `winograd` or products of matrices. There
XLA brings only the convolutions outside of loops into its standard layout by itself; JAX's own
gradients, inside `lax.scan`, end in a generic loop nest that is 20 times slower.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from . import winograd

Pairs = tuple[tuple[int, int], tuple[int, int]]  # zeros (above, below) and (left, right)
Padding = str | int | Sequence[tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")

# --- on each platform ---------------------------------------------------------------------------


def correlate_native(x: Array, kernel: Array, *, padding: Pairs, precision: Any) -> Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=_LAYOUT, precision=precision
    )


def _suits_winograd(x, size: tuple[int, int], outputs: int, padding: Pairs) -> bool:
    # With fewer features its sums take longer than the products that it saves. float64 is for
    # comparisons, and there XLA has no fast correlation along rows.
    wide = min(x.shape[-1], outputs) >= 32 and x.dtype != jnp.float64
    return wide and size == (3, 3) and padding == ((1, 1), (1, 1))


def correlate_cpu(x: Array, kernel: Array, *, padding: Pairs, precision: Any) -> Array:
    """Half of the products where the kernel is wide and 3x3, which takes half of the time."""
    if _suits_winograd(x, kernel.shape[:2], kernel.shape[3], padding):
        return winograd.correlate(x, kernel)
    return correlate_native(x, kernel, padding=padding, precision=precision)


def kernel_gradient_native(
    x: Array, g: Array, *, size: tuple[int, int], padding: Pairs, precision: Any
) -> Array:
    """The transpose that JAX has for XLA's convolution."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[3], g.shape[3]), x.dtype)
    fixed = {"padding": padding, "precision": precision}
    (dk,) = jax.linear_transpose(lambda k: correlate_native(x, k, **fixed), kernel)(g)
    return dk


def kernel_gradient_cpu(
    x: Array, g: Array, *, size: tuple[int, int], padding: Pairs, precision: Any
) -> Array:
    """One product,

        dk[i, j] = sum_(y, x) image[y + i, x] g[y, x - j],

    with the shifts by rows stacked in the channels of the image and those by columns in the
    channels of g, unless `winograd` takes it. As a convolution whose kernel is a whole image it
    takes twice as long.
    """
    if _suits_winograd(x, size, g.shape[3], padding):
        return winograd.kernel_gradient(x, g).astype(x.dtype)
    batch, height, width, outputs = g.shape
    inputs, columns = x.shape[3], x.shape[2]
    left, right = (size[1] - 1 - p for p in padding[1])
    # In strips of rows whose shifted copies stay in the cache.
    rows = max(r for r in range(1, height + 1) if height % r == 0 and r * width <= 4096 or r == 1)
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, ((0, 0, 0), (*padding[0], 0), (0, 0, 0), (0, 0, 0)))

    def strip(dk, index):
        corner = (index // (height // rows), index % (height // rows) * rows, 0, 0)
        image = lax.dynamic_slice(x, corner, (1, rows + size[0] - 1, columns, inputs))
        image = jnp.concatenate([image[:, i : i + rows] for i in range(size[0])], axis=-1)
        grad = lax.dynamic_slice(g, corner, (1, rows, width, outputs))
        grad = lax.pad(grad, zero, ((0, 0, 0), (0, 0, 0), (left, right, 0), (0, 0, 0)))
        shifts = [grad[:, :, size[1] - 1 - j :][:, :, :columns] for j in range(size[1])]
        grad = jnp.concatenate(shifts, axis=-1)
        over = (((0, 1, 2), (0, 1, 2)), ((), ()))
        product = lax.dot_general(
            image, grad, over, precision=precision, preferred_element_type=dk.dtype
        )
        return dk + product, None

    wide = jnp.promote_types(x.dtype, jnp.float32)
    dk = jnp.zeros_like(x, wide, (size[0] * inputs, size[1] * outputs))
    dk, _ = lax.scan(strip, dk, jnp.arange(batch * (height // rows)))
    dk = dk.reshape(size[0], inputs, size[1], outputs)
    return dk.transpose(0, 2, 1, 3).astype(x.dtype)


# --- the primitives -----------------------------------------------------------------------------

correlate_p = Primitive("isr_correlate")  # x, kernel; padding, precision
kernel_gradient_p = Primitive("isr_kernel_gradient")  # x, g; size, padding, precision


def _define(primitive: Primitive, cpu: Callable, native: Callable) -> None:
    @functools.partial(jax.jit, static_argnames=("size", "padding", "precision"))
    def run(*args, **fixed):
        return primitive.bind(*args, **fixed)

    primitive.def_impl(run)
    mlir.register_lowering(primitive, mlir.lower_fun(native, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(cpu, multiple_results=False), platform="cpu")


_define(correlate_p, correlate_cpu, correlate_native)
_define(kernel_gradient_p, kernel_gradient_cpu, kernel_gradient_native)


@correlate_p.def_abstract_eval
def _correlate_shape(x, kernel, *, padding, precision):
    sides = zip(x.shape[1:3], padding, kernel.shape[:2], strict=True)
    height, width = (length + sum(pads) - size + 1 for length, pads, size in sides)
    return x.update(shape=(x.shape[0], height, width, kernel.shape[3]), weak_type=False)


@kernel_gradient_p.def_abstract_eval
def _kernel_gradient_shape(x, g, *, size, padding, precision):
    return x.update(shape=(*size, x.shape[3], g.shape[3]), weak_type=False)


def _image_gradient(g, kernel, padding, precision):
    """The transpose of `correlate` for x is one with the kernel turned around."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    sides = zip(kernel.shape[:2], padding, strict=True)
    around = tuple((size - 1 - low, size - 1 - high) for size, (low, high) in sides)
    return correlate_p.bind(g, turned, padding=around, precision=precision)


def _kernel_gradient(x, g, size, padding, precision):
    return kernel_gradient_p.bind(x, g, size=size, padding=padding, precision=precision)


ad.defbilinear(
    correlate_p,
    lambda g, x, kernel, **fixed: _image_gradient(g, kernel, **fixed),
    lambda g, x, kernel, **fixed: _kernel_gradient(x, g, kernel.aval.shape[:2], **fixed),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda dk, x, g, *, size, **fixed: _image_gradient(g, dk, **fixed),
    lambda dk, x, g, *, size, **fixed: correlate_p.bind(x, dk, **fixed),
)


def _one_by_one(primitive, native, args, dims, fixed):
    """Both arguments in a batch. One by one on a CPU, where XLA's grouped convolution is slow."""
    args = [jnp.moveaxis(a, dim, 0) for a, dim in zip(args, dims, strict=True)]
    return lax.platform_dependent(
        *args,
        cpu=lambda *args: lax.map(lambda pair: primitive.bind(*pair, **fixed), args),
        default=jax.vmap(functools.partial(native, **fixed)),
    )


def _batch_of_correlate(args, dims, **fixed):
    (x, kernel), (of_x, of_kernel) = args, dims
    if of_kernel is None:  # more images
        x = jnp.moveaxis(x, of_x, 0)
        out = correlate_p.bind(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), kernel, **fixed)
        return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    if of_x is None:  # more outputs
        kernel = jnp.moveaxis(kernel, of_kernel, 3)
        count, outputs = kernel.shape[3:]
        out = correlate_p.bind(x, kernel.reshape(*kernel.shape[:3], count * outputs), **fixed)
        return out.reshape(*out.shape[:3], count, outputs), 3
    return _one_by_one(correlate_p, correlate_native, args, dims, fixed), 0


def _batch_of_kernel_gradient(args, dims, **fixed):
    (x, g), (of_x, of_g) = args, dims
    if of_x is not None and of_g is not None:
        return _one_by_one(kernel_gradient_p, kernel_gradient_native, args, dims, fixed), 0
    # More inputs, or more outputs.
    a, dim = (x, of_x) if of_g is None else (g, of_g)
    a = jnp.moveaxis(a, dim, 3)
    flat = a.reshape(*a.shape[:3], a.shape[3] * a.shape[4])
    if of_g is None:
        dk = kernel_gradient_p.bind(flat, g, **fixed)
        return dk.reshape(*dk.shape[:2], *a.shape[3:], g.shape[3]), 2
    dk = kernel_gradient_p.bind(x, flat, **fixed)
    return dk.reshape(*dk.shape[:3], *a.shape[3:]), 3


batching.primitive_batchers[correlate_p] = _batch_of_correlate
batching.primitive_batchers[kernel_gradient_p] = _batch_of_kernel_gradient

# --- for everyone -------------------------------------------------------------------------------


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
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "kh kw i o"],
    padding: Padding = "SAME",
    precision: Any = None,
) -> Float[Array, "n H W o"]:
    """Cross-correlation with stride 1, whose gradients are fast inside `lax.scan` on a CPU too.

    Forward and reverse mode to any order, `vmap` over images and kernels, `jax.checkpoint` and
    `jax.export` work as with `lax.conv_general_dilated`.

    >>> import jax, jax.numpy as jnp
    >>> x, kernel = jnp.ones((1, 5, 6, 2)), jnp.ones((3, 3, 2, 4))
    >>> conv(x, kernel).shape, conv(x, kernel, "VALID").shape
    ((1, 5, 6, 4), (1, 3, 4, 4))
    >>> _, tangent = jax.jvp(lambda k: conv(x, k), (kernel,), (kernel,))
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
    x, kernel = _varying_alike(x.astype(dtype), kernel.astype(dtype))
    if precision is None:
        precision = jax.config.jax_default_matmul_precision  # of the caller, not of lowering
    return correlate_p.bind(x, kernel, padding=pairs, precision=precision)


def _varying_alike(*arrays):
    """The same, but varying over the same axes of a surrounding `shard_map`."""
    # A name that JAX has changed before; without it there are no such axes for us.
    kinds = [getattr(jax.typeof(a), "mat", None) for a in arrays]
    axes = [getattr(kind, "varying", frozenset()) for kind in kinds]
    missing = [tuple(frozenset().union(*axes) - own) for own in axes]
    return [
        lax.pcast(a, names, to="varying") if names else a
        for a, names in zip(arrays, missing, strict=True)
    ]


class Conv(nn.Module):
    """`conv` with parameters: takes the place of a `flax.linen.Conv` in two dimensions, stride 1.

    Names and initial values of the parameters are those of Flax, so that either reads the other's.
    Inside `lax.scan` (each iteration of `unroll`), on a CPU, Flax's has gradients that are 35 times
    slower.

    >>> import jax, jax.numpy as jnp
    >>> layer = Conv(features=8, kernel_size=(3, 3))
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
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        images = x.reshape(-1, *x.shape[-3:])
        out = conv(images, kernel, self.padding, self.precision)
        out = out.reshape(*x.shape[:-3], *out.shape[1:])
        return out if bias is None else out + bias
