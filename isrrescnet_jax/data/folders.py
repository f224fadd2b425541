"""Pairs from folders of image files; low-resolution images that are missing are made, once."""

import glob
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from .. import images, remote
from ..cache import cache_limit, limit_cache
from ..evaluation.degrade import degrade
from ..evaluation.names import match
from ..files import cache_folder
from .config import DataConfig
from .pairs import Pair, aligned, check_large

_LOOKS = "00"  # One image in 256, by its hash, looks at the size of the cache.


def find_files(config: DataConfig) -> tuple[list[tuple[Path, Path | None]], list[str]]:
    """HR files with their LR files, if there are any yet, and a line for each without partner."""
    hr = find_images(config.hr)
    if config.lr is None:
        return [(path, None) for path in hr], []
    # Names count within a subfolder: the same one may occur in several.
    groups: dict[Path, tuple[list[Path], list[Path]]] = {}
    for side, (root, paths) in enumerate([(config.hr, hr), (config.lr, find_images(config.lr))]):
        for path in paths:
            groups.setdefault(path.parent.relative_to(root), ([], []))[side].append(path)
    matched = [match(*group, config.scale) for group in groups.values()]
    return [pair for pairs, _ in matched for pair in pairs], [p for _, ps in matched for p in ps]


def find_images(folder: str) -> list[Path]:
    """All images in a folder and its subfolders, links included and hidden files not.

    Raises:
        ValueError: no such folder, or none in it.
    """
    if not folder:
        raise ValueError("no training images: give a folder or a TFDS data set")
    if remote.is_remote(folder):
        raise ValueError(f"{folder}: pictures must be in a folder of this machine")
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder")
    names = sorted(glob.glob("**/*", root_dir=folder, recursive=True))
    found = [Path(folder, name) for name in names if Path(name).suffix.lower() in images.READABLE]
    if not found:
        raise ValueError(f"{folder}: no images ({', '.join(images.READABLE)}) in this folder")
    return found


def not_read(config: DataConfig) -> list[str]:
    """A line for each file in the folders that looks like an image, and is not read."""
    folders = [folder for folder in (config.hr, config.lr) if folder]
    found = images.search(folders, recursive=True).overlooked
    return [f"{path}: not read, though it looks like an image" for path in found if path.is_file()]


def load_files(
    files: Sequence[tuple[Path, Path | None]], config: DataConfig, index: int, keep: bool = True
) -> Pair:
    """Files `index` of `find_files` as a pair; grey is repeated, alpha dropped.

    An LR image that is made here is kept for the next time, unless not `keep`.

    Raises:
        FileNotFoundError: a dangling link.
        ValueError: a damaged image, one that is too small, or two that do not belong together.
        OSError: `lr` cannot be kept.
    """
    path, lr_path = files[index]
    hr = images.read_rgb(path)
    check_large(path, hr, config)
    lr = images.read_rgb(lr_path) if lr_path else _make_lr(hr, config, keep)
    return aligned(path, hr, lr, config)


def lr_cache_folder(config: DataConfig) -> Path | None:
    """Where low-resolution images made for training are kept; None: nowhere (see `DataConfig`)."""
    if config.cache:
        return Path(config.cache)
    folder = cache_folder()
    return folder and folder / "lr"


def _make_lr(
    hr: UInt8[np.ndarray, "H W 3"], config: DataConfig, keep: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """`degrade`, remembered on disk under a hash of the pixels, the scale and the border."""
    if config.scale == 1:
        return hr
    folder = lr_cache_folder(config) if keep else None
    if folder is None:
        return degrade(hr, config.scale, border=config.border)
    key = hashlib.blake2b(np.ascontiguousarray(hr).data, digest_size=16)
    key.update(f"{hr.shape} {config.scale} {config.border}".encode())
    path = folder / f"{key.hexdigest()}.png"
    try:
        return images.read_rgb(path)
    except (FileNotFoundError, ValueError):  # Not made yet, or damaged since.
        lr = degrade(hr, config.scale, border=config.border)
    try:
        images.write(images.Picture(lr.astype(np.float32)), path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{folder}: {reason}; name another folder with `cache`") from None
    if path.name.startswith(_LOOKS) and not config.cache:
        limit_cache(folder.parent, cache_limit())
    return lr
