"""Training data: folders, shards and TFDS in, batches of aligned random patches out."""

from .batches import Measure, Streams, train_batches
from .config import DataConfig
from .folders import lr_cache_folder
from .pairs import Pairs
from .patches import random_patch
from .sources import check, folder_inventory, inventory, source
from .tfds import prepare_tfds

__all__ = [
    "DataConfig",
    "Measure",
    "Pairs",
    "Streams",
    "check",
    "folder_inventory",
    "inventory",
    "lr_cache_folder",
    "prepare_tfds",
    "random_patch",
    "source",
    "train_batches",
]
