"""Batches of random patches, in an order that the seed decides.

    pairs -> repeat -> shuffle -> random patch -> this process's share -> batch
    pairs in shards -> `Order` -> random patch -> this process's share -> batch

Every patch is a function of the seed and of its place in the stream alone, so the number of batches
taken so far is all the state there is, whatever the number of processes.
"""

import dataclasses
import functools
import itertools
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import DataConfig
from .order import Order
from .pairs import Pair, Pairs
from .patches import random_patch
from .sources import source

if TYPE_CHECKING:
    import grain

_log = logging.getLogger(__name__)

Example = dict[str, np.ndarray]
Measure = Callable[[Any, np.random.Generator], Example]


def train_batches(
    config: DataConfig,
    *,
    process_index: int = 0,
    process_count: int = 1,
    pairs: Any = None,
    measure: Measure | None = None,
) -> "grain.DatasetIterator":
    """An endless iterator over the batches of one process.

    All processes together step through the same global batches, however many they are: each takes
    every `process_count`-th patch, so none is given to two of them.

    Args:
        config: what to make of which images.
        process_index, process_count: whose share.
        pairs: the images, where `source` has read them already, with patches as large or larger; or
            examples of any kind, with a length and items, from which no patches are taken.
        measure: (hr or example, rng) -> example: what is trained on instead, a dictionary of arrays
            of one shape. All that is random in it comes from `rng`.

    Returns:
        Grain's iterator over {"lr": (n, p, p, 3), "hr": (n, s p, s p, 3)}, uint8, with
        n = batch / process_count and s p = patch, or over what `measure` makes, stacked. Its
        `get_state()` is the number of batches taken (with `workers` that of each worker) and can be
        given to any process's `set_state`. `close()` ends its threads or processes.

    Raises:
        ValueError, OSError: see `source`; or the batch cannot be shared between the processes, or
            an epoch has less than one batch.
    """
    import grain
    from absl import flags

    if config.batch % process_count:
        raise ValueError(f"a batch of {config.batch} cannot be shared by {process_count} processes")
    pairs = _announced(source(config), process_index) if pairs is None else pairs
    if isinstance(pairs, Pairs) and pairs.shards and process_index == 0:
        _warn_of_shared_shards(_order(pairs, config), process_count)
    of_images = isinstance(pairs, Pairs)
    pick = functools.partial(_example, config=config, measure=measure, of_images=of_images)
    patches = _drawn(pairs, config)
    # Random before shared: a patch does not depend on the number of processes.
    patches = patches.random_map(pick)[process_index::process_count]
    batches = patches.batch(config.batch // process_count).repeat()
    # Decoding releases Python's lock; cutting patches holds it, and more threads only fight for it.
    held = isinstance(pairs, Pairs) and pairs.all_kept
    threads = min(2 if held else 16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    stream = batches.to_iter_dataset(options)
    if config.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain asks absl's flags before it starts processes.
        options = grain.MultiprocessingOptions(config.workers, per_worker_buffer_size=4)
        stream = stream.mp_prefetch(options, _end_with_parent)
    return iter(stream)


def _drawn(pairs: Any, config: DataConfig) -> "grain.MapDataset":
    """Pairs or examples, again and again, in the order of the seed; an epoch is of full batches."""
    import grain

    if isinstance(pairs, Pairs) and pairs.shards:
        order = _order(pairs, config)
        usable, images = order.steps * order.batch, order.fewest * order.groups
    else:
        order, images = None, len(pairs)
        usable = images * config.repeats // config.batch * config.batch
    if not usable:
        raise ValueError(
            f"{len(pairs)} images x {config.repeats} repeats do not fill a batch of "
            f"{config.batch}: raise repeats to {-(-config.batch // max(images, 1))} or more"
        )
    if order is not None:
        return grain.MapDataset.source(_Ordered(pairs, order)).seed(config.seed)
    # Repeated before shuffled: Grain takes long to shuffle a few hundred items.
    patches = grain.MapDataset.source(pairs).seed(config.seed).repeat(config.repeats).shuffle()
    return patches[:usable]


def _order(pairs: Pairs, config: DataConfig) -> Order:
    return Order(pairs.shards, config.batch, config.repeats, config.seed)


class _Ordered:
    """Pairs in an order that has no end."""

    def __init__(self, pairs: Pairs, order: Order):
        self._pairs, self._order = pairs, order

    def __len__(self) -> int:
        return 2**48 // self._order.batch * self._order.batch

    def __getitem__(self, index: int) -> Pair:
        return self._pairs[self._order.record(int(index))]


def _warn_of_shared_shards(order: Order, process_count: int) -> None:
    if order.groups % process_count:
        _log.warning(
            "each of %d processes reads shards that others read, too: their number, %d, and the "
            "batch, %d, have the greatest common divisor %d, which should be a multiple of %d",
            *(process_count, len(order.counts), order.batch, order.groups, process_count),
        )


def _example(
    item: Any,
    rng: np.random.Generator,
    *,
    config: DataConfig,
    measure: Measure | None,
    of_images: bool,
) -> Example:
    """What is trained on, from a pair of images or an example."""
    if of_images:
        size = {"patch": config.patch, "scale": config.scale}
        item = random_patch(item, rng, **size, augment=config.augment)
    return item if measure is None else measure(item["hr"] if of_images else item, rng)


def _end_with_parent(index: int, count: int) -> None:
    """Of a worker: one whose parent is killed would keep its memory, and batches, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _announced(pairs: Pairs, process_index: int) -> Pairs:
    """Warn of the images that were left out and of the odd ones, in one of the processes."""
    if process_index == 0:
        for line in pairs.left_out:
            _log.warning("left out: %s", line)
        for line in itertools.chain(*pairs.remarks.values()):
            _log.warning("%s", line)
    return pairs


class Streams:
    """Batches of several scales and patch sizes, all from the same images.

    There is one stream of `train_batches` for each pair (scale, patch), begun when it is first
    asked for; patch sizes share the decoded images of their scale, and the scales share
    `config.memory`. That of the scale and patch in `config` is the stream of `config` itself.

    Attributes:
        counts: of the images, as `Pairs` has them.
    """

    def __init__(
        self,
        config: DataConfig,
        scales: Sequence[int] = (),
        patches: Sequence[int] = (),
        *,
        process_index: int = 0,
        process_count: int = 1,
        examples: Any = None,
        measure: Measure | None = None,
    ):
        """Read all images, and see that they are large enough for the largest patch.

        Args:
            config: what to make of which images.
            scales, patches: all that will be asked for; those of `config` by default.
            process_index, process_count, measure: see `train_batches`.
            examples: take the place of the images that `config` names (its `pairs`).

        Raises:
            ValueError, OSError: see `train_batches`.
        """
        self._config = config
        self._how: dict[str, Any] = {"process_index": process_index, "measure": measure}
        self._how["process_count"] = process_count
        self._streams: dict[tuple[int, int], grain.DatasetIterator] = {}
        self._pairs: dict[int, Any] = {}
        scales = sorted(set(scales or (config.scale,)))
        memory, largest = config.memory / len(scales), max(patches or (config.patch,))
        for scale in scales:
            wanted = dataclasses.replace(config, scale=scale, patch=largest, memory=memory)
            self._pairs[scale] = source(wanted) if examples is None else examples
        if examples is None:
            self.counts = _announced(self._pairs[scales[0]], process_index).counts
        else:
            self.counts = {"images": len(examples)}
        self._stream(scales[0], largest)  # whose length is checked

    def _stream(self, scale: int, patch: int) -> "grain.DatasetIterator":
        if (scale, patch) not in self._streams:
            config = self._config
            if (scale, patch) != (config.scale, config.patch):
                # Another seed, or every stream would begin with the same images.
                seed = (config.seed + 10_000 * scale + patch) % 2**32
                config = dataclasses.replace(config, scale=scale, patch=patch, seed=seed)
            stream = train_batches(config, pairs=self._pairs[scale], **self._how)
            self._streams[scale, patch] = stream
        return self._streams[scale, patch]

    def next(self, scale: int, patch: int) -> Example:
        """The next batch of this stream."""
        return next(self._stream(scale, patch))

    def get_state(self) -> dict[str, Any]:
        """The positions of all streams, as plain JSON values."""
        positions = {f"{s} {p}": stream.get_state() for (s, p), stream in self._streams.items()}
        return {"streams": positions}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave, here or in another process.

        The plain state of a single stream is taken as that of the scale and patch in `config`.
        """
        config = self._config
        positions = state.get("streams", {f"{config.scale} {config.patch}": state})
        self.close()
        for name, position in positions.items():
            scale, patch = map(int, name.split())
            self._stream(scale, patch).set_state(position)

    def close(self) -> None:
        """End all threads or processes."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
