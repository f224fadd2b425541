"""Training in two minutes on a laptop: a small network that visibly learns.

isrrescnet train experiments/smoke.py --data DIR --workdir DIR [--validation DIR]
"""

from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

config = TrainConfig(
    model=ModelConfig(features=16, depth=2, feedback_steps=2, iterations=1, scale=2),
    data=DataConfig(scale=2, patch=48, batch=8),
    backward="full",
    steps=500,
    optimizer="amsgrad",
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=20,
    ema_decay=0.99,
    log_every=20,
    validate_every=250,
    checkpoint_every=100,
)
