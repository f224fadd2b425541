"""The learned prior: a small recurrent residual network and the projection behind it.

    N(z; sigma, alpha) = project(residual(z), sigma, alpha)

`residual` is local (it sees `config.halo` pixels around each output pixel) and can be run tile by
tile; `project` needs one norm over the whole image.

Parameters are weight-normalised, w = g v / |v|. `fuse` computes w once; the network itself is a
plain Flax module on kernels and biases, so that nothing is normalised again inside the loops.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..config import ModelConfig
from ..weights import Weights, expected_shapes, unflatten
from . import winograd
from .projection import project

_LAYOUT = ("NHWC", "HWIO", "NHWC")
Size = tuple[Array, Array] | None

# --- convolutions -------------------------------------------------------------------------------


def _direct(x, kernel, padding, precision):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(padding, padding)] * 2, dimension_numbers=_LAYOUT, precision=precision
    )


def _suits_winograd(dtype, shape, padding):
    # With fewer features its sums take longer than the products that it saves. float64 is for
    # comparisons, and there XLA has no fast correlation along rows.
    wide = min(shape[2:]) >= 32 and dtype != jnp.float64
    return wide and (shape[0], padding) == (3, 1)


def _on_cpu(x, kernel, padding, precision):
    if _suits_winograd(x.dtype, kernel.shape, padding):
        return winograd.correlate(x, kernel)
    return _direct(x, kernel, padding, precision)


def _correlate(x, kernel, padding, precision):
    fixed = {"padding": padding, "precision": precision}
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_on_cpu, **fixed),
        default=functools.partial(_direct, **fixed),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(
    x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"], padding: int, precision: Any = None
) -> Float[Array, "n H W o"]:
    """Cross-correlation with stride 1 and `padding` zeros on every side.

    On a CPU wide 3x3 kernels go through `winograd`, which takes half of the time, and the gradients
    are written out: XLA's CPU compiler brings only the convolutions outside of loops into its
    standard layout by itself; JAX's own gradients, inside `lax.scan`, end in a generic loop nest
    that is 20 times slower. Where `winograd` does not take it the kernel's gradient is one product,

        dk[i, j] = sum_(y, x) image[y + i, x] g[y, x - j],

    with the k shifts by rows stacked in the channels of the image and those by columns in the
    channels of g; as a convolution whose kernel is a whole image it takes twice as long.
    """
    return _correlate(x, kernel, padding, precision)


def _conv_forward(x, kernel, padding, precision):
    return _correlate(x, kernel, padding, precision), (x, kernel)


def _kernel_gradient(x, g, k, padding, precision):
    batch, height, width, outputs = g.shape
    inputs, margin = x.shape[-1], k - 1 - padding
    # In strips of rows whose shifted copies stay in the cache.
    rows = max(r for r in range(1, height + 1) if height % r == 0 and r * width <= 4096 or r == 1)
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0), (0, 0)))

    def strip(dk, index):
        corner = (index // (height // rows), index % (height // rows) * rows, 0, 0)
        image = lax.dynamic_slice(x, corner, (1, rows + k - 1, *x.shape[2:]))
        image = jnp.concatenate([image[:, i : i + rows] for i in range(k)], axis=-1)
        grad = lax.dynamic_slice(g, corner, (1, rows, width, outputs))
        grad = jnp.pad(grad, ((0, 0), (0, 0), (margin, margin), (0, 0)))
        shifts = [grad[:, :, k - 1 - j :][:, :, : x.shape[2]] for j in range(k)]
        grad = jnp.concatenate(shifts, axis=-1)
        over = (((0, 1, 2), (0, 1, 2)), ((), ()))
        return dk + lax.dot_general(image, grad, over, precision=precision), None

    dk = jnp.zeros((k * inputs, k * outputs), jnp.result_type(x, g))
    dk, _ = lax.scan(strip, dk, jnp.arange(batch * (height // rows)))
    return dk.reshape(k, inputs, k, outputs).transpose(0, 2, 1, 3)


def _conv_backward(padding, precision, saved, g):
    x, kernel = saved

    def standard_layout(x, kernel, g):
        flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
        dx = _on_cpu(g, flipped, kernel.shape[0] - 1 - padding, precision)
        if _suits_winograd(x.dtype, kernel.shape, padding):
            return dx, winograd.kernel_gradient(x, g).astype(kernel.dtype)
        return dx, _kernel_gradient(x, g, kernel.shape[0], padding, precision)

    def native(x, kernel, g):
        (dx,) = jax.linear_transpose(lambda x: _direct(x, kernel, padding, precision), x)(g)
        (dk,) = jax.linear_transpose(lambda k: _direct(x, k, padding, precision), kernel)(g)
        return dx, dk

    return lax.platform_dependent(x, kernel, g, cpu=standard_layout, default=native)


conv.defvjp(_conv_forward, _conv_backward)


MARGIN = 2  # pixels around the image in a window, what the 5x5 convolutions need


def _extent(size: tuple[Array, Array]) -> list[tuple[Any, Any]]:
    """First and last row, first and last column of the image in a window."""
    return [(MARGIN, MARGIN + length - 1) for length in size]


def inside(x: Float[Array, "n h w i"], size: Size) -> Float[Array, "n h w i"]:
    """x, but zero outside of the image of `size`."""
    if size is None:
        return x
    for axis, (first, last) in enumerate(_extent(size), start=1):
        index = lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), axis)
        x = jnp.where((index >= first) & (index <= last), x, 0)
    return x


def conv3x3_reflect(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"], precision: Any = None
) -> Float[Array, "n h w o"]:
    """3x3 correlation of the image reflected at its borders; sides of at least 2.

    On a GPU the image is padded by reflection, in the pass over it that PReLU needs anyhow, and the
    bias joins the convolution. Elsewhere that copy is slow, and the same comes of the zero-padded
    convolution: the reflected row above the image is row 1, it feeds output row 0 alone, through
    kernel row 0, and so on around the image. These small products are added.
    """

    def border(line, row_kernel):  # (n, l + 2, i) x (3, i, o) -> (n, l, o)
        length = line.shape[1] - 2
        shifts = jnp.concatenate([line[:, t : t + length] for t in range(3)], axis=-1)
        return jnp.dot(shifts, row_kernel.reshape(-1, row_kernel.shape[-1]), precision=precision)

    def reflected(line):
        return jnp.pad(line, ((0, 0), (1, 1), (0, 0)), mode="reflect")

    def zero_padded(line):  # the corners belong to the rows
        return jnp.pad(line, ((0, 0), (1, 1), (0, 0)))

    def borders(x, kernel):
        rows = [border(reflected(x[:, t]), kernel[i]) for t, i in ((1, 0), (-2, 2))]
        columns = [border(zero_padded(x[:, :, t]), kernel[:, j]) for t, j in ((1, 0), (-2, 2))]
        return rows, columns

    def in_place(x, kernel):
        rows, columns = borders(x, kernel)
        out = conv(x, kernel, 1, precision)
        out = out.at[:, 0].add(rows[0]).at[:, -1].add(rows[1])
        return out.at[:, :, 0].add(columns[0]).at[:, :, -1].add(columns[1])

    def in_one_pass(x, kernel):
        out = conv(x, kernel, 1, precision)
        for axis, lines in zip((1, 2), borders(x, kernel), strict=True):
            for line, end in zip(lines, (0, -1), strict=True):
                out = out + _line(jnp.expand_dims(line, axis), axis, end, out.shape[axis])
        return out

    def padded(x, kernel):
        # A sum: put together from pieces (`jnp.concatenate`), XLA made of it and PReLU a loop that
        # took five times what reading and writing do, and a training step on an H200 7 % more.
        for axis in (1, 2):
            length = x.shape[axis]
            lines = [lax.slice_in_dim(x, t, t + 1, axis=axis) for t in (1, length - 2)]
            x = jnp.pad(x, [(int(a == axis),) * 2 for a in range(4)])
            for line, end in zip(lines, (0, -1), strict=True):
                x = x + _line(line, axis, end, length + 2)
        return conv(x, kernel, 0, precision)

    # On a TPU the sums fuse into one pass, with the bias: by the estimates of its compiler a
    # training step then takes a fifth less.
    return lax.platform_dependent(
        x, kernel, cpu=in_place, cuda=padded, rocm=padded, default=in_one_pass
    )


def _line(line: Float[Array, "n h w i"], axis: int, end: int, length: int) -> Array:
    """A line at the beginning (end = 0) or the end (-1) of zeros, `length` long along `axis`."""
    around = (0, length - 1) if end == 0 else (length - 1, 0)
    return jnp.pad(line, [around if a == axis else (0, 0) for a in range(4)])


# Traced once for all convolutions of a shape: half of the time that tracing takes.
@functools.partial(jax.jit, static_argnames="precision", inline=True)
def conv3x3_reflect_window(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "3 3 i o"],
    size: tuple[Array, Array],
    bias: Float[Array, " o"],
    identity: Float[Array, "n h w o"] | None = None,
    precision: Any = None,
) -> Float[Array, "n h w o"]:
    """`conv3x3_reflect` of an image of `size`, which fills only a part of x, + bias + identity.

    Only the outermost rows and columns of the result differ from those of the zero-padded
    convolution. They are computed by small products, from two lines each, as the third line that
    they see is the reflection of the second.

    Args:
        size: (h, w) of the image x[:, 2 : 2 + h, 2 : 2 + w], which may be traced: one compiled
            program then serves images of all sizes. x must be zero outside of it (see `inside`),
            and the result is of no meaning there.
        identity: added here and not behind, as XLA fuses nothing with an array that is written to
            in part: another addition would read and write all features once more.
    """
    extent = dict(zip((1, 2), _extent(size), strict=True))
    out = conv(x, kernel, 1, precision) + bias
    if identity is not None:
        out = out + identity
    for axis, lines in ((1, kernel), (2, kernel.swapaxes(0, 1))):
        along = extent[3 - axis]
        weights = jnp.concatenate([lines[1], lines[0] + lines[2]]).reshape(-1, kernel.shape[-1])
        for edge, inward in zip(extent[axis], (1, -1), strict=True):
            shifts = []
            for index in (edge, edge + inward):
                line = jnp.squeeze(lax.dynamic_slice_in_dim(x, index, 1, axis), axis)
                line = _reflected(jnp.pad(line, ((0, 0), (1, 1), (0, 0))), along)
                shifts += [line[:, t : t + x.shape[3 - axis]] for t in range(3)]
            new = jnp.dot(jnp.concatenate(shifts, axis=-1), weights, precision=precision) + bias
            if identity is not None:
                new = new + jnp.squeeze(lax.dynamic_slice_in_dim(identity, edge, 1, axis), axis)
            # Written, not added to: XLA would copy all of `out` to read from it.
            out = lax.dynamic_update_slice_in_dim(out, jnp.expand_dims(new, axis), edge, axis)
    return out


def _reflected(line: Float[Array, "n l i"], ends: tuple[Any, Any]) -> Float[Array, "n l i"]:
    """A line with one more pixel at each end; `ends` are the first and last without these."""
    for target, source in ((ends[0], ends[0] + 2), (ends[1] + 2, ends[1])):
        pixel = lax.dynamic_slice_in_dim(line, source, 1, 1)
        line = lax.dynamic_update_slice_in_dim(line, pixel, target, 1)
    return line


def reflect_borders(
    x: Float[Array, "n H W i"], size: tuple[Array, Array], width: int
) -> Float[Array, "n H W i"]:
    """Reflect the image of `size` in x (see `conv3x3_reflect_window`) by `width` pixels, 1 or 2.

    What surrounds it is overwritten; the edge pixel is not repeated.
    """
    for axis, (first, last) in enumerate(_extent(size), start=1):
        for m in range(1, width + 1):
            before, after = (lax.dynamic_slice_in_dim(x, i, 1, axis) for i in (first + m, last - m))
            x = lax.dynamic_update_slice_in_dim(x, before, first - m, axis)
            x = lax.dynamic_update_slice_in_dim(x, after, last + m, axis)
    return x


def prelu(x: Float[Array, "*b c"], slopes: Float[Array, " c"]) -> Float[Array, "*b c"]:
    """max(x, 0) + slope min(x, 0); the derivative at 0 is the slope, as in PyTorch."""
    return jnp.where(x > 0, x, x * slopes)


# --- the network --------------------------------------------------------------------------------


@functools.partial(nn.remat, prevent_cse=False)
def _activated(conv, x, slopes):
    """conv(prelu(x)), of which only x is kept for the way back: PReLU costs less than memory."""
    return conv(prelu(x, slopes.astype(x.dtype)))


class Conv(nn.Module):
    """A convolution with bias on fused weights.

    border: "reflect" or "zero"; both keep the image size. Where `size` is given, the image fills
    only a part of x, and a 3x3 convolution adds `identity`; see `conv3x3_reflect_window`.
    """

    size: int
    outputs: int
    border: str = "reflect"
    precision: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w i"],
        size: Size = None,
        identity: Float[Array, "n h w o"] | None = None,
    ) -> Float[Array, "n h w o"]:
        shape = (self.size, self.size, x.shape[-1], self.outputs)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,)).astype(x.dtype)
        pad = self.size // 2
        if self.border == "zero":
            return conv(inside(x, size), kernel, pad, self.precision) + bias
        if self.size == 3:
            if size is None:
                return conv3x3_reflect(x, kernel, self.precision) + bias
            x = inside(x, size)
            return conv3x3_reflect_window(x, kernel, size, bias, identity, precision=self.precision)
        if size is not None:
            return conv(reflect_borders(x, size, pad), kernel, pad, self.precision) + bias
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        return conv(x, kernel, 0, self.precision) + bias


class Compress(nn.Module):
    """1x1 convolution of PReLU([h, h]), without making [h, h].

    The reference concatenates h with a memory that always equals h. With PReLU_s(h) =
    s h + (1 - s) max(h, 0), and W1, s1 and W2, s2 for the halves:

        (s1 W1 + s2 W2) h + ((1 - s1) W1 + (1 - s2) W2) max(h, 0) + bias
    """

    precision: Any = None

    @nn.compact
    def __call__(
        self, h: Float[Array, "n h w f"], slopes: Float[Array, " 2f"]
    ) -> Float[Array, "n h w f"]:
        f = h.shape[-1]
        kernel = self.param("kernel", nn.initializers.he_normal(), (1, 1, 2 * f, f))
        bias = self.param("bias", nn.initializers.zeros, (f,)).astype(h.dtype)
        always = slopes[:, None] * kernel[0, 0]
        positive = kernel[0, 0] - always
        always, positive = ((m[:f] + m[f:]).astype(h.dtype) for m in (always, positive))
        linear = jnp.dot(h, always, precision=self.precision)
        # Not jnp.maximum, whose derivative at 0 is a half: PReLU's there is the slope.
        return linear + jnp.dot(jnp.where(h > 0, h, 0), positive, precision=self.precision) + bias


class ResidualBlock(nn.Module):
    """PReLU, 3x3, PReLU, 3x3, plus the identity except in the first block of the network."""

    identity: bool
    precision: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w f"], size: Size = None) -> Float[Array, "n h w f"]:
        features = x.shape[-1]
        r = x
        for j in (1, 2):
            slopes = self.param(f"slopes_{j}", nn.initializers.constant(0.1), (features,))
            conv = Conv(3, features, precision=self.precision, name=f"conv_{j}")
            if size is None:
                r = _activated(conv, r, slopes)
            else:  # windows are not differentiated: nothing to keep, and less to trace
                identity = x if self.identity and j == 2 else None
                r = conv(prelu(r, slopes.astype(x.dtype)), size, identity)
        return x + r if self.identity and size is None else r


class ResidualNetwork(nn.Module):
    """z -> r, the residual before the projection: encoder, recurrent blocks, decoder.

    Attributes:
        config: static shape of the network.
        dtype: of the features; images, encoder and decoder keep the type of z.
        precision: of convolutions and matrix products, as in `jax.lax.Precision`.
    """

    config: ModelConfig
    dtype: Any = None
    precision: Any = None

    def setup(self):
        f, p = self.config.features, self.precision
        self.encoder = Conv(5, f, precision=p)
        self.slopes = self.param("slopes", nn.initializers.constant(0.1), (2 * f,))
        self.compress = Compress(p)
        self.block = [ResidualBlock(i > 0, p) for i in range(self.config.depth)]
        # In PyTorch a transposed convolution: this kernel is its kernel, flipped and transposed.
        self.decoder = Conv(5, self.config.channels, "zero", precision=p)

    def feedback(self, h: Float[Array, "n h w f"], size: Size = None) -> Float[Array, "n h w f"]:
        """One feedback step."""
        h = self.compress(h, self.slopes)
        first, *others = self.block
        h = first(h, size)
        if size is None or len(others) < 2:
            for block in others:
                h = block(h, size)
            return h
        # They are alike: one block to compile instead of all.
        kernels = [block.variables["params"] for block in others]
        kernels = jax.tree.map(lambda *a: jnp.stack(a), *kernels)
        block = ResidualBlock(True, self.precision, parent=None)

        def step(h, chosen):
            # A product chooses: XLA would fuse a slice of slopes into the loops over all pixels,
            # and take it again for each.
            choose = functools.partial(jnp.tensordot, chosen, axes=1, precision="highest")
            return block.apply({"params": jax.tree.map(choose, kernels)}, h, size), None

        return lax.scan(step, h, np.eye(len(others), dtype=np.float32))[0]

    def __call__(self, z: Float[Array, "n h w c"], size: Size = None) -> Float[Array, "n h w c"]:
        """r(z); of the image of `size` in z, see `conv3x3_reflect_window`, where that is given."""
        h = self.encoder(z, size).astype(self.dtype or z.dtype)
        if self.is_initializing():
            h = self.feedback(h)
        else:
            # Not `nn.scan`, which traces its body twice.
            network, variables = self.clone(parent=None), self.variables
            feedback = functools.partial(network.apply, variables, size=size, method="feedback")
            steps = self.config.feedback_steps
            # XLA's loops on a GPU copy what they carry. On a CPU unrolling gains nothing.
            unroll = jax.default_backend() == "gpu" and size is None
            h, _ = lax.scan(lambda h, _: (feedback(h), None), h, length=steps, unroll=unroll)
        return self.decoder(h.astype(z.dtype), size)


# --- parameters ---------------------------------------------------------------------------------


def fuse(network: dict[str, Any]) -> dict[str, Any]:
    """Weight normalisation carried out: (v, g, bias) -> (kernel, bias) with kernel = g v / |v|.

    |v| runs over all axes but the output channel; in the decoder, over all but the *input* channel
    (PyTorch normalises a transposed convolution along its first axis). Salimans & Kingma, 2016.
    NumPy arrays give NumPy arrays.
    """

    def fused(name, node):
        if not isinstance(node, dict):
            return node
        if "v" not in node:
            return {key: fused(key, value) for key, value in node.items()}
        v, g = node["v"], node["g"]
        axes, length = ((0, 1, 3), g[:, None]) if name == "decoder" else ((0, 1, 2), g)
        array = v.__array_namespace__()  # NumPy's functions or JAX's
        norm = array.sqrt(array.sum(array.square(v), axis=axes, keepdims=True))
        return {"kernel": v * (length / norm), "bias": node["bias"]}

    return fused("", network)


def init_weights(config: ModelConfig, key: jax.Array) -> Weights:
    """Fresh weights: He-normal directions, alpha and momentum as the authors start them.

        alpha = linspace(log 2, log 1, K),    w_k = log(k / (k + 3)), w_0 as w_1

    The lengths g start as |v|, so that w = v.
    """
    return Weights(_init_params(config, key), config)


@functools.partial(jax.jit, static_argnums=0)
def _init_params(config: ModelConfig, key: jax.Array) -> dict[str, Any]:
    shapes = expected_shapes(config)
    sizes = [math.prod(shape) for name, shape in shapes.items() if name.endswith(".v")]
    # One draw for all kernels: a program with one for each takes seconds to compile. Truncation
    # at two standard deviations leaves 0.8796 of one.
    drawn = jax.random.truncated_normal(key, -2, 2, (sum(sizes),)) / 0.87962566
    directions = iter(jnp.split(drawn, np.cumsum(sizes)[:-1]))
    flat: dict[str, Any] = {}
    for name, shape in shapes.items():
        if name.endswith(".v"):
            v = next(directions).reshape(shape) * np.sqrt(2 / math.prod(shape[:3]))
            axes = (0, 1, 3) if ".decoder." in name else (0, 1, 2)
            flat |= {name: v, name.removesuffix("v") + "g": jnp.sqrt(jnp.sum(v**2, axes))}
        elif "slopes" in name:
            flat[name] = jnp.full(shape, 0.1)
        elif name.endswith(".bias"):
            flat[name] = jnp.zeros(shape)
    k = np.maximum(np.arange(config.iterations), 1)
    flat["alpha"] = jnp.linspace(np.log(2.0), 0.0, config.iterations)
    flat["w"] = jnp.asarray(np.log(k / (k + 3)), jnp.float32)
    return unflatten(flat)


# --- the prior ------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LearnedPrior:
    """The official prior as a value for `unroll`: called with (z, sigma, alpha), returns N.

    Attributes:
        kernels: fused parameters of `ResidualNetwork`.
        config, dtype, precision: as there.
    """

    kernels: dict[str, Any]
    config: ModelConfig = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(default=None, metadata={"static": True})
    precision: Any = dataclasses.field(default="highest", metadata={"static": True})

    @classmethod
    def from_weights(cls, weights: Weights, dtype=None, precision="highest") -> "LearnedPrior":
        """Fuse the weight normalisation of `weights`."""
        return cls(fuse(weights.params["network"]), weights.config, dtype, precision)

    def residual(self, z: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """r(z), before the projection."""
        network = ResidualNetwork(self.config, self.dtype, self.precision)
        return network.apply({"params": self.kernels}, z)

    def __call__(
        self, z: Float[Array, "n h w c"], sigma: Float[Array, " n"], alpha: Float[Array, ""]
    ) -> Float[Array, "n h w c"]:
        """N(z; sigma, alpha) = project(residual(z), sigma, alpha)."""
        return project(self.residual(z), sigma, alpha)
