"""The physics: how a high-resolution image x becomes the low-resolution y that was observed.

An operator D is a small pytree with these methods; anything that offers `scale`, `initial` and
`gradient` can take its place in `unroll.unroll`:

    forward(x)       D x, the observation of x
    upsample(y)      U y, what stands for the adjoint in the iterations
    adjoint(y)       D^T y, the true adjoint of `forward`
    gradient(v, y)   the data-term gradient, U (D v - y)
    initial(y)       the image from which the iterations start

There are two kinds of physics, and weights work with the one they were trained with:

    reference    the official implementation with its defects: what converted weights need
    exact        what the mathematics means: samples are pixel-centred, U = D^T, so that `gradient`
                 is the gradient of 1/2 |D v - y|^2, and the initial image is MATLAB's bicubic
                 interpolation, without dark borders

An operator made without `reference=` takes that of the weights it is used with (`ModelConfig`,
`for_weights`); used by itself it has to be told, by `reference=True` or `reference=False`. Images
are (n, h, w, c) in [0, 255]; high-resolution sides are `scale` times the low-resolution ones.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..config import SCALES, ModelConfig
from . import sampling as resample

Image = Float[Array, "n h w c"]


def _static(default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class _Operator:
    """What all operators share.

    Attributes:
        scale: s.
        reference: True for the operator of the reference implementation, False for the exact one,
            None for that of the weights.
    """

    scale: int = _static()
    reference: bool | None = dataclasses.field(
        default=None, kw_only=True, metadata={"static": True}
    )

    @property
    def _reference(self) -> bool:
        """Which of the two this is."""
        if self.reference is None:
            raise ValueError(
                f"{type(self).__name__}({self.scale}) by itself does not say which physics is "
                "meant: give reference=False (exact) or reference=True"
            )
        return self.reference

    @property
    def numpy(self) -> bool:
        """Whether all methods also work on NumPy arrays, on the host and without compilation."""
        return True

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, not {self.scale}")

    def forward(self, x: Image) -> Image:
        """D x."""
        raise NotImplementedError

    def adjoint(self, y: Image) -> Image:
        """D^T y, with <D x, y> = <x, D^T y>."""
        n, h, w, c = y.shape
        shape = (n, h * self.scale, w * self.scale, c)
        if isinstance(y, np.ndarray):
            return self._adjoint(y, shape)
        return jax.linear_transpose(self.forward, jax.ShapeDtypeStruct(shape, y.dtype))(y)[0]

    def _adjoint(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """`adjoint` for NumPy arrays."""
        raise NotImplementedError

    def upsample(self, y: Image) -> Image:
        """U y: the true adjoint unless the reference does otherwise."""
        return self.adjoint(y)

    def gradient(self, v: Image, y: Image) -> Image:
        """U (D v - y); with reference=False the gradient of 1/2 |D v - y|^2."""
        return self.upsample(self.forward(v) - y)

    def initial(self, y: Image) -> Image:
        """x_0: bilinear with dark borders (reference), or MATLAB's bicubic interpolation."""
        if not self._reference:
            border = getattr(self, "border", "symmetric")
            return resample.interpolate(y, resample.bicubic_reduction(self.scale, border))
        return _bilinear(y, y.shape[1] * self.scale, y.shape[2] * self.scale)


def _spread(y: np.ndarray, shape: tuple[int, ...], first: int, scale: int) -> np.ndarray:
    """y at the pixels [first::scale, first::scale] of an image that is zero elsewhere."""
    x = np.zeros(shape, y.dtype)
    x[:, first::scale, first::scale] = y
    return x


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
    `resample.bicubic_upsample`. reference=False: D is MATLAB's antialiased `imresize`, unrounded,
    with which the low-resolution images of the benchmarks were made. By power iteration |D^T D| is
    0.250, 0.111, 0.0625 for s = 2, 3, 4 with symmetric borders, which is 1 / s^2, and 0.251, 0.112,
    0.0628 with replicated ones.

    Attributes:
        border: how the exact D continues an image beyond its edge: "symmetric" mirrors it, edge
            pixel included, as MATLAB does; "replicate" repeats the edge pixel, as the usual copies
            of the benchmarks have it. Without effect on the reference's.
    """

    border: Literal["symmetric", "replicate"] = dataclasses.field(
        default="symmetric", kw_only=True, metadata={"static": True}
    )

    def __post_init__(self):
        super().__post_init__()
        self._reduction  # noqa: B018 (checks the border)

    @property
    def _reduction(self) -> resample.Reduction:
        return resample.bicubic_reduction(self.scale, self.border)

    def forward(self, x: Image) -> Image:
        if self._reference:
            return x[:, :: self.scale, :: self.scale]
        return resample.reduce(x, self._reduction)

    def adjoint(self, y: Image) -> Image:
        if self._reference:
            return super().adjoint(y)
        return resample.reduce_adjoint(y, self._reduction)

    def _adjoint(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return _spread(y, shape, 0, self.scale)

    def upsample(self, y: Image) -> Image:
        return resample.bicubic_upsample(y, self.scale) if self._reference else self.adjoint(y)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bilinear(_Operator):
    """Bilinear sampling.

    reference=True: the sampler of the initial image (see `resample.bilinear_taps`), both ways.
    reference=False: D samples at the centres of the low-resolution pixels, s i + (s - 1) / 2,
    without antialiasing.
    """

    def _taps(self, h: int, w: int, dtype: Any) -> tuple[resample.Taps, resample.Taps]:
        """Of the reference's `forward`, for images of h x w pixels."""
        low, real = (h // self.scale, w // self.scale), jnp.dtype(dtype).name
        rows, columns = (resample.bilinear_taps(*n, real) for n in zip((h, w), low, strict=True))
        return rows, columns

    def forward(self, x: Image) -> Image:
        if not self._reference:
            return resample.reduce(x, resample.bilinear_reduction(self.scale))
        return resample.resize(x, *self._taps(*x.shape[1:3], x.dtype))

    def adjoint(self, y: Image) -> Image:
        if not self._reference:
            return resample.reduce_adjoint(y, resample.bilinear_reduction(self.scale))
        return super().adjoint(y)

    def _adjoint(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        taps = self._taps(*shape[1:3], y.dtype)
        return resample.resize_adjoint(y, *taps, *shape[1:3])

    def upsample(self, y: Image) -> Image:
        if not self._reference:
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
        if self._reference and (k % 2 == 0 or k < self.scale):
            raise ValueError(
                f"a {k}x{k} kernel at scale {self.scale}: the reference needs an odd size of at "
                "least the scale; use reference=False"
            )
        kernel = jnp.broadcast_to(jnp.asarray(self.kernel), (channels, k, k))
        return kernel.transpose(1, 2, 0)[:, :, None]

    def _convolve(self, x: Image) -> Image:
        """Depthwise correlation with stride s, without padding."""
        kernel, s = self._kernel(x.shape[3]), self.scale
        if isinstance(x, np.ndarray):
            return sum(x[part] * weight for part, weight in self._taps(x.shape, x.dtype))
        return jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (s, s),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[3],
            precision="highest",
        )

    def _taps(self, shape: tuple[int, ...], dtype: Any) -> Iterator[tuple[Any, np.ndarray]]:
        """For each pixel of the kernel: what it sees of an image of this shape, and its weights."""
        kernel = np.asarray(self._kernel(shape[3]), dtype)
        k, s = kernel.shape[0], self.scale
        for i, j in np.ndindex(k, k):
            rows = slice(i, shape[1] - k + i + 1, s)
            yield np.s_[:, rows, j : shape[2] - k + j + 1 : s], kernel[i, j, 0]

    def _padded(self, x: Image) -> Image:
        """What the kernel's windows lie in."""
        k, s, xp = self.kernel.shape[-1], self.scale, x.__array_namespace__()
        if self._reference:
            return xp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        for axis in (1, 2):
            x = xp.take(x, self._repeated(x.shape[axis], k, s), axis=axis)
        return x

    @staticmethod
    def _repeated(length: int, k: int, s: int) -> np.ndarray:
        """Index of each pixel of an axis whose edge pixels are repeated."""
        return np.clip((s - k) // 2 + np.arange(length - s + k), 0, length - 1)

    def forward(self, x: Image) -> Image:
        return self._convolve(self._padded(x))

    def _transposed(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The transpose of `_convolve` to images of this shape, for NumPy arrays."""
        x = np.zeros(shape, y.dtype)
        for part, weight in self._taps(shape, y.dtype):
            x[part] += y * weight
        return x

    def _adjoint(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        n, h, w, c = shape
        k, s = self.kernel.shape[-1], self.scale
        if self._reference:
            margin = k // 2
            x = self._transposed(y, (n, h + 2 * margin, w + 2 * margin, c))
            return x[:, margin : margin + h, margin : margin + w]
        x = self._transposed(y, (n, h - s + k, w - s + k, c))
        for axis, length in ((1, h), (2, w)):
            index = self._repeated(length, k, s)[:, None]
            one = resample.Taps(index, np.ones(index.shape))
            x = one.transposed(x, axis, length)
        return np.ascontiguousarray(x)

    def upsample(self, y: Image) -> Image:
        if not self._reference:
            return self.adjoint(y)
        n, h, w, c = y.shape
        k, s = self.kernel.shape[-1], self.scale
        self._kernel(c)  # is checked before its shape is used
        full = (n, (h - 1) * s + k, (w - 1) * s + k, c)
        if isinstance(y, np.ndarray):
            x = self._transposed(y, full)
        else:
            full = jax.ShapeDtypeStruct(full, y.dtype)
            (x,) = jax.linear_transpose(self._convolve, full)(y)
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

    def _adjoint(self, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return _spread(y, shape, 1, self.scale)


def for_weights(operator: Any, config: ModelConfig) -> Any:
    """The operator as weights of this configuration need it: a `reference=None` is decided.

    Operators of other kinds, without a field `reference`, are returned as they are.

    Warns:
        UserWarning: the operator was given with a `reference` that is not that of the weights.
    """
    if not hasattr(operator, "reference"):
        return operator
    reference = config.physics == "reference"
    if operator.reference is None:
        return dataclasses.replace(operator, reference=reference)
    if operator.reference != reference:
        warnings.warn(
            f"{type(operator).__name__}({operator.scale}, reference={operator.reference}) on "
            f"weights that were trained with {config.physics} physics",
            stacklevel=3,
        )
    return operator
