"""A small benchmark to measure a model on."""

from pathlib import Path
from typing import Any

import numpy as np
from conftest import photo
from training_images import save

from isrrescnet_jax.evaluation import evaluate
from isrrescnet_jax.evaluation.degrade import degrade


def nearest(lr: np.ndarray) -> np.ndarray:
    """A model: every pixel twice, a little too bright, so never quite right."""
    assert lr.dtype == np.float32 and lr.shape[2] == 3
    return lr.repeat(2, 0).repeat(2, 1) + 0.4


def three_photos(folder: Path) -> Path:
    """Three photos of different sizes, one odd, one grey; and their LR images."""
    a, b, c = photo(24, 28, seed=1)[0], photo(31, 26, seed=2)[0], photo(26, 26, seed=3)[0][..., 0]
    for name, image in {"a": a, "b": b, "c": c}.items():
        save(image, folder / f"Set5/HR/{name}.png")
        save(degrade(image, 2), folder / f"Set5/LR/x2/{name}x2.png")
    return folder / "Set5"


def run(folder: Path, lr: Path | str | None = None, model: Any = nearest, **options: Any):
    """What `evaluate` finds in the folder of `three_photos`."""
    lr = None if lr is None else folder / lr
    return evaluate.evaluate(evaluate.Benchmark(folder / "HR", lr, 2), model, **options)
