"""The default recipe: exact physics, Muon, one iteration.

    isrrescnet train experiments/exact.py --data DIR --workdir DIR --validation DIR [--init x4]

Why each of these, with figures: experiments/README.md. The network is the official one; its
projection does nothing in weights that were trained with one iteration (alpha = 20), so alpha and w
stay as they are. For another scale: --model.scale 3 --data.scale 3 --data.patch 66 --init x3; for
all three in one: --scales 2 3 4 --data.patch 60.
"""

from isrrescnet_jax import ModelConfig
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig

config = TrainConfig(
    model=ModelConfig(scale=4, iterations=1, physics="exact"),
    data=DataConfig(scale=4, patch=64, batch=8, repeats=64, skip_bad=True),
    init="x4",
    steps=2_000,
    backward="full",
    precision="highest",
    train_schedule=False,
    optimizer="muon",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=30,
    clip_norm=20.0,
    ema_decay=0.995,
    log_every=20,
    validate_every=100,
    checkpoint_every=50,
)
