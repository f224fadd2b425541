"""The shape of a model: everything about it that is not a number to be learned."""

import dataclasses
import numbers
from typing import Literal

SCALES = (2, 3, 4)
PHYSICS = ("reference", "exact")
MOST_STEPS = 100  # feedback steps in an iteration


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Static configuration of one ISRResCNet; hashable, so `jax.jit` can specialise on it.

    The defaults are the official network (Umer et al., 2020, section III).

    >>> import isrrescnet_jax as isr
    >>> isr.ModelConfig(scale=4).halo
    44
    >>> isr.ModelConfig(channels=2)
    Traceback (most recent call last):
    ValueError: channels must be 1 or 3, not 2

    Attributes:
        channels: image channels, 3 (RGB) or 1 (grey).
        features: feature channels of the learned prior.
        depth: residual blocks in one feedback step.
        feedback_steps: how often the blocks run, with the same weights, in one iteration.
        iterations: proximal-gradient iterations K, each with its own (alpha_k, w_k).
        scale: the factor the weights were trained for; None where it is not known. The network
            itself works at high resolution and does not depend on it.
        physics: the operators that the weights were trained with: "reference", those of the
            official implementation with their defects, or "exact" (see `operators`).
        step: length of the gradient step on the data term, z = v - step * gradient(v, y). 1 in the
            reference. Without a prior up to 2 / |D^T D| converges, for `Bicubic` about 2 scale^2.
        noise_input: the encoder sees the noise level as well, in grey levels, as one more channel
            of the same value everywhere (Zhang, Zuo & Zhang, "FFDNet", IEEE TIP 2018). The official
            network knows it only by the radius of the projection.

    Raises:
        ValueError: a count below 1, more than 100 feedback steps, a step that is not positive, or
            a value of no name or of another type.
    """

    channels: int = 3
    features: int = 64
    depth: int = 5
    feedback_steps: int = 4
    iterations: int = 10
    scale: int | None = None
    physics: Literal["reference", "exact"] = "reference"
    step: float = 1.0
    noise_input: bool = False

    def __post_init__(self):
        for name in ("channels", "features", "depth", "feedback_steps", "iterations", "scale"):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not (whole or (name == "scale" and value is None)):
                raise ValueError(f"{name} must be a whole number, not {value!r}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        for name in ("features", "depth", "feedback_steps", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.feedback_steps > MOST_STEPS:  # each is compiled
            raise ValueError(f"feedback_steps must be at most {MOST_STEPS}")
        if self.scale is not None and self.scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES} or None, not {self.scale}")
        if self.physics not in PHYSICS:
            raise ValueError(f"physics must be {' or '.join(PHYSICS)}, not {self.physics!r}")
        number = isinstance(self.step, numbers.Real) and not isinstance(self.step, bool)
        if not (number and 1e-30 <= self.step <= 1e30):  # in float32, with room for products
            raise ValueError(f"step must be a positive number, not {str(self.step)[:40]}")
        object.__setattr__(self, "step", float(self.step))
        if not isinstance(self.noise_input, bool):
            raise ValueError(f"noise_input must be true or false, not {self.noise_input!r}")

    @property
    def halo(self) -> int:
        """Pixels around an output pixel that one run of the learned prior sees: 44 by default."""
        return 2 + 2 * self.depth * self.feedback_steps + 2
