"""What a user of JAX alone writes for `side_by_side`: loops, each with its way back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import gmres


def conv(x, kernel, padding="SAME", groups=1):
    """Correlation of images (n, h, w, c)."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=layout, feature_group_count=groups
    )


def blur(kernel, x):
    """Every channel of a periodic image, convolved."""
    (rows, columns), channels = kernel.shape, x.shape[3]
    pads = ((0, 0), ((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2), (0, 0))
    each = jnp.tile(kernel[::-1, ::-1, None, None], channels)
    return conv(jnp.pad(x, pads, mode="wrap"), each, "VALID", channels)


def network(layers, z):
    """What the denoiser takes away."""
    for kernel, bias in layers[:-1]:
        z = jax.nn.relu(conv(z, kernel) + bias)
    kernel, bias = layers[-1]
    return conv(z, kernel) + bias


def iterate(kernel, parameters, x, y):
    """A gradient step, and the denoiser."""
    forward, transposed = jax.vjp(lambda x: blur(kernel, x), x)
    z = x - parameters["step"] * transposed(forward - y)[0]
    return z - network(parameters["network"], z)


# --- K iterations ---------------------------------------------------------------------------------


def gradient(kernel: Any, iterations: int) -> Callable[..., Any]:
    """(parameters, y, target) -> gradient of the mean squared error, by a Python loop."""

    def loss(parameters, y, target):
        x = y
        for _ in range(iterations):
            x = iterate(kernel, parameters, x, y)
        return jnp.mean((x - target) ** 2)

    return jax.grad(loss)


def gradient_checkpointed(kernel: Any, iterations: int) -> Callable[..., Any]:
    """The same, with every iteration computed again on the way back."""
    step = jax.checkpoint(iterate)

    def loss(parameters, y, target):
        x = y
        for _ in range(iterations):
            x = step(kernel, parameters, x, y)
        return jnp.mean((x - target) ** 2)

    return jax.grad(loss)


def gradient_scanned(kernel: Any, iterations: int) -> Callable[..., Any]:
    """The same, in a compiled loop."""

    @jax.checkpoint
    def step(x, parameters, y):
        return iterate(kernel, parameters, x, y)

    def loss(parameters, y, target):
        x, _ = lax.scan(lambda x, _: (step(x, parameters, y), None), y, length=iterations)
        return jnp.mean((x - target) ** 2)

    return jax.grad(loss)


# --- a fixed point --------------------------------------------------------------------------------


def fixed_point(kernel, parameters, y, tolerance, steps):
    """Iterations until the relative change is small."""

    def moves(state):
        x, before, count = state
        change = jnp.linalg.norm(x - before) / jnp.linalg.norm(x)
        return (change > tolerance) & (count < steps)

    def step(state):
        x, _, count = state
        return iterate(kernel, parameters, x, y), x, count + 1

    return lax.while_loop(moves, step, step((y, y, 0)))[0]


def gradient_implicit(kernel: Any, tolerance: float, steps: int) -> Callable[..., Any]:
    """By the implicit function theorem."""

    @jax.custom_vjp
    def solve(parameters, y):
        return fixed_point(kernel, parameters, y, tolerance, steps)

    def forward(parameters, y):
        x = solve(parameters, y)
        return x, (parameters, x, y)

    def backward(kept, cotangent):
        parameters, x, y = kept
        _, by_image = jax.vjp(lambda x: iterate(kernel, parameters, x, y), x)
        _, by_parameters = jax.vjp(lambda p: iterate(kernel, p, x, y), parameters)
        u, _ = gmres(lambda u: u - by_image(u)[0], cotangent, tol=tolerance / 2)
        return *by_parameters(u), jnp.zeros_like(y)

    solve.defvjp(forward, backward)

    def loss(parameters, y, target):
        return jnp.mean((solve(parameters, y) - target) ** 2)

    return jax.grad(loss)


def gradient_jacobian_free(kernel: Any, tolerance: float, steps: int) -> Callable[..., Any]:
    """Through the last iteration alone."""

    def loss(parameters, y, target):
        frozen = lax.stop_gradient(parameters)
        x = fixed_point(kernel, frozen, y, tolerance, steps)
        x = iterate(kernel, parameters, x, y)
        return jnp.mean((x - target) ** 2)

    return jax.grad(loss)
