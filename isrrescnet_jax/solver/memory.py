"""How much memory there is, and what fits into it."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ..config import ModelConfig
from ..sizes import host_memory

Choice = TypeVar("Choice")

# Float32 images of the canvas's size that an iteration needs: x_k, x_(k-1), z, r, v, the gradient
# and what the operator makes on the way.
IMAGES = 8


def footprint(
    config: ModelConfig, window: tuple[int, int], dtype: Any = None, pixels: int = 0
) -> int:
    """Bytes of device memory for the network in a window of a canvas.

    Five arrays of features, in their type: two and a half are what the compiler plans on a CPU,
    where most is done in strips. For the rest of a program, `IMAGES` images of `pixels` pixels.
    """
    features = 2 if jnp.dtype(dtype or jnp.float32) == jnp.bfloat16 else 4
    each = 5 * features * config.features + 8 * (config.channels + config.noise_input)
    return window[0] * window[1] * each + 4 * IMAGES * config.channels * pixels


def free_memory(device: jax.Device) -> int | None:  # pyright: ignore[reportInvalidTypeForm]
    """Bytes that are free: of the device, or of the host that it is a part of; None if unknown."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return host_memory()


def first_that_fits(needs: Mapping[Choice, int], memory: int | None) -> Choice:
    """The first key whose bytes fit into memory.

    Raises:
        ValueError: none does.
    """
    for choice, size in needs.items():
        if memory is None or size <= memory:
            return choice
    raise ValueError(
        f"{(memory or 0) / 2**20:.0f} MiB of memory are not enough: this image takes at least "
        f"{min(needs.values()) / 2**20:.0f}"
    )
