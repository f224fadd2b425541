"""The images that a configuration names, looked at before the first step."""

import functools
import hashlib
import os
from pathlib import Path

from .. import images
from .config import DataConfig
from .folders import find_files, load_files, not_read
from .packed import is_packed, packed_inventory, packed_pairs, verify
from .pairs import Pairs
from .tfds import find_examples, load_example

_SAMPLE = 4096  # bytes


def check(config: DataConfig) -> list[str]:
    """Read all images; one line, with the name, for each that cannot be used to train.

    That is: damaged, smaller than a patch, or without a partner of the right name and size. Of
    shards, one line for each that is not as it was packed.
    """
    if is_packed(config):
        return verify(config.hr)
    pairs = _pairs(config)
    pairs.leave_out_bad()
    return pairs.left_out


def source(config: DataConfig) -> Pairs:
    """The pairs to train on, each read once to be sure of it; shards were looked at when packed.

    Raises:
        ValueError: images that cannot be used (all are named, see `check`; with `skip_bad` they are
            left out instead), none that can, or no such data.
        OSError: low-resolution images cannot be kept in the cache folder.
    """
    if is_packed(config):
        return packed_pairs(config, _room(config))
    pairs = _pairs(config)
    pairs.leave_out_bad()
    if not config.hr.startswith("tfds:"):
        pairs.remarks["not_read"] = not_read(config)
    bad, total = len(pairs.left_out), len(pairs.left_out) + len(pairs)
    if bad and not (config.skip_bad and len(pairs)):
        advice = "remove them or set skip_bad" if len(pairs) else "give others"
        lines = "".join(f"\n  {line}" for line in pairs.left_out)
        raise ValueError(f"{bad} of {total} training images cannot be used; {advice}:{lines}")
    return pairs


def inventory(config: DataConfig) -> str:
    """How many images there are, and a hash of their names, sizes and some of their bytes.

    The same on two hosts that have the same images, wherever their folders are. Of data sets of
    TFDS, names alone count.

    Raises:
        ValueError, OSError: no such data.
    """
    if is_packed(config):
        return packed_inventory(config)
    if config.hr.startswith("tfds:"):
        _, names = find_examples(config)
        return _counted(len(names), names)
    pairs, _ = find_files(config)
    roots = config.hr, config.lr or config.hr
    lines = [
        _sampled(path, root)
        for pair in pairs
        for path, root in zip(pair, roots, strict=True)
        if path is not None
    ]
    return _counted(len(pairs), lines)


def folder_inventory(folder: str) -> str:
    """`inventory` of the images in one folder, without folders further down."""
    paths = images.find([folder])
    return _counted(len(paths), [_sampled(path, folder) for path in paths])


def _counted(count: int, lines: list[str]) -> str:
    digest = hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()
    return f"{count} images with the hash {digest[:8]}"


def _sampled(path: Path, root: str) -> str:
    """Name, size and a hash of the first and last bytes, where compression has its check sums."""
    name = path.relative_to(root)
    if not path.exists():
        return f"{name} None"
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        key = hashlib.sha256(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        key.update(file.read(_SAMPLE))
    return f"{name} {size} {key.hexdigest()}"


def _room(config: DataConfig) -> float:
    """Bytes of decoded images that each process may keep."""
    return config.memory * 2**30 / (config.workers + 1)


def _pairs(config: DataConfig) -> Pairs:
    """All pairs, not looked at yet."""
    room = _room(config)
    if config.hr.startswith("tfds:"):
        examples, names = find_examples(config)
        return Pairs(names, functools.partial(load_example, examples, names, config), room)
    files, left_out = find_files(config)
    names = [str(hr) for hr, _ in files]
    return Pairs(names, functools.partial(load_files, files, config), room, left_out)
