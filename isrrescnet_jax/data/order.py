"""In which order records are drawn that lie in shards."""

import bisect
import dataclasses
import functools
import itertools
import math

import numpy as np
from jaxtyping import Int


# Equal only to itself: hashing many counts for every record would take long.
@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """Batches of which each element comes from shards of its own, the same for ever.

    The S shards are dealt to G = gcd(batch, S) groups of S / G, one after the other, and element j
    of every batch is drawn from group j mod G. So process p of P, which has the elements p, p + P,
    ... of all batches, opens a P-th of the shards if P divides G, and nobody else opens them; what
    is drawn does not depend on P. In an epoch a group goes through its shards in an order of its
    own, and through the records of each, all of them `repeats` times, as they are shuffled. Groups
    begin at different places of a shard, so that they do not all come to the next one at once.

    Attributes:
        counts: records in each shard.
        batch: elements in a batch.
        repeats: how often a record is drawn in an epoch. What is too much for full batches, or for
            the group with the fewest records, is left out, other records in each epoch.
        seed: of the order.
    """

    counts: tuple[int, ...]
    batch: int
    repeats: int = 1
    seed: int = 0

    @functools.cached_property
    def groups(self) -> int:
        """G."""
        return math.gcd(self.batch, len(self.counts))

    @functools.cached_property
    def fewest(self) -> int:
        """Records of the smallest group."""
        return min(sum(self.counts[s] for s in self._shards(g)) for g in range(self.groups))

    @functools.cached_property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self.fewest * self.repeats * self.groups // self.batch

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """The number of each shard's first record."""
        return (0, *itertools.accumulate(self.counts))

    def record(self, index: int) -> int:
        """The number of the record that is drawn `index`-th, element after element of all batches.

        >>> order = Order(counts=(2, 2, 2, 2), batch=4)
        >>> [sorted(order.record(i) for i in range(j, 8, 4)) for j in range(4)]
        [[0, 1], [2, 3], [4, 5], [6, 7]]
        """
        epoch, place = divmod(index, self.steps * self.batch)
        step, element = divmod(place, self.batch)
        within, group = divmod(element, self.groups)
        shards, ends = _sequence(self, epoch, group)
        place = step * (self.batch // self.groups) + within + group * ends[0] // self.groups
        place %= ends[-1]
        k = bisect.bisect_right(ends, place)
        shard, place = shards[k], place - (ends[k - 1] if k else 0)
        drawn = _shuffled(self.seed, epoch, shard, self.counts[shard] * self.repeats)[place]
        return self.starts[shard] + int(drawn) // self.repeats

    def _shards(self, group: int) -> range:
        size = len(self.counts) // self.groups
        return range(group * size, (group + 1) * size)


# What all elements of a batch need at the same time must have room in these.
@functools.lru_cache(4096)
def _sequence(order: Order, epoch: int, group: int) -> tuple[list[int], list[int]]:
    """The shards of a group in the order of an epoch, and how much is drawn up to their ends."""
    shards = list(order._shards(group))
    np.random.default_rng((order.seed, epoch, group, 0)).shuffle(shards)
    drawn = itertools.accumulate(order.counts[shard] * order.repeats for shard in shards)
    return shards, list(drawn)


@functools.lru_cache(4096)
def _shuffled(seed: int, epoch: int, shard: int, size: int) -> Int[np.ndarray, " size"]:
    return np.random.default_rng((seed, epoch, shard, 1)).permutation(size)
