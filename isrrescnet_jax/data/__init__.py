"""Training data: pairs of patches from folders, pairs of files or TFDS."""

from .pipeline import DataConfig, Streams

__all__ = ["DataConfig", "Streams"]
