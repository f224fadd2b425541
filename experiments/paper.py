"""The recipe of the paper's code, for any scale.

    isrrescnet train experiments/paper.py --scale 4 --data DIR --workdir DIR --validation DIR

L1 loss and Adam with AMSGrad from 3e-3 in steps of 0.1, truncated backpropagation with
k1 = k2 = 5 over the 10 iterations and half the loss at the intermediate point, batches of 32.
"""

from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig


def config(scale: int = 4) -> TrainConfig:
    """For this scale; the patches have the next multiple of it below 128 pixels."""
    return TrainConfig(
        model=ModelConfig(scale=scale),
        data=DataConfig(scale=scale, patch=128 // scale * scale, batch=32),
        steps=300_000,
        loss="l1",
        backward="truncated",
        k1=5,
        k2=5,
        intermediate_weight=0.5,
        optimizer="amsgrad",
        learning_rate=3e-3,
        schedule="stepped",
        milestones=(100_000, 200_000),
        milestone_factor=0.1,
        warmup_steps=1_000,
        clip_norm=100.0,
        ema_decay=0.999,
    )
