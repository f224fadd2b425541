import collections
import math
import pickle

import pytest

from isrrescnet_jax.data.order import Order


def epoch(order, number=0):
    """Records of an epoch, batch by batch."""
    size = order.steps * order.batch
    drawn = [order.record(number * size + i) for i in range(size)]
    return [drawn[i : i + order.batch] for i in range(0, size, order.batch)]


def shard_of(order, record):
    return next(s for s in range(len(order.counts)) if record < order.starts[s + 1])


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(("shards", "batch"), [(1, 4), (6, 4), (8, 8), (7, 4), (16, 8)])
def test_an_epoch_draws_every_record_as_often_as_told(shards, batch, repeats):
    order = Order((8,) * shards, batch, repeats, seed=1)
    counted = collections.Counter(record for drawn in epoch(order) for record in drawn)
    assert set(counted) == set(range(8 * shards)) and set(counted.values()) == {repeats}


def test_the_order_is_that_of_seed_and_epoch():
    order, again = (Order((5,) * 4, 4, 2, seed=3) for _ in range(2))
    assert epoch(order) == epoch(again) == epoch(pickle.loads(pickle.dumps(order)))
    assert epoch(order) != epoch(order, 1) != epoch(order, 2)
    assert epoch(order) != epoch(Order((5,) * 4, 4, 2, seed=4))


def test_64_hosts_read_disjoint_shards_that_cover_the_epoch():
    order, hosts = Order((4,) * 192, 128, seed=7), 64
    for number in range(2):
        seen = collections.defaultdict(set)
        for drawn in epoch(order, number):
            for host in range(hosts):
                seen[host] |= set(drawn[host::hosts])
        assert all(len(records) == 12 for records in seen.values())
        assert set().union(*seen.values()) == set(range(4 * 192))
        shards = {host: {shard_of(order, r) for r in records} for host, records in seen.items()}
        assert all(len(of_host) == 3 for of_host in shards.values())
        assert len(set().union(*shards.values())) == 192
        if number:  # a host stays with its shards, which it may then keep
            assert shards == before  # noqa: F821
        before = shards  # noqa: F841


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_share_shards_only_where_they_must(hosts):
    order = Order((5,) * 12, 8)
    opened = [
        {shard_of(order, r) for drawn in epoch(order) for r in drawn[host::hosts]}
        for host in range(hosts)
    ]
    disjoint = sum(map(len, opened)) == len(set().union(*opened)) == 12
    assert disjoint == (math.gcd(8, 12) % hosts == 0)


def test_shards_of_different_sizes_lose_other_records_in_each_epoch():
    order = Order((9, 3, 4, 8), 4)
    assert (order.groups, order.steps) == (4, 3)
    seen = [{r for drawn in epoch(order, number) for r in drawn} for number in range(20)]
    assert all(len(records) == 12 for records in seen)
    assert len(set().union(*seen)) == 24


def test_few_shards_are_read_at_a_time():
    order = Order((20,) * 16, 4, repeats=5)
    lately = collections.deque(maxlen=40)  # ten batches
    most = 0
    for drawn in epoch(order):
        lately.extend(shard_of(order, r) for r in drawn)
        most = max(most, len(set(lately)))
    assert most <= 2 * order.groups


def test_groups_do_not_come_to_their_next_shard_at_once():
    order = Order((12,) * 16, 4)
    drawn = [[shard_of(order, r) for r in batch] for batch in epoch(order)]
    changes = [
        sum(a != b for a, b in zip(x, y, strict=True))
        for x, y in zip(drawn, drawn[1:], strict=False)
    ]
    assert max(changes) == 1


def test_an_empty_shard_is_passed_over():
    order = Order((4, 0, 4, 4), 2)
    assert set(r for drawn in epoch(order) for r in drawn[::2]) == {0, 1, 2, 3}
    assert Order((0, 4), 2).steps == 0
