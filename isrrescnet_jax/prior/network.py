"""The learned prior: a small recurrent residual network and the projection behind it.

    N(z; sigma, alpha) = project(residual(z, sigma), sigma, alpha)

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
from ..representation import in_one_line
from ..tensors import unflatten
from ..trees import pytree
from ..weights import Weights, expected_shapes
from .border import conv3x3_reflect
from .conv import conv
from .parameters import fuse, norm
from .prelu import prelu
from .projection import project
from .window import Size, conv3x3_reflect_window, conv_window, in_strips, inside, surrounded


@functools.partial(nn.remat, prevent_cse=False)
def _activated(conv, x, slopes, size):
    """conv(prelu(x)), of which only x is kept for the way back: PReLU costs less than memory."""
    return conv(prelu(x, slopes.astype(x.dtype)), size)


class BorderConv(nn.Module):
    """A convolution with bias on fused weights, one way or another beyond the border.

    border: "reflect" or "zero"; both keep the image size. An image of `size` fills a part of x, see
    `window`.
    """

    size: int
    outputs: int
    border: str = "reflect"
    precision: Any = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w i"],
        size: Size | None = None,
    ) -> Float[Array, "n h w o"]:
        shape = (self.size, self.size, x.shape[-1], self.outputs)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,)).astype(x.dtype)
        pad = self.size // 2
        if size is not None:
            x = surrounded(x, size, pad) if self.border == "reflect" else inside(x, size)
            return conv(x, kernel, pad, self.precision) + bias
        if self.border == "zero":
            return conv(x, kernel, pad, self.precision) + bias
        if self.size == 3:
            return conv3x3_reflect(x, kernel, self.precision) + bias
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
        self, h: Float[Array, "n h w f"], slopes: Float[Array, " 2*f"]
    ) -> Float[Array, "n h w f"]:
        f = h.shape[-1]
        kernel = self.param("kernel", nn.initializers.he_normal(), (1, 1, 2 * f, f))
        bias = self.param("bias", nn.initializers.zeros, (f,))
        return compress(h, slopes, kernel, bias, self.precision)


def compress(
    h: Float[Array, "n h w f"],
    slopes: Float[Array, " 2*f"],
    kernel: Float[Array, "1 1 2*f f"],
    bias: Float[Array, " f"],
    precision: Any = None,
) -> Float[Array, "n h w f"]:
    """`Compress` with these parameters."""
    f = h.shape[-1]
    always = slopes[:, None] * kernel[0, 0]
    positive = kernel[0, 0] - always
    always, positive = ((m[:f] + m[f:]).astype(h.dtype) for m in (always, positive))
    linear = jnp.dot(h, always, precision=precision)
    # Not jnp.maximum, whose derivative at 0 is a half: PReLU's there is the slope.
    return (
        linear
        + jnp.dot(jnp.where(h > 0, h, 0), positive, precision=precision)
        + bias.astype(h.dtype)
    )


class ResidualBlock(nn.Module):
    """PReLU, 3x3, PReLU, 3x3, plus the identity except in the first block of the network."""

    identity: bool
    precision: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w f"], size: Size | None = None
    ) -> Float[Array, "n h w f"]:
        features = x.shape[-1]
        r = x
        for j in (1, 2):
            slopes = self.param(f"slopes_{j}", nn.initializers.constant(0.1), (features,))
            conv = BorderConv(3, features, precision=self.precision, name=f"conv_{j}")
            r = _activated(conv, r, slopes, size)
        return x + r if self.identity else r


class ResidualNetwork(nn.Module):
    """(z, sigma) -> r, the residual before the projection: encoder, recurrent blocks, decoder.

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
        self.encoder = BorderConv(5, f, precision=p)
        self.slopes = self.param("slopes", nn.initializers.constant(0.1), (2 * f,))
        self.compress = Compress(p)
        self.block = [ResidualBlock(i > 0, p) for i in range(self.config.depth)]
        # In PyTorch a transposed convolution: this kernel is its kernel, flipped and transposed.
        self.decoder = BorderConv(5, self.config.channels, "zero", precision=p)

    def feedback(
        self, h: Float[Array, "n h w f"], size: Size | None = None
    ) -> Float[Array, "n h w f"]:
        """One feedback step."""
        h = self.compress(h, self.slopes)
        for block in self.block:
            h = block(h, size)
        return h

    def __call__(
        self,
        z: Float[Array, "n h w c"],
        size: Size | None = None,
        sigma: Float[Array, " n"] | None = None,
        strips: bool = False,
    ) -> Float[Array, "n h w c"]:
        """r(z, sigma), or r(z) of a network without `config.noise_input`, which ignores sigma.

        Args:
            size: of the image in z, where it fills only a part (see `window`).
            sigma: noise level of each image, in grey levels.
            strips: pass over a window in strips of rows, the fast way on a CPU.

        Raises:
            ValueError: the network has a noise input, and sigma is not given.
        """
        x = z
        if self.config.noise_input:
            if sigma is None:
                raise ValueError("this network has a noise input: give sigma")
            # Everywhere, so that the reflected border of an image in a window has it too.
            level = jnp.broadcast_to(sigma[:, None, None, None], (*z.shape[:3], 1))
            x = jnp.concatenate([z, level.astype(z.dtype)], axis=-1)
        if strips and size is not None:
            return self._in_strips(x, size)
        h = self.encoder(x, size).astype(self.dtype or z.dtype)
        h = self.feedback(h) if self.is_initializing() else self._steps(h, size)
        return self.decoder(h.astype(z.dtype), size)

    def _steps(self, h: Float[Array, "n h w f"], size: Size | None) -> Float[Array, "n h w f"]:
        """All feedback steps. Not `nn.scan`, which traces its body twice."""
        network = self.clone(parent=None)

        @functools.partial(jax.jit, inline=True)  # traced once, for both loops
        def feedback(h: Array, variables: Any, size: Size | None) -> Any:
            return network.apply(variables, h, size, method="feedback")

        def loop(h, variables, size, unroll=False):
            length = self.config.feedback_steps
            step = lambda h, _: (feedback(h, variables, size), None)  # noqa: E731
            return lax.scan(step, h, length=length, unroll=unroll)[0]

        # XLA's loops on a GPU copy what they carry. On a CPU unrolling gains nothing.
        unrolled = functools.partial(loop, unroll=True)
        ways = {"cuda": unrolled, "rocm": unrolled, "default": loop}
        return lax.platform_dependent(h, self.variables, size, **ways)

    def _in_strips(self, x: Float[Array, "n h w i"], size: Size) -> Float[Array, "n h w c"]:
        """`__call__` of an image in a window, in strips and no more than two arrays of features.

        Modules have no place to write to: what `feedback`, `ResidualBlock` and `BorderConv` do is
        said here once more.
        """
        params, p, dtype = self.variables["params"], self.precision, self.dtype or x.dtype
        # Blocks are alike but for the identity: one to compile instead of all.
        blocks = [params[f"block_{i}"] for i in range(self.config.depth)]
        blocks = jax.tree.map(lambda *a: jnp.stack(a).astype(dtype), *blocks)
        convolve = functools.partial(conv3x3_reflect_window, size=size, precision=p)

        def block(carry: tuple[Array, Array], chosen: Array) -> tuple[Any, None]:
            h, r = carry
            # A product chooses: XLA would fuse a slice of slopes into the loops over all pixels,
            # and take it again for each.
            choose = functools.partial(jnp.tensordot, chosen, axes=1, precision="highest")
            b = jax.tree.map(choose, blocks)
            r = convolve(h, b["slopes_1"], **b["conv_1"], into=r)
            h = convolve(r, b["slopes_2"], **b["conv_2"], into=h, factor=1 - chosen[0])
            return (h, r), None

        def compressed(h: Array, first: Any, count: int) -> Array:
            rows = lax.dynamic_slice_in_dim(h, first, count, 1)
            return compress(rows, params["slopes"], **params["compress"], precision=p)

        def feedback(carry: tuple[Array, Array], _: None) -> tuple[Any, None]:
            h, r = carry
            h = in_strips(h, size, compressed)[0]
            return lax.scan(block, (h, r), jnp.eye(self.config.depth, dtype=dtype))[0], None

        h = conv_window(x, **params["encoder"], size=size, dtype=dtype, precision=p)
        carry, steps = (h, jnp.zeros_like(h)), self.config.feedback_steps
        h = lax.scan(feedback, carry, length=steps)[0][0].astype(x.dtype)
        return conv_window(
            h, **params["decoder"], size=size, dtype=x.dtype, border="zero", precision=p
        )


@pytree
@dataclasses.dataclass(frozen=True)
class LearnedPrior:
    """The official prior as a value for `unroll`: called with (z, sigma, alpha), returns N.

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, scale=2)
    >>> prior = isr.LearnedPrior.from_weights(isr.init_weights(config, jax.random.key(0)))
    >>> prior(jnp.ones((2, 8, 9, 3)), jnp.ones(2), jnp.zeros(())).shape
    (2, 8, 9, 3)

    Attributes:
        kernels: fused parameters of `ResidualNetwork`.
        config, dtype, precision: as there.
    """

    kernels: dict[str, Any]
    config: ModelConfig = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(default=None, metadata={"static": True})
    precision: Any = dataclasses.field(default="highest", metadata={"static": True})

    __repr__ = in_one_line

    @classmethod
    def from_weights(cls, weights: Weights, dtype=None, precision="highest") -> "LearnedPrior":
        """Fuse the weight normalisation of `weights`."""
        return cls(fuse(weights.params["network"]), weights.config, dtype, precision)

    def residual(
        self, z: Float[Array, "n h w c"], sigma: Float[Array, " n"] | None = None
    ) -> Float[Array, "n h w c"]:
        """r(z, sigma), before the projection; sigma matters, and is needed, with `noise_input`."""
        if jnp.iscomplexobj(z):
            raise ValueError("the learned prior is for real images: give prior= for complex ones")
        network = ResidualNetwork(self.config, self.dtype, self.precision)
        r: Any = network.apply({"params": self.kernels}, z, sigma=sigma)
        return r

    def __call__(
        self, z: Float[Array, "n h w c"], sigma: Float[Array, " n"], alpha: Float[Array, ""]
    ) -> Float[Array, "n h w c"]:
        """N(z; sigma, alpha) = project(residual(z, sigma), sigma, alpha)."""
        return project(self.residual(z, sigma), sigma, alpha)


def init_weights(config: ModelConfig, key: jax.Array) -> Weights:
    """Fresh weights: He-normal directions, alpha and momentum as the authors start them.

        alpha = linspace(log 2, log 1, K),    w_k = log(k / (k + 3)), w_0 as w_1

    The lengths g start as |v|, so that w = v. (He, Zhang, Ren & Sun, ICCV 2015.)

    >>> import jax, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=3, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> weights
    Weights(x2, K=3, reference, 981 parameters)
    >>> jax.numpy.exp(weights.params["alpha"]).round(2)
    Array([2.  , 1.41, 1.  ], dtype=float32)
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
            flat |= {name: v, name.removesuffix("v") + "g": norm(v, ".decoder." in name)}
        elif "slopes" in name:
            flat[name] = jnp.full(shape, 0.1)
        elif name.endswith(".bias"):
            flat[name] = jnp.zeros(shape)
    k = np.maximum(np.arange(config.iterations), 1)
    flat["alpha"] = jnp.linspace(np.log(2.0), 0.0, config.iterations)
    flat["w"] = jnp.asarray(np.log(k / (k + 3)), jnp.float32)
    return unflatten(flat)
