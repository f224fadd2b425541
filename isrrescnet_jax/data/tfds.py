"""Pairs from TFDS, and folders made into a TFDS data set."""

import functools
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from .. import images
from ..config import SCALES
from ..evaluation.degrade import Border, degrade
from ..messages import one_line
from .config import DataConfig
from .folders import find_images
from .pairs import Image8, Pair, aligned, check_large, has_own_lr


def find_examples(config: DataConfig) -> tuple[Sequence[Any], list[str]]:
    """The examples of a TFDS data set on this disk, and what to call them."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.constants import DATA_DIR

    name = config.hr.removeprefix("tfds:")
    has_own_lr(name, config)
    try:
        examples: Any = tfds.data_source(
            name, split=config.split, data_dir=config.data_dir, download=False
        )
    except (AssertionError, KeyError, NotImplementedError, ValueError) as error:
        folder = config.data_dir or DATA_DIR
        reason = str(error).strip("\"'").splitlines()[0].removesuffix(" Possible root causes:")
        raise ValueError(
            f"TFDS has no {name} with the split {config.split} as array_record files in {folder}: "
            f"prepare it there first, nothing is downloaded here ({reason})"
        ) from None
    features = examples.dataset_info.features
    if not {"hr", "lr"} <= set(features):
        raise ValueError(f"{name} has the features {', '.join(features)}, but not hr and lr")
    return examples, [f"{name} {config.split}[{i}]" for i in range(len(examples))]


def load_example(examples: Sequence[Any], names: list[str], config: DataConfig, index: int) -> Pair:
    """Example `index` of `find_examples` as a pair.

    Raises:
        ValueError: a damaged image, one that is too small, or two that do not belong together.
    """
    try:
        example = examples[index]
    except Exception as error:  # Decoders fail on damaged images in every way there is.
        raise ValueError(one_line(error, names[index])) from None
    hr, lr = images.as_rgb(example["hr"]), images.as_rgb(example["lr"])
    check_large(names[index], hr, config)
    return aligned(names[index], hr, lr, config)


def prepare_tfds(
    splits: Mapping[str, str | os.PathLike],
    data_dir: str | os.PathLike,
    scale: int,
    border: Border = "symmetric",
) -> str:
    """Make a TFDS data set, with the features of DIV2K, of folders of high-resolution images.

    It is written as array_record files, which are read without TensorFlow, and to be found whole
    or not at all under `data_dir`.

    Args:
        splits: folder (with subfolders) of every split, such as {"train": "photos"}.
        data_dir: folder of TFDS data sets.
        scale: factor by which `degrade` makes `lr` of `hr`.
        border: see `degrade`.

    Returns:
        What to give to `DataConfig` as `hr`: "tfds:hr_folder/bicubic_x4".

    Raises:
        FileNotFoundError, ValueError: an image that cannot be read, another scale than 2, 3 or 4,
            or the data set exists already.
    """
    import tensorflow_datasets as tfds

    builder = _builder_class()(
        splits={name: find_images(os.fspath(folder)) for name, folder in splits.items()},
        degrade=functools.partial(degrade, scale=scale, border=border),
        config=f"bicubic_x{scale}",
        data_dir=os.fspath(data_dir),
        file_format="array_record",
    )
    if builder.is_prepared():
        raise ValueError(f"{builder.data_dir} exists already: remove it or choose another folder")
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=offline)
    return f"tfds:{builder.name}/{builder.builder_config.name}"


@functools.cache
def _builder_class() -> type:
    import tensorflow_datasets as tfds

    # Not registered: what it has prepared is read from the files alone, here as elsewhere.
    class HrFolder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """High-resolution images and their bicubic reductions."""

        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name=f"bicubic_x{scale}", version="1.0.0") for scale in SCALES
        ]

        def __init__(self, *, splits, degrade, **options):
            self._splits, self._degrade = splits, degrade
            super().__init__(**options)

        def _info(self):
            features = {"lr": tfds.features.Image(), "hr": tfds.features.Image()}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=("lr", "hr")
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(paths) for name, paths in self._splits.items()}

        def _generate_examples(self, paths):
            for key, path in enumerate(paths):
                hr = images.read_rgb(path)
                # TFDS needs TensorFlow to encode arrays, but takes PNG files as they are.
                yield key, {"lr": _png(self._degrade(hr)), "hr": _png(hr)}

    return HrFolder


def _png(image: Image8) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file
