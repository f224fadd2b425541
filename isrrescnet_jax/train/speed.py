"""How fast a run is, by what its device could do."""

from typing import Any

from ..config import ModelConfig

# FLOP per second of dense products in bfloat16, as their makers publish it (read November 2026),
# by the beginning of JAX's name for the device, longer names first.
PEAKS = {
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v4": 275e12,
}


def peak(device: Any) -> float | None:
    """FLOP per second of one device; None if it is not in `PEAKS`."""
    kinds = sorted(PEAKS, key=len, reverse=True)
    return next((PEAKS[k] for k in kinds if device.device_kind.startswith(k)), None)


def network_flops(config: ModelConfig) -> float:
    """FLOP for each high-resolution pixel and iteration, forward: about 3 million.

    Two for every product of the convolutions as the paper has them, whatever is really computed:
    encoder and decoder, and in each feedback step the 1x1 convolution of 2 f channels and the
    3x3 convolutions. A training step takes three times as many.
    """
    f, c = config.features, config.channels
    blocks = 2 * f * f + config.depth * 2 * 9 * f * f
    return 2.0 * (25 * (c + config.noise_input) * f + config.feedback_steps * blocks + 25 * f * c)
