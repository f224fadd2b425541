"""The default recipe, for any scale: exact physics, Muon, one iteration.

    isrrescnet train experiments/exact.py --scale 4 --data DIR --workdir DIR --validation DIR

Starts from the shipped weights; --init None starts from fresh ones. Why each of these, with
figures: experiments/README.md. The network is the official one; its projection does nothing in
weights that were trained with one iteration (alpha = 20), so alpha and w stay as they are. For all
scales in one: --scales 2 3 4 --data.patch 60.
"""

from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig


def config(scale: int = 4) -> TrainConfig:
    """For this scale; the patches have the next multiple of it from 64 pixels."""
    return TrainConfig(
        model=ModelConfig(scale=scale, iterations=1, physics="exact"),
        data=DataConfig(
            scale=scale, patch=-(-64 // scale) * scale, batch=8, repeats=64, skip_bad=True
        ),
        init=f"x{scale}",
        steps=2_000,
        backward="full",
        precision="highest",
        train_schedule=False,
        optimizer="muon",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=30,
        clip_norm=20.0,
        ema_decay=0.995,
        log_every=20,
        validate_every=100,
        checkpoint_every=50,
    )
