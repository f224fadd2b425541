"""Problems that compile in no time, in double precision: a smooth prior and a blur."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import photo

import isrrescnet_jax as isr


def wavy(parameters, z, sigma, alpha):
    """Neither linear nor convex, with parameters; sigma and alpha matter."""
    gain, bias = parameters
    return jnp.exp(alpha) * sigma[:, None, None, None] * (gain * jnp.sin(z / 9) + bias)


def pull(weight, z, sigma, alpha):
    """Towards grey: with it the iteration contracts."""
    return weight * (z - 128) * sigma[:, None, None, None] + 0 * alpha


def inputs(iterations=3, seed=0):
    """Everything that a reconstruction depends on, as one pytree of doubles."""
    kernel = np.random.default_rng(seed).uniform(0.5, 1, (3, 3))
    return {
        "lr": jnp.asarray(60 + photo(5, 4, n=2, seed=seed) / 3),
        "kernel": jnp.asarray(kernel / kernel.sum()),
        "prior": (jnp.full(3, 0.4), jnp.full(3, 0.1)),
        "sigma": jnp.asarray([2.0, 3.0]),
        "alpha": jnp.linspace(0.0, -0.3, iterations),
        "w": jnp.linspace(-1.0, -0.5, iterations),
        "step": jnp.asarray(1.5),
    }


def solve(parts, backward, function=wavy, **options):
    """`unroll` of the inputs."""
    return isr.unroll(
        parts["lr"],
        isr.Blur(2, parts["kernel"], reference=False),
        jax.tree_util.Partial(function, parts["prior"]),
        backward=backward,
        **{name: parts[name] for name in ("alpha", "w", "sigma", "step")},
        **options,
    )


def close(a, b, tolerance=1e-9):
    """Two pytrees agree, each array by its norm."""

    def check(path, a, b):
        error = np.linalg.norm(np.ravel(a - b))
        assert error <= tolerance * np.linalg.norm(np.ravel(b)) + 1e-12, (path, error)

    jax.tree_util.tree_map_with_path(check, a, b)
