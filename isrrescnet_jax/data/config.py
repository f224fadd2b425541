"""What a stream of training batches is made of."""

import dataclasses

from ..config import SCALES
from ..evaluation.degrade import Border


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where training images come from, and how they become batches.

    Attributes:
        hr: folder of high-resolution images, searched with its subfolders; folder or address
            ("gs://BUCKET/FOLDER", "s3://BUCKET/FOLDER", ...) of the shards of `isrrescnet pack`; or
            "tfds:NAME/CONFIG" for a TFDS data set with the features `hr` and `lr`, such as
            "tfds:div2k/bicubic_x4".
        lr: folder of the low-resolution images that belong to them; by default they are made by
            bicubic reduction, once, and kept in `cache`.
        data_dir: folder of TFDS data sets; by default TFDS's own (~/tensorflow_datasets).
        split: split of a TFDS data set, such as "train" or "train[:90%]".
        scale: factor between the two resolutions; 1 for images alone, from which a recipe makes
            what it trains on (`Recipe.measure`).
        patch: side of the square patches in high-resolution pixels, a multiple of `scale`.
        batch: patches in a batch, over all devices and processes.
        repeats: patches taken from each image in an epoch. The last batch of an epoch is dropped
            if it is not full.
        augment: flip and transpose patches at random (8 variants).
        seed: of order, places and flips.
        border: how `degrade` continues images beyond their borders.
        skip_bad: leave out images that are damaged, too small or without a fitting partner, with a
            warning that names them, instead of stopping before the first step.
        memory: GiB of decoded images that are kept in memory (DIV2K needs 7). Those beyond it are
            decoded for every patch. Shards in use, of about 16 MB, come on top of it.
        cache: folder for low-resolution images that were made here; by default `lr` in
            $ISRRESCNET_CACHE (nowhere if that is empty), or ~/.cache/isrrescnet-jax/lr. May be
            deleted at any time.
        workers: processes that prepare batches; 0 uses threads, which is faster as long as the
            decoded images fit in `memory`. A run must be resumed with the number it began with.
    """

    hr: str = ""
    lr: str | None = None
    data_dir: str | None = None
    split: str = "train"
    scale: int = 4
    patch: int = 128
    batch: int = 16
    repeats: int = 16
    augment: bool = True
    seed: int = 0
    border: Border = "symmetric"
    skip_bad: bool = False
    memory: float = 8.0
    cache: str | None = None
    workers: int = 0

    def __post_init__(self):
        if self.scale not in (1, *SCALES):
            raise ValueError(f"scale must be 1 or one of {SCALES}, not {self.scale}")
        if self.patch < 1 or self.patch % self.scale:
            raise ValueError(f"patch must be a multiple of the scale {self.scale}: {self.patch}")
        for name in ("batch", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("memory", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative: {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, not {self.seed}")
