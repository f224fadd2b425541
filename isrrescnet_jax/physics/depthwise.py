"""One kernel for every channel."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Inexact


def kernels(kernel: Inexact[ArrayLike, "*c k l"], channels: int) -> Inexact[Array, "channels k l"]:
    """One for each channel.

    Raises:
        ValueError: neither one kernel nor as many as there are channels.
    """
    shape = jnp.shape(kernel)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != channels):
        raise ValueError(f"the kernel must be (k, l) or ({channels}, k, l), not {shape}")
    return jnp.broadcast_to(jnp.asarray(kernel), (channels, *shape[-2:]))


def correlate_each(
    x: Inexact[Array, "n h w c"], kernel: Inexact[Array, "c k l"], stride: int = 1
) -> Inexact[Array, "n H W c"]:
    """Correlation of every channel with its kernel, without padding, in the type of x."""
    return lax.conv_general_dilated(
        x,
        kernel.transpose(1, 2, 0)[:, :, None].astype(x.dtype),
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
        precision="highest",
    )
