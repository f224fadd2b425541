"""The gradient of the reference implementation, with its error, from ours.

Every iteration of the reference begins by subtracting the means of the kernels in place. Values do
not change, because weight normalisation computes the kernels anew, but autograd still holds the
kernels that the iteration before computed last: its backward pass goes through the encoder and the
last feedback step with the means missing. Not so in the last iteration, and not in the decoder.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from isrrescnet_jax.prior.network import (
    BorderConv,
    Compress,
    LearnedPrior,
    ResidualNetwork,
    conv3x3_reflect,
    project,
)
from isrrescnet_jax.prior.prelu import prelu


def _centred_input_gradient(next_call, args, kwargs, context):
    """Intercept a convolution: its value, but the input's gradient through a zero-mean kernel."""
    module = context.module
    if not isinstance(module, BorderConv | Compress) or context.method_name != "__call__":
        return next_call(*args, **kwargs)
    x = args[0]
    kernel = lax.stop_gradient(module.get_variable("params", "kernel"))
    kernel = kernel - kernel.mean()
    if isinstance(module, Compress):
        linear = prelu(jnp.concatenate([x, x], axis=-1), args[1]) @ kernel[0, 0]
    elif module.size == 5:
        pad = ((0, 0), (2, 2), (2, 2), (0, 0))
        layout = ("NHWC", "HWIO", "NHWC")
        linear = lax.conv_general_dilated(
            jnp.pad(x, pad, mode="reflect"), kernel, (1, 1), "VALID", dimension_numbers=layout
        )
    else:
        linear = conv3x3_reflect(x, kernel)
    # What is added is exactly zero. Without the brackets float32 rounds the value itself, which put
    # the gradient of gray_x2_bicubic off by 1.6e-3 instead of 1.5e-6 (from float64).
    return next_call(*map(lax.stop_gradient, args)) + (linear - lax.stop_gradient(linear))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OverwrittenPrior:
    """`LearnedPrior` with the reference's gradient in all iterations but the last."""

    prior: LearnedPrior

    def __call__(self, z, sigma, alpha):
        config = self.prior.config
        network = ResidualNetwork(config, precision=self.prior.precision)

        def apply(method, x, centred):
            variables = {"params": self.prior.kernels}
            if not centred:
                return network.apply(variables, x, method=method)
            with nn.intercept_methods(_centred_input_gradient):
                return network.apply(variables, x, method=method)

        h = apply(lambda m, z: m.encoder(z), z, True)
        steps = config.feedback_steps - 1
        h, _ = lax.scan(lambda h, _: (apply("feedback", h, False), None), h, length=steps)
        h = apply("feedback", h, True)
        return project(apply(lambda m, h: m.decoder(h), h, False), sigma, alpha)


class ReferenceAutograd:
    """A way to go `backward`: plain reverse mode through what PyTorch's autograd really held."""

    def run(self, step, context, carry, xs):
        iteration = step.iteration(context)
        held = dataclasses.replace(iteration, prior=OverwrittenPrior(iteration.prior))

        def overwritten(state, schedule):
            new = held.step(state, *schedule)
            return new, (new.image if step.trace else None, None)

        first, last = jax.tree.map(lambda a: a[:-1], xs), jax.tree.map(lambda a: a[-1], xs)
        carry, outputs = lax.scan(overwritten, carry, first)
        carry, output = step(context, carry, last)
        append = lambda a, b: jnp.concatenate([a, b[None]])  # noqa: E731
        return carry, jax.tree.map(append, outputs, output)
