"""Pairs of a low- and a high-resolution image, at random access."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from .config import DataConfig
from .looks import Look, look, remarks

Image8 = UInt8[np.ndarray, "_ _ 3"]
Pair = dict[str, Image8]  # "lr" (h, w, 3) and "hr" (s h, s w, 3)


class Pairs:
    """Random access to image pairs; decoded ones are kept while there is room for them.

    Attributes:
        names: of the images, for messages.
        left_out: what is wrong with the images that are not among them, one line each.
        remarks: what is odd about those that are, one line each, by kind (see `looks.remarks`).
        shards: how many of them lie in each shard, one shard after the other; none if they lie in
            files of their own.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[int], Pair],
        room: float,
        left_out: Sequence[str] = (),
        shards: Sequence[int] = (),
    ):
        """`load(i)` gives the pair `names[i]`, or raises ValueError or FileNotFoundError.

        `room` is in bytes.
        """
        self.names = names
        self.left_out = list(left_out)
        self.remarks: dict[str, list[str]] = {}
        self.shards = tuple(shards)
        self._load = load
        # What `load` calls those that are not left out.
        self._keys: Sequence[int] = range(len(names))
        self._room = room
        self._kept: dict[int, Pair] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the decoded images: every worker process keeps its own."""
        room = self._room + sum(map(_size, self._kept.values()))
        return vars(self) | {"_room": room, "_kept": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"_lock": threading.Lock()})

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Pair:
        key = self._keys[index]
        if key in self._kept:
            return self._kept[key]
        pair = self._load(key)
        with self._lock:
            if key not in self._kept and _size(pair) <= self._room:
                self._kept[key] = pair
                self._room -= _size(pair)
        return pair

    @property
    def all_kept(self) -> bool:
        """Whether all images are decoded and in memory."""
        return len(self._kept) >= len(self)

    @property
    def counts(self) -> dict[str, int]:
        """How many images there are, were left out, and are odd in some way."""
        odd = {f"images_{kind}": len(lines) for kind, lines in self.remarks.items() if lines}
        return {"images": len(self), "images_left_out": len(self.left_out)} | odd

    def leave_out_bad(self) -> None:
        """Read everything once and leave out what cannot be used, with the reason in `left_out`."""

        def problem(index: int) -> str | Look:
            try:
                return look(self[index])
            except (FileNotFoundError, ValueError) as error:  # the former from a dangling link
                return str(error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lines = pool.map(problem, range(len(self)))
            bar = tqdm(lines, "checking images", len(self), leave=False, disable=None, delay=2)
            found = list(bar)
        self.left_out += [line for line in found if isinstance(line, str)]
        looks = {i: seen for i, seen in enumerate(found) if isinstance(seen, Look)}
        self.names, self._keys = [self.names[i] for i in looks], [self._keys[i] for i in looks]
        self.remarks = remarks(self.names, list(looks.values()))


def _size(pair: Pair) -> int:
    """Bytes of memory; at scale 1 both images may be one."""
    places = {image.__array_interface__["data"][0]: image.nbytes for image in pair.values()}
    return sum(places.values())


def check_large(name: object, hr: Image8, config: DataConfig) -> None:
    """Raise ValueError if no patch fits into this image."""
    height, width = hr.shape[:2]
    if min(height, width) < config.patch:
        patch = f"a patch of {config.patch}x{config.patch}"
        raise ValueError(f"{name}: {width}x{height} pixels, smaller than {patch}")


def has_own_lr(name: object, config: DataConfig) -> None:
    """Raise ValueError if low-resolution images are given beside those that come along."""
    if config.lr is not None:
        raise ValueError(f"{name} has its own low-resolution images: leave out lr")


def aligned(name: object, hr: Image8, lr: Image8, config: DataConfig) -> Pair:
    """Both images, the larger one cut to the size of the smaller times the scale.

    Raises:
        ValueError: the smaller one has another size than the larger one's divided by the scale.
    """
    (height, width), (h, w) = hr.shape[:2], lr.shape[:2]
    if (h, w) != (height // config.scale, width // config.scale):
        sizes = f"HR {width}x{height} and LR {w}x{h}"
        raise ValueError(f"{name}: {sizes} do not belong together at scale {config.scale}")
    return {"lr": lr, "hr": hr[: h * config.scale, : w * config.scale]}
