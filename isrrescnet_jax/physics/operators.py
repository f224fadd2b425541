"""The physics: how a high-resolution image x becomes the low-resolution y that was observed.

An operator D is a small pytree with these methods (`operator` has the base of all, `imaging` those
of other problems); anything that offers `initial` and `gradient` can take its place in
`solver.unroll`:

    forward(x)       D x, the observation of x
    upsample(y)      U y, what stands for the adjoint in the iterations
    adjoint(y)       D^T y, the true adjoint of `forward`
    gradient(v, y)   the data-term gradient, U (D v - y)
    initial(y)       the image from which the iterations start

There are two kinds of physics, and weights work with the one they were trained with:

    reference    the official implementation with its defects: what converted weights need
    exact        what the mathematics means: pixel-centred samples, U = D^T, so that `gradient` is
                 that of 1/2 |D v - y|^2, and MATLAB's bicubic interpolation as the initial image

An operator made without `reference=` takes that of the weights it is used with (`for_weights`);
used by itself it has to be told, by `reference=True` or `reference=False`. Images are (n, h, w, c)
in [0, 255]; high-resolution sides are `scale` times the low-resolution ones.
"""

import dataclasses
import functools
import warnings
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact

from ..config import SCALES, ModelConfig
from ..representation import in_one_line
from ..trees import pytree
from . import depthwise, sampling
from .operator import Composition, Operator, Scaled
from .placed import Axis, High, Low, Placed

LowLike = Inexact[ArrayLike, "n h w c"]
HighLike = Inexact[ArrayLike, "n H W c"]
_STATIC = {"static": True}


@dataclasses.dataclass(frozen=True)
class _Operator(Operator):
    """What all operators of super-resolution share.

    Attributes:
        scale: s.
        reference: True for the reference implementation's, False for the exact one, None for that
            of the weights.
    """

    scale: int = dataclasses.field(metadata=_STATIC)
    reference: bool | None = dataclasses.field(default=None, kw_only=True, metadata=_STATIC)

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, not {self.scale}")
        if self.reference is not None and not isinstance(self.reference, bool):
            raise ValueError(f"reference must be True, False or None, not {self.reference!r}")

    @property
    def _reference(self) -> bool:
        """Which of the two this is."""
        if self.reference is None:
            raise ValueError(
                f"{type(self).__name__}({self.scale}) by itself does not say which physics is "
                "meant: give reference=False (exact) or reference=True"
            )
        return self.reference

    def at(self, h: int, w: int, dtype: Any = "float32") -> "Placed":
        """The operator for images of h x w low-resolution pixels."""
        real = np.zeros(0, dtype).real.dtype.name
        return Placed(self, self.axis(h, real), self.axis(w, real))

    def turned(self) -> Any:
        """The operator for images that lie on their side, rows and columns exchanged."""
        return self

    def _at(self, y: Low) -> "Placed":
        return self.at(y.shape[1], y.shape[2], y.dtype)

    def forward(self, x: HighLike) -> Low:
        """D x."""
        x = jnp.asarray(x)
        s = self.scale
        return self.at(x.shape[1] // s, x.shape[2] // s, x.dtype).forward(x)

    def adjoint(self, y: LowLike) -> High:
        """D^T y, with <D x, y> = <x, D^T y>."""
        y = jnp.asarray(y)
        return self._at(y).adjoint(y)

    def upsample(self, y: LowLike) -> High:
        """U y: the true adjoint unless the reference does otherwise."""
        y = jnp.asarray(y)
        return self._at(y).upsample(y)

    def gradient(self, v: HighLike, y: LowLike) -> High:
        """U (D v - y); with reference=False the gradient of 1/2 |D v - y|^2."""
        v, y = jnp.asarray(v), jnp.asarray(y)
        return self.at(y.shape[1], y.shape[2], v.dtype).gradient(v, y)

    def initial(self, y: LowLike) -> High:
        """x_0: bilinear with dark borders (reference), or MATLAB's bicubic interpolation."""
        y = jnp.asarray(y)
        return self._at(y).initial(y)

    # What differs between operators: what they need to know of an axis, and D and U with it.

    def axis(self, n: int, real: str) -> Axis:
        """What depends on the length of an axis, n low-resolution pixels."""
        if self._reference:
            return {"initial": sampling.bilinear_taps(n, n * self.scale, real)}
        border = getattr(self, "border", "symmetric")
        return {"initial": sampling.imresize_band(n, self.scale, border, enlarge=True)}

    def _forward(self, x: High, rows: Axis, columns: Axis) -> Low:
        raise NotImplementedError

    def _upsample(self, y: Low, rows: Axis, columns: Axis) -> High:
        return self._adjoint(y, rows, columns)

    def _adjoint(self, y: Low, rows: Axis, columns: Axis) -> High:
        n, h, w, c = y.shape
        x = jax.ShapeDtypeStruct((n, h * self.scale, w * self.scale, c), y.dtype)
        forward = functools.partial(self._forward, rows=rows, columns=columns)
        return jax.linear_transpose(forward, x)(y)[0]

    @property
    def reach(self) -> int:
        """Low-resolution pixels from a pixel within which `gradient` and `initial` depend on it."""
        return 5


@pytree
@dataclasses.dataclass(frozen=True)
class Bicubic(_Operator):
    """Bicubic reduction, the degradation of the benchmarks and the default.

    reference=True: D takes every s-th pixel and U is the interpolation with swapped fractions of
    `sampling.bicubic_upsample`. reference=False: D is MATLAB's antialiased `imresize`, unrounded
    (the cubic kernel of Keys, IEEE Transactions on ASSP 29(6), 1981, stretched by s), with which
    the low-resolution images of the benchmarks were made. By power iteration |D^T D| is 0.250,
    0.111, 0.0625 for s = 2, 3, 4 with symmetric borders, which is 1 / s^2, and 0.251, 0.112, 0.0628
    with replicated ones.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> operator = isr.Bicubic(2, reference=False)
    >>> x = jnp.full((1, 8, 12, 3), 100.0)
    >>> y = operator.forward(x)
    >>> y.shape, operator.initial(y).shape
    ((1, 4, 6, 3), (1, 8, 12, 3))
    >>> bool(jnp.abs(operator.gradient(x, y)).max() < 1e-3)
    True

    Attributes:
        scale: s, one of 2, 3, 4.
        border: how the exact D continues an image beyond its edge: "symmetric" mirrors it, edge
            pixel included, as MATLAB does; "replicate" repeats the edge pixel, as the usual copies
            of the benchmarks have it. Without effect on the reference's.
        reference: True or False; None for that of the weights.

    Raises:
        ValueError: another scale or border; on use by itself, `reference` is None.
    """

    border: Literal["symmetric", "replicate"] = dataclasses.field(
        default="symmetric", kw_only=True, metadata={"static": True}
    )

    def __post_init__(self):
        super().__post_init__()
        sampling.check_border(self.border)

    def axis(self, n: int, real: str) -> Axis:
        if self._reference:
            near = sampling.window_taps(n, 1, n + 3, False, 1)
            own: Axis = {"near": near, "weight": sampling.bicubic_weights(n, self.scale, real)}
        else:
            own = {"down": sampling.imresize_band(n, self.scale, self.border)}
        return super().axis(n, real) | own

    def _forward(self, x: High, rows: Axis, columns: Axis) -> Low:
        if self._reference:
            return x[:, :: self.scale, :: self.scale]
        return sampling.resize(x, rows["down"], columns["down"])

    def _upsample(self, y: Low, rows: Axis, columns: Axis) -> High:
        if not self._reference:
            return self._adjoint(y, rows, columns)
        maps = ((axis["near"], axis["weight"]) for axis in (rows, columns))
        return sampling.bicubic_upsample(y, *maps)


@pytree
@dataclasses.dataclass(frozen=True)
class Bilinear(_Operator):
    """Bilinear sampling.

    reference=True: the sampler of the initial image (see `sampling.bilinear_taps`), both ways.
    reference=False: D samples at the centres of the low-resolution pixels, s i + (s - 1) / 2,
    without antialiasing.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> x = jnp.arange(8.0).reshape(1, 1, 8, 1).repeat(2, axis=1)
    >>> isr.Bilinear(2, reference=False).forward(x).ravel()
    Array([0.5, 2.5, 4.5, 6.5], dtype=float32)
    """

    def axis(self, n: int, real: str) -> Axis:
        if self._reference:
            down = sampling.bilinear_taps(n * self.scale, n, real)
        else:
            down = sampling.centre_band(n, self.scale)
        return super().axis(n, real) | {"down": down}

    def _forward(self, x: High, rows: Axis, columns: Axis) -> Low:
        return sampling.resize(x, rows["down"], columns["down"])

    def _upsample(self, y: Low, rows: Axis, columns: Axis) -> High:
        if not self._reference:
            return self._adjoint(y, rows, columns)
        return sampling.resize(y, rows["initial"], columns["initial"])


@pytree
@dataclasses.dataclass(frozen=True)
class Blur(_Operator):
    """Blur with a kernel, then take every s-th pixel.

    reference=True: D correlates zero-padded (k // 2) images, and U is its transpose without the
    padding, cropped to the image, hence shifted by k // 2 pixels. reference=False: the kernel's
    window is centred on the low-resolution pixel (to half a pixel), edge pixels are repeated.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> operator = isr.Blur(2, jnp.full((4, 4), 1 / 16), reference=False)
    >>> operator
    Blur(scale=2, reference=False, kernel=f32[4,4])
    >>> operator.forward(jnp.ones((1, 8, 8, 3))).shape
    (1, 4, 4, 3)

    Attributes:
        kernel: (k, k) for all channels, or (c, k, k), one for each.

    Raises:
        ValueError: on use: another shape, or one the reference cannot use (k even, or k < s).
    """

    kernel: Float[ArrayLike, "..."]

    __repr__ = in_one_line

    def turned(self) -> Any:
        return dataclasses.replace(self, kernel=jnp.swapaxes(self.kernel, -1, -2))

    def _kernels(self, channels: int) -> Inexact[Array, "c k k"]:
        # Checked here and not on construction: JAX rebuilds pytrees from anything.
        kernel = depthwise.kernels(self.kernel, channels)
        k = kernel.shape[-1]
        if kernel.shape[-2] != k:
            raise ValueError(f"the kernel must be square, not {kernel.shape[-2:]}")
        if self._reference and (k % 2 == 0 or k < self.scale):
            raise ValueError(
                f"a {k}x{k} kernel at scale {self.scale}: the reference needs an odd size of at "
                "least the scale; use reference=False"
            )
        return kernel

    def axis(self, n: int, real: str) -> Axis:
        k, s = jnp.shape(self.kernel)[-1], self.scale
        if self._reference:
            seen = sampling.window_taps(n * s, k // 2, n * s + k // 2 * 2, True, s)
        else:
            seen = sampling.window_taps(n * s, -((s - k) // 2), n * s + k - s, False, s)
        # Of a canvas, what lies outside of the image sees some of it all the same.
        return super().axis(n, real) | {"seen": seen, "inside": np.ones(n, real)}

    def _correlate(self, x: High) -> Low:
        return depthwise.correlate_each(x, self._kernels(x.shape[3]), self.scale)

    def _forward(self, x: High, rows: Axis, columns: Axis) -> Low:
        seen = columns["seen"](rows["seen"](x, 1), 2)
        y = self._correlate(seen)
        above, beside = (jnp.asarray(axis["inside"], y.dtype) for axis in (rows, columns))
        return y * jnp.outer(above, beside)[:, :, None]

    def _upsample(self, y: Low, rows: Axis, columns: Axis) -> High:
        if not self._reference:
            return self._adjoint(y, rows, columns)
        (n, h, w, c), s = y.shape, self.scale
        k = self._kernels(c).shape[-1]
        full = jax.ShapeDtypeStruct((n, (h - 1) * s + k, (w - 1) * s + k, c), y.dtype)
        (x,) = jax.linear_transpose(self._correlate, full)(y)
        return x[:, : h * s, : w * s]

    @property
    def reach(self) -> int:
        return max(super().reach, jnp.shape(self.kernel)[-1] // self.scale + 2)


@pytree
@dataclasses.dataclass(frozen=True)
class Decimation(_Operator):
    """D keeps the pixels [1::s, 1::s], for s = 2, 3, 4 those nearest to the pixel centres.

    The gradient, v - y there and zero elsewhere, is the true one; only the initial image differs
    between reference=True and reference=False.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> x = jnp.arange(8.0).reshape(1, 1, 8, 1).repeat(2, axis=1)
    >>> isr.Decimation(2, reference=False).forward(x).ravel()
    Array([1., 3., 5., 7.], dtype=float32)
    """

    def _forward(self, x: High, rows: Axis, columns: Axis) -> Low:
        return x[:, 1 :: self.scale, 1 :: self.scale]


def for_weights(operator: Any, config: ModelConfig) -> Any:
    """The operator as weights of this configuration need it: a `reference=None` is decided.

    Operators of other kinds, without a field `reference`, are returned as they are.

    Warns:
        UserWarning: the operator was given with a `reference` that is not that of the weights.
    """
    reference = config.physics == "reference"
    if isinstance(operator, Scaled):
        return dataclasses.replace(operator, operator=for_weights(operator.operator, config))
    if isinstance(operator, Composition):
        outer, inner = (for_weights(part, config) for part in (operator.outer, operator.inner))
        return dataclasses.replace(operator, outer=outer, inner=inner)
    if not hasattr(operator, "reference"):
        return operator
    if operator.reference is None:
        return dataclasses.replace(operator, reference=reference)
    if operator.reference != reference:
        warnings.warn(
            f"{type(operator).__name__}({operator.scale}, reference={operator.reference}) on "
            f"weights that were trained with {config.physics} physics",
            stacklevel=3,
        )
    return operator
