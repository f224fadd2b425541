"""A denoiser that is averaged by construction: how the prior of `ConvexRidge.shipped` is trained.

    isrrescnet train experiments/contractive.py --data train/ --validation kodak/ --workdir W

    x = argmin_x  STEP / 2 |x - y|^2 + g(x),    prox_g = I - N

Noise of a random level is added to patches, and the fixed point of the iterations is compared with
them, by the gradient of the fixed point. The shipped prior was trained so in four parts, which its
metadata name.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, UInt8

import isrrescnet_jax as isr
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.prior.ridge import STEP, ConvexRidge, init_ridge
from isrrescnet_jax.train import TrainConfig, learning_rate, psnr

LEVELS = 1.0, 30.0  # of the noise, in grey levels
MOMENTUM = float(np.log((1 - STEP**0.5) / (1 + STEP**0.5)))  # Nesterov's, of strong convexity STEP
ITERATIONS = 14
BACKWARD = isr.Implicit(isr.Neumann(10), steps=100, tolerance=1e-2, throw=False)

config = TrainConfig(
    model=isr.ModelConfig(),
    data=DataConfig(scale=1, patch=48, batch=4),
    steps=4000,
    learning_rate=1e-2,
    warmup_steps=20,
    ema_decay=0.99,
    log_every=50,
    validate_every=500,
    checkpoint_every=100,
)


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Adam; thresholds and groups, which are logarithms, faster than filters."""
    rates = {"filters": 0.3, "groups": 3.0, "levels": 2.0, "powers": 1.0}
    each: Any = {name: optax.scale(rate) for name, rate in rates.items()}
    return optax.chain(
        optax.scale_by_adam(b2=0.99),
        optax.partition(each, {name: name for name in rates}),
        optax.scale_by_learning_rate(learning_rate(config)),
    )


def init(key: Key[Array, ""]) -> dict[str, Array]:
    """Parameters of an untrained prior."""
    return init_ridge(key)


def measure(hr: UInt8[np.ndarray, "p p 3"], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A patch with noise."""
    clean = hr.astype(np.float32)
    sigma = np.float32(np.exp(rng.uniform(*np.log(LEVELS))))
    noise = rng.standard_normal(hr.shape, np.float32)
    return {"y": clean + sigma * noise, "hr": clean, "sigma": np.asarray(sigma)}


def solve(params: dict[str, Array], batch: dict[str, Array]) -> Float[Array, "n h w 3"]:
    """The images that the fixed point is, from a few accelerated iterations."""
    return isr.unroll(
        batch["y"],
        isr.Mask(jnp.ones(())),
        ConvexRidge.from_params(params),
        alpha=jnp.zeros(ITERATIONS),
        w=jnp.full(ITERATIONS, MOMENTUM),
        sigma=batch["sigma"],
        step=STEP,
        backward=BACKWARD,
        constraint=isr.Unconstrained(),  # so that no pixel's gradient is lost at its bound
    ).image


def objective(
    params: dict[str, Array], batch: dict[str, Array]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Mean squared error, with a weight that makes all levels count about alike; and the PSNR."""
    image = solve(params, batch)
    errors = jnp.mean(jnp.square(image - batch["hr"]), (1, 2, 3))
    return jnp.mean(errors / batch["sigma"] ** 1.3), {"psnr": jnp.mean(psnr(image, batch["hr"]))}
