"""Images to train on whose every patch can be told, and batches of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from isrrescnet_jax.data import DataConfig, train_batches


def blocks(lr: np.ndarray, scale: int) -> np.ndarray:
    """The HR image whose every scale x scale block is one LR pixel."""
    return lr.repeat(scale, axis=0).repeat(scale, axis=1)


def labelled(label: int, h: int, w: int) -> np.ndarray:
    """An image that says in every pixel who it is and where: (label, row, column)."""
    rows, columns = np.mgrid[:h, :w]
    return np.stack([np.full((h, w), label), rows, columns], axis=-1).astype(np.uint8)


def save(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def take(batches, count: int) -> list[dict[str, np.ndarray]]:
    return [next(batches) for _ in range(count)]


def same(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x[key], y[key]) for x, y in zip(a, b, strict=True) for key in ("lr", "hr")
    )


def stream(config: DataConfig, count: int, **process) -> list[dict[str, np.ndarray]]:
    batches = train_batches(config, **process)
    try:
        return take(batches, count)
    finally:
        batches.close()
