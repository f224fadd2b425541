"""Ten iterations trained together, for any scale, on a GPU: the recipe of x2_k10, x3_k10, x4_k10.

    isrrescnet train experiments/ten.py --scale 4 --data DIR --workdir DIR --validation DIR

goes on with the shipped ones. From one iteration, as they were made, with the x4 of version 0.1
(git show c39654a:isrrescnet_jax/assets/x4.safetensors > one.safetensors), on reference physics too:

    isrrescnet train experiments/ten.py --scale 4 --data DIR --workdir runs/one --validation DIR \\
        --init one.safetensors --model.iterations 1 --steps 5000 --warmup-steps 100 \\
        --learning-rate 1e-3 --ema-decay 0.999
    python -m experiments.weights lengthen runs/one/weights.safetensors start.safetensors
    isrrescnet train experiments/ten.py --scale 4 --data DIR --workdir runs/ten --validation DIR \\
        --init start.safetensors
"""

from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig


def config(scale: int = 4) -> TrainConfig:
    """For this scale."""
    return TrainConfig(
        model=ModelConfig(scale=scale),
        data=DataConfig(scale=scale, patch=120, batch=10, repeats=64, skip_bad=True),
        init=f"x{scale}_k10",
        steps=1_000,
        backward="full",
        dtype="bfloat16",
        optimizer="adam",
        learning_rate=5e-4,
        schedule="cosine",
        warmup_steps=40,
        clip_norm=20.0,
        ema_decay=0.99,
        validate_every=200,
    )
