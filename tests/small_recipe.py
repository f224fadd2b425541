"""A recipe that trains in seconds."""

RECIPE = """
from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

config = TrainConfig(
    model=ModelConfig(features=8, depth=1, feedback_steps=1, iterations=2, scale=2),
    data=DataConfig(scale=2, patch=32, batch=4, repeats=8),
    steps=12,
    optimizer="amsgrad",
    learning_rate=3e-3,
    schedule="stepped",
    warmup_steps=2,
    log_every=1,
    validate_every=5,
    checkpoint_every=2,
    keep=2,
)
"""
