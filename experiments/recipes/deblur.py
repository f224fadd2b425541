"""Deblurring where nobody says how strong the blur is.

    isrrescnet train experiments/recipes/deblur.py --data train/ --validation kodak/ --workdir W

Photographs are blurred by a Gaussian of a standard deviation from 0.8 to 2.4 pixels and get noise
of 2 grey levels. A small network tells the strength from the edges, the iterations remove that blur
with another one as their prior, and the gradient of one loss goes through both.

    restore = isr.load_weights("W/weights.safetensors", recipe="experiments/recipes/deblur.py")
    image = restore({"y": y})
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

import isrrescnet_jax as isr
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig, psnr

STRENGTHS, NOISE, ITERATIONS = (0.8, 2.4), 2.0, 5

config = TrainConfig(
    data=DataConfig(scale=1, patch=64, batch=8),
    model=isr.ModelConfig(),
    steps=800,
    optimizer="muon",
    learning_rate=5e-3,
    warmup_steps=20,
    ema_decay=0.99,
    log_every=50,
    validate_every=200,
    checkpoint_every=100,
)


def measure(hr, rng):
    """Blurred, with periodic borders, and noisy."""
    strength = rng.uniform(*STRENGTHS)
    hr = hr.astype(np.float32)
    y = ndimage.gaussian_filter(hr, (strength, strength, 0), mode="wrap")
    y += NOISE * rng.normal(size=hr.shape).astype(np.float32)
    return {"hr": hr, "y": y, "strength": np.float32(strength)}


@isr.pytree
@dataclasses.dataclass(frozen=True)
class GaussianBlur(isr.Operator):
    """Its transfer function is exp(-2 pi^2 strength^2 |f|^2); borders are periodic."""

    strength: Any  # (n,), in pixels

    def forward(self, x):
        rows, columns = (jnp.fft.fftfreq(side) for side in x.shape[1:3])
        squares = rows[:, None, None] ** 2 + columns[None, : x.shape[2], None] ** 2
        strength = jnp.asarray(self.strength)[:, None, None, None]
        transfer = jnp.exp(-2 * (jnp.pi * strength) ** 2 * squares)
        return jnp.fft.ifft2(transfer * jnp.fft.fft2(x, axes=(1, 2)), axes=(1, 2)).real

    def initial(self, y):
        return y


class Strength(nn.Module):
    """From the places that tell most: edges, over which means are taken."""

    @nn.compact
    def __call__(self, y):
        h = y / 255 - 0.5
        for size in (5, 3, 3):
            h = nn.relu(isr.Conv(features=24, kernel_size=size)(h))
        told = isr.Conv(features=8, kernel_size=1, name="told")(h)
        places = nn.softmax(isr.Conv(features=8, kernel_size=1, name="places")(h), axis=(1, 2))
        low, high = STRENGTHS
        means = jnp.sum(places * told, (1, 2))
        return low + (high - low) * nn.sigmoid(nn.Dense(1, name="out")(means)[:, 0])


class Denoiser(nn.Module):
    """What looks like noise in a picture, and nothing at first."""

    @nn.compact
    def __call__(self, z):
        h = z / 255 - 0.5
        for _ in range(4):
            h = nn.relu(isr.Conv(features=32)(h))
        return 255 * isr.Conv(features=3, kernel_init=nn.initializers.zeros)(h)


def init(key):
    keys, image = jax.random.split(key), jnp.zeros((1, 16, 16, 3))
    return {
        "strength": Strength().init(keys[0], image)["params"],
        "denoiser": Denoiser().init(keys[1], image)["params"],
        "alpha": jnp.zeros(ITERATIONS),  # log of how much of the residual is taken
        "w": jnp.full(ITERATIONS, -1.0),  # log momentum
        "step": jnp.ones(()),
    }


def residual(params, z, sigma, alpha):
    return jnp.exp(alpha) * Denoiser().apply({"params": params}, z)


def strength_of(params, y):
    return Strength().apply({"params": params["strength"]}, y)


def solve(params, batch):
    y = jnp.asarray(batch["y"], jnp.float32)
    return isr.unroll(
        y,
        GaussianBlur(strength_of(params, y)),
        jax.tree_util.Partial(residual, params["denoiser"]),
        alpha=params["alpha"],
        w=params["w"],
        step=params["step"],
        sigma=jnp.full(1, NOISE),
        backward=isr.Checkpointed(),
    ).image


def objective(params, batch):
    """L1 of the picture, and of the strength with the weight of ten grey levels to the pixel."""
    image = solve(params, batch)
    wrong = jnp.mean(jnp.abs(strength_of(params, batch["y"]) - batch["strength"]))
    metrics = {"psnr": jnp.mean(psnr(image, batch["hr"])), "wrong": wrong}
    return jnp.mean(jnp.abs(image - batch["hr"])) + 10 * wrong, metrics
