"""Inpainting: a fifth of the pixels is left, the others are to be guessed.

isrrescnet train experiments/recipes/inpaint.py --data train/ --validation kodak/ --workdir W

restore = isr.load_weights("W/weights.safetensors", recipe="experiments/recipes/inpaint.py")
image = restore({"y": y, "seen": seen})
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import isrrescnet_jax as isr
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

LEFT, ITERATIONS = 0.2, 5

config = TrainConfig(
    data=DataConfig(scale=1, patch=64, batch=8),
    model=isr.ModelConfig(),
    steps=2000,
    optimizer="muon",
    learning_rate=5e-3,
    warmup_steps=20,
    ema_decay=0.99,
    log_every=50,
    validate_every=200,
    checkpoint_every=100,
)


def measure(hr, rng):
    """Every pixel is seen, in all its colours, with the same likelihood."""
    hr = hr.astype(np.float32)
    seen = (rng.uniform(size=(*hr.shape[:2], 1)) < LEFT).astype(np.float32)
    return {"hr": hr, "y": seen * hr, "seen": seen}


def smooth(y, seen):
    """Where to start: means of the pixels that are seen near by, weighted by distance."""

    def blurred(x, width):
        rows, columns = (jnp.fft.fftfreq(side) for side in x.shape[1:3])
        squares = rows[:, None, None] ** 2 + columns[None, :, None] ** 2
        transfer = jnp.exp(-2 * (jnp.pi * width) ** 2 * squares)
        return jnp.fft.ifft2(transfer * jnp.fft.fft2(x, axes=(1, 2)), axes=(1, 2)).real

    # Sharp where many are seen; where none are, the wider mean counts.
    weight = sum(s * blurred(seen, width) for s, width in ((1, 1.0), (1e-2, 3.0), (1e-4, 9.0)))
    total = sum(s * blurred(y, width) for s, width in ((1, 1.0), (1e-2, 3.0), (1e-4, 9.0)))
    return total / (weight + 1e-6)


class Network(nn.Module):
    """What is wrong in a picture of which some pixels are right."""

    @nn.compact
    def __call__(self, z, seen):
        h = jnp.concatenate([z / 255 - 0.5, seen], -1)
        for _ in range(5):
            h = nn.relu(isr.Conv(features=32)(h))
        return 255 * isr.Conv(features=3, kernel_init=nn.initializers.zeros)(h)


def init(key):
    network = Network().init(key, jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 16, 16, 1)))
    schedule = {"alpha": jnp.zeros(ITERATIONS), "w": jnp.full(ITERATIONS, -1.0)}
    return {"network": network["params"]} | schedule


def residual(params, seen, z, sigma, alpha):
    return jnp.exp(alpha) * Network().apply({"params": params}, z, seen)


def solve(params, batch):
    y, seen = (jnp.asarray(batch[name], jnp.float32) for name in ("y", "seen"))
    image = isr.unroll(
        y,
        isr.Mask(seen),
        jax.tree_util.Partial(residual, params["network"], seen),
        alpha=params["alpha"],
        w=params["w"],
        sigma=jnp.ones(1),
        start=smooth(y, seen),
        backward=isr.Checkpointed(),
    ).image
    return seen * y + (1 - seen) * image


def loss(images, targets):
    """Root of the mean squared error of each image, whose logarithm is its PSNR."""
    return jnp.sqrt(jnp.mean((images - targets) ** 2, (1, 2, 3)) + 1e-6)
