"""Magnetic resonance images from a quarter of their frequencies; complex from end to end.

    isrrescnet train experiments/recipes/mri.py --workdir W

Phantoms are drawn as they are needed: ellipses with a smooth phase. A quarter of the columns of
k-space is measured, the low frequencies among them, with noise. Zero filling is where the
iterations start, and what they are compared with.

    restore = isr.load_weights("W/weights.safetensors", recipe="experiments/recipes/mri.py")
    image = restore({"y": k_space, "mask": mask})
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import isrrescnet_jax as isr
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

SIDE, ITERATIONS, NOISE = 64, 6, 2.0

config = TrainConfig(
    data=DataConfig(scale=1, batch=8, repeats=1),
    model=isr.ModelConfig(),
    steps=600,
    optimizer="muon",
    learning_rate=5e-3,
    warmup_steps=20,
    ema_decay=0.99,
    log_every=50,
    validate_every=200,
    checkpoint_every=100,
)


class Phantoms:
    """Random phantoms (SIDE, SIDE, 1), complex, of magnitudes up to 255."""

    def __init__(self, seed: int, count: int):
        self.seed, self.count = seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, index))
        y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
        image = np.zeros((SIDE, SIDE))
        for i in range(rng.integers(5, 14)):
            middle = rng.uniform(-0.6, 0.6, 2) if i else np.zeros(2)
            axes = rng.uniform(0.06, 0.45, 2) if i else rng.uniform(0.6, 0.9, 2)
            angle = rng.uniform(0, np.pi)
            u = np.cos(angle) * (x - middle[0]) + np.sin(angle) * (y - middle[1])
            v = np.cos(angle) * (y - middle[1]) - np.sin(angle) * (x - middle[0])
            inside = (u / axes[0]) ** 2 + (v / axes[1]) ** 2
            edge = np.clip((1 - inside) * SIDE * axes.min() / 4 + 0.5, 0, 1)  # a pixel wide
            image += edge * (rng.uniform(-60, 80) if i else 120)
        a, b, c, d = rng.uniform(-1.5, 1.5, 4)
        phase = a + b * x + c * y + d * x * y
        magnitude = np.clip(image, 0, 255)
        return (magnitude * np.exp(1j * phase))[..., None].astype(np.complex64)


examples, held_out = Phantoms(0, 100_000), Phantoms(1, 40)


def measure(image, rng):
    """A quarter of the columns: the middle twelfth, the others at random; with noise."""
    frequencies = np.abs(np.fft.fftfreq(SIDE))
    always = frequencies < 1 / 24
    others = np.flatnonzero(~always)
    likely = 1 / (0.1 + frequencies[others]) ** 2
    more = SIDE // 4 - always.sum()
    mask = always.astype(np.float32)
    mask[rng.choice(others, more, replace=False, p=likely / likely.sum())] = 1
    mask = mask[None, :, None]
    noise = rng.normal(size=(2, *image.shape)) * NOISE / np.sqrt(2)
    k_space = np.fft.fft2(image, axes=(0, 1), norm="ortho") + noise[0] + 1j * noise[1]
    return {"hr": image, "y": (mask * k_space).astype(np.complex64), "mask": mask}


class Denoiser(nn.Module):
    """Works on real and imaginary parts as two channels, and takes nothing away at first."""

    @nn.compact
    def __call__(self, z):
        h = jnp.concatenate([z.real, z.imag], -1) / 255
        for _ in range(4):
            h = nn.relu(isr.Conv(features=32)(h))
        h = 255 * isr.Conv(features=2, kernel_init=nn.initializers.zeros)(h)
        return jax.lax.complex(h[..., :1], h[..., 1:])


def init(key):
    network = Denoiser().init(key, jnp.zeros((1, 16, 16, 1), jnp.complex64))["params"]
    schedule = {"alpha": jnp.zeros(ITERATIONS), "w": jnp.full(ITERATIONS, -1.0)}
    return {"denoiser": network, "step": jnp.ones(())} | schedule


def residual(params, z, sigma, alpha):
    return jnp.exp(alpha) * Denoiser().apply({"params": params}, z)


def solve(params, batch):
    return isr.unroll(
        jnp.asarray(batch["y"], jnp.complex64),
        isr.Fourier(batch["mask"]),
        jax.tree_util.Partial(residual, params["denoiser"]),
        alpha=params["alpha"],
        w=params["w"],
        step=params["step"],
        sigma=jnp.full(1, NOISE),
        constraint=isr.Unconstrained(),
        backward=isr.Checkpointed(),
    ).image


def loss(images, targets):
    """Mean |x - target|, of complex numbers, smooth where they meet."""
    return jnp.mean(jnp.sqrt(jnp.abs(images - targets) ** 2 + 0.1), (1, 2, 3))
