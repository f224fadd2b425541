"""Operators of other problems than super-resolution: inpainting, MRI, deblurring."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact, Shaped

from ..trees import pytree
from . import depthwise
from .operator import Image, Operator


@pytree
@dataclasses.dataclass(frozen=True)
class Mask(Operator):
    """Inpainting: y = m x, with a mask that is 1 where pixels are seen and 0 where they are not.

    Attributes:
        mask: any shape that broadcasts with (n, H, W, c); also weights, real or complex. |A| is
            the largest |m|.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> half = isr.Mask(jnp.array([[[1.0], [0.0]]]))
        >>> print(half.forward(jnp.full((1, 1, 2, 1), 7.0)).ravel())
        [7. 0.]
    """

    mask: Shaped[ArrayLike, "*shape"]

    def forward(self, x: Image) -> Image:
        """m x."""
        mask = jnp.asarray(self.mask)
        real = x.real.dtype
        kind = jnp.result_type(real, jnp.complex64) if jnp.iscomplexobj(mask) else real
        return mask.astype(kind) * x


@pytree
@dataclasses.dataclass(frozen=True)
class Fourier(Operator):
    """Magnetic resonance imaging with one coil: y = m F x, with F the unitary 2-D DFT.

    |A| is at most 1 for masks of zeros and ones. Frequencies are in the order of `jnp.fft.fft2`: 0
    in the corner. Several coils are Fourier(mask) after their sensitivities, as one more image
    each. (Lustig, Donoho & Pauly, "Sparse MRI", MRM 58(6), 2007.)

    Attributes:
        mask: which frequencies are measured, of any shape that broadcasts with (n, H, W, c).
        real: images are real: A^H y takes the real part; static.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> scanner = isr.Fourier(jnp.ones((4, 4, 1)))
        >>> y = scanner.forward(jnp.ones((1, 4, 4, 1), jnp.complex64))
        >>> round(float(abs(scanner.initial(y) - 1).max()), 5)
        0.0
    """

    mask: Shaped[ArrayLike, "*shape"]
    real: bool = dataclasses.field(default=False, kw_only=True, metadata={"static": True})

    def domain(self, y: Inexact[Array, "n H W c"]) -> jax.ShapeDtypeStruct:
        """Complex images, or real ones."""
        complex_type = jnp.result_type(y.dtype, jnp.complex64)
        kind = jnp.zeros(0, complex_type).real.dtype if self.real else complex_type
        return jax.ShapeDtypeStruct(y.shape, kind)

    def forward(self, x: Image) -> Inexact[Array, "n H W c"]:
        """m F x, complex."""
        k_space = jnp.fft.fft2(x, axes=(1, 2), norm="ortho")
        return Mask(self.mask).forward(k_space)


@pytree
@dataclasses.dataclass(frozen=True)
class Convolution(Operator):
    """Blur at the image's own size: y = k * x, with a kernel that may be sought by its gradient.

        y[i, j] = sum_{a, b} k[a, b] x[i - a + K // 2, j - b + K // 2]

    Iterations start from y itself.

    Attributes:
        kernel: (K, L) for all channels or (c, K, L), one for each, real or complex. For kernels of
            a positive sum s, |A| is s on periodic images, and about that on others.
        border: how the image goes on beyond its edge, a mode of `jnp.pad`: "wrap" (periodic),
            "symmetric", "reflect", "edge" or "constant" (zeros); static.

    Raises:
        ValueError: on use, a kernel of another shape.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> shift = isr.Convolution(jnp.zeros((3, 3)).at[1, 2].set(1.0))
        >>> print(shift.forward(jnp.arange(4.0).reshape(1, 1, 4, 1)).ravel())
        [3. 0. 1. 2.]
    """

    kernel: Inexact[ArrayLike, "*c K L"]
    border: str = dataclasses.field(default="wrap", kw_only=True, metadata={"static": True})

    def forward(self, x: Image) -> Image:
        """k * x."""
        kernel = depthwise.kernels(jnp.asarray(self.kernel), x.shape[3])
        kind = jnp.result_type(x.dtype, jnp.complex64) if jnp.iscomplexobj(kernel) else x.dtype
        # What is behind a pixel pads before it, as the kernel is turned about for a correlation.
        pads = [((size - 1) // 2, size // 2) for size in kernel.shape[-2:]]
        x = jnp.pad(x.astype(kind), ((0, 0), *pads, (0, 0)), mode=self.border)
        return depthwise.correlate_each(x, kernel[:, ::-1, ::-1])

    def initial(self, y: Image) -> Image:
        """y."""
        return jnp.asarray(y)
