"""The physics: how a high-resolution image x becomes the low-resolution y that was observed.

An operator D is a small pytree with these methods; anything that offers `scale`, `initial` and
`gradient` can take its place in `unroll.unroll`:

    forward(x)       D x, the observation of x
    upsample(y)      U y, what stands for the adjoint in the iterations
    adjoint(y)       D^T y, the true adjoint of `forward`
    gradient(v, y)   the data-term gradient, U (D v - y)
    initial(y)       the image from which the iterations start

`reference=True`, the default, reproduces the reference implementation including its defects: what
converted weights were trained with. `reference=False` is what the mathematics means: samples are
pixel-centred, U = D^T, so that `gradient` is the gradient of 1/2 |D v - y|^2, and the initial image
is MATLAB's bicubic interpolation, without dark borders. Images are (n, h, w, c) in [0, 255];
high-resolution sides are `scale` times the low-resolution ones.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import resample
from .config import SCALES

Image = Float[Array, "n h w c"]


def _static(default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class _Operator:
    """What all operators share."""

    scale: int = _static()
    reference: bool = dataclasses.field(default=True, kw_only=True, metadata={"static": True})

    @property
    def numpy(self) -> bool:
        """Whether `initial` and `gradient` also work on NumPy arrays, without compilation."""
        return False

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, not {self.scale}")

    def forward(self, x: Image) -> Image:
        """D x."""
        raise NotImplementedError

    def adjoint(self, y: Image) -> Image:
        """D^T y, with <D x, y> = <x, D^T y>."""
        n, h, w, c = y.shape
        x = jax.ShapeDtypeStruct((n, h * self.scale, w * self.scale, c), y.dtype)
        return jax.linear_transpose(self.forward, x)(y)[0]

    def upsample(self, y: Image) -> Image:
        """U y: the true adjoint unless the reference does otherwise."""
        return self.adjoint(y)

    def gradient(self, v: Image, y: Image) -> Image:
        """U (D v - y); with reference=False the gradient of 1/2 |D v - y|^2."""
        return self.upsample(self.forward(v) - y)

    def initial(self, y: Image) -> Image:
        """x_0: bilinear with dark borders (reference), or MATLAB's bicubic interpolation."""
        if not self.reference:
            return resample.imresize(y, self.scale)
        return _bilinear(y, y.shape[1] * self.scale, y.shape[2] * self.scale)


def _bilinear(x: Image, h: int, w: int) -> Image:
    """The reference's bilinear sampler to h x w pixels."""
    real = jnp.dtype(x.dtype).name
    rows = resample.bilinear_taps(x.shape[1], h, real)
    return resample.resize(x, rows, resample.bilinear_taps(x.shape[2], w, real))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bicubic(_Operator):
    """Bicubic reduction, the degradation of the benchmarks and the default.

    reference=True: D takes every s-th pixel and U is the interpolation with swapped fractions of
    `resample.bicubic_upsample`. reference=False: D is MATLAB's antialiased `imresize`, unrounded.
    """

    @property
    def numpy(self) -> bool:
        return self.reference

    def forward(self, x: Image) -> Image:
        if self.reference:
            return x[:, :: self.scale, :: self.scale]
        return resample.imresize(x, 1 / self.scale)

    def upsample(self, y: Image) -> Image:
        return resample.bicubic_upsample(y, self.scale) if self.reference else self.adjoint(y)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bilinear(_Operator):
    """Bilinear sampling.

    reference=True: the sampler of the initial image (see `resample.bilinear_taps`), both ways.
    reference=False: D samples at the centres of the low-resolution pixels, s i + (s - 1) / 2,
    without antialiasing.
    """

    @property
    def numpy(self) -> bool:
        return self.reference

    def forward(self, x: Image) -> Image:
        h, w = x.shape[1] // self.scale, x.shape[2] // self.scale
        if self.reference:
            return _bilinear(x, h, w)
        return resample.resize(x, self._centred(h), self._centred(w))

    def _centred(self, n: int) -> resample.Taps:
        first = np.arange(n) * self.scale + (self.scale - 1) // 2
        weight = np.full((n, 2), 0.5) if self.scale % 2 == 0 else np.tile([1.0, 0.0], (n, 1))
        return resample.Taps(first[:, None] + np.arange(2), weight)

    def upsample(self, y: Image) -> Image:
        if not self.reference:
            return self.adjoint(y)
        return _bilinear(y, y.shape[1] * self.scale, y.shape[2] * self.scale)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blur(_Operator):
    """Blur with a kernel, then take every s-th pixel.

    reference=True: D correlates zero-padded (k // 2) images, and U is its transpose without the
    padding, cropped to the image, hence shifted by k // 2 pixels. reference=False: the kernel's
    window is centred on the low-resolution pixel (to half a pixel), edge pixels are repeated.

    Attributes:
        kernel: (k, k) for all channels, or (c, k, k), one for each.

    Raises:
        ValueError: on use: another shape, or one the reference cannot use (k even, or k < s).
    """

    kernel: Float[Array, "*c k k"]

    def _kernel(self, channels: int) -> Float[Array, "k k 1 c"]:
        # Checked here and not on construction: JAX rebuilds pytrees from anything.
        shape = jnp.shape(self.kernel)
        if len(shape) not in (2, 3) or shape[-1] != shape[-2]:
            raise ValueError(f"the kernel must be (k, k) or (c, k, k), not {shape}")
        if len(shape) == 3 and shape[0] != channels:
            raise ValueError(f"a kernel for {shape[0]} channels does not fit {channels}")
        k = shape[-1]
        if self.reference and (k % 2 == 0 or k < self.scale):
            raise ValueError(
                f"a {k}x{k} kernel at scale {self.scale}: the reference needs an odd size of at "
                "least the scale; use reference=False"
            )
        kernel = jnp.broadcast_to(jnp.asarray(self.kernel), (channels, k, k))
        return kernel.transpose(1, 2, 0)[:, :, None]

    def _convolve(self, x: Image, padding) -> Image:
        """Depthwise correlation with stride s."""
        return jax.lax.conv_general_dilated(
            x,
            self._kernel(x.shape[3]).astype(x.dtype),
            (self.scale, self.scale),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[3],
            precision="highest",
        )

    def forward(self, x: Image) -> Image:
        k, s = self.kernel.shape[-1], self.scale
        if self.reference:
            return self._convolve(x, [(k // 2, k // 2)] * 2)
        for axis in (1, 2):
            length = x.shape[axis] - s + k
            index = np.clip((s - k) // 2 + np.arange(length), 0, x.shape[axis] - 1)
            x = jnp.take(x, index, axis)
        return self._convolve(x, "VALID")

    def upsample(self, y: Image) -> Image:
        if not self.reference:
            return self.adjoint(y)
        n, h, w, c = y.shape
        k, s = self.kernel.shape[-1], self.scale
        full = jax.ShapeDtypeStruct((n, (h - 1) * s + k, (w - 1) * s + k, c), y.dtype)
        (x,) = jax.linear_transpose(lambda x: self._convolve(x, "VALID"), full)(y)
        return x[:, : h * s, : w * s]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decimation(_Operator):
    """D keeps the pixels [1::s, 1::s], for s = 2, 3, 4 those nearest to the pixel centres.

    The gradient, v - y there and zero elsewhere, is the true one; only the initial image differs
    between reference=True and reference=False.
    """

    def forward(self, x: Image) -> Image:
        return x[:, 1 :: self.scale, 1 :: self.scale]
