"""Training from shards: the same pairs, in an order that does not depend on the processes."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from training_images import same, save, stream, take

from isrrescnet_jax import data, remote
from isrrescnet_jax.data import DataConfig, packed, packing


@pytest.fixture
def config(tmp_path) -> DataConfig:
    """Sixteen pictures in eight shards of six crops."""
    for k, image in enumerate(photo(40, 60, n=16)):
        save(image, tmp_path / "photos" / f"{k}.png")
    plan = DataConfig(scale=2, patch=16)
    plan = packing.plan([str(tmp_path / "photos")], config=plan, crop=24, shards=8)
    packing.pack(plan, str(tmp_path / "packed"))
    return DataConfig(hr=str(tmp_path / "packed"), scale=2, patch=16, batch=8, repeats=2)


def test_every_crop_is_one_of_the_folder(config, tmp_path):
    folder = data.source(dataclasses.replace(config, hr=str(tmp_path / "photos"), cache=""))
    pairs, found = data.source(config), 0
    assert len(pairs) == 16 * 6 and pairs.counts["images"] == 96
    for pair in map(pairs.__getitem__, range(len(pairs))):
        assert pair["hr"].shape == (24, 24, 3) and pair["lr"].shape == (12, 12, 3)
        for whole in map(folder.__getitem__, range(16)):
            for i, j in ((i, j) for i in (0, 8) for j in (0, 9, 18)):
                same_lr = np.array_equal(pair["lr"], whole["lr"][i : i + 12, j : j + 12])
                i, j = 2 * i, 2 * j
                found += same_lr and np.array_equal(pair["hr"], whole["hr"][i : i + 24, j : j + 24])
    assert found == 96


@pytest.mark.parametrize("count", [2, 4, 8])
def test_processes_share_the_batches_of_one(config, count):
    whole = stream(config, 30)
    for i in range(count):
        part = stream(config, 30, process_index=i, process_count=count)
        for batch, share in zip(whole, part, strict=True):
            np.testing.assert_array_equal(share["hr"], batch["hr"][i::count])
            np.testing.assert_array_equal(share["lr"], batch["lr"][i::count])


def test_a_state_serves_other_numbers_of_processes(config):
    whole, state, taken = stream(config, 40), None, 0
    for count, steps in ((4, 9), (2, 13), (1, 6), (8, 12)):
        parts = [
            data.train_batches(config, process_index=i, process_count=count) for i in range(count)
        ]
        for i, part in enumerate(parts):
            if state is not None:
                part.set_state(json.loads(state))
            for batch, share in zip(whole[taken:], take(part, steps), strict=False):
                np.testing.assert_array_equal(share["hr"], batch["hr"][i::count])
        state, taken = json.dumps(parts[-1].get_state()), taken + steps
        for part in parts:
            part.close()
    assert taken == 40  # three epochs of 24 batches, nearly


def test_processes_open_shards_of_their_own_when_these_are_asked_for(config, monkeypatch):
    opened: list[str] = []
    read = remote.read

    def noted(address):
        opened.append(address.rpartition("/")[2])
        return read(address)

    monkeypatch.setattr(remote, "read", noted)
    by_process = []
    for i in range(4):
        opened.clear()
        pairs = data.source(config)
        assert opened == [packed.INDEX]
        stream(config, 24, process_index=i, process_count=4, pairs=pairs)
        by_process.append(set(opened) - {packed.INDEX})
        assert len(opened) == 1 + len(by_process[-1])  # each of them once
    assert [len(names) for names in by_process] == [2] * 4
    assert len(set().union(*by_process)) == 8


def test_shards_that_are_done_with_are_let_go(config):
    pairs = data.source(dataclasses.replace(config, batch=1, memory=0.0))
    for index in range(96):
        for _ in range(10):
            pairs[index]
    records = pairs._load.__self__
    assert len(records._open) <= 2


def test_processes_that_cannot_have_shards_of_their_own_are_told(config, caplog):
    twelve = dataclasses.replace(config, batch=12)
    with caplog.at_level(logging.WARNING):
        stream(config, 1, process_count=8)
        assert not caplog.records
        stream(twelve, 1, process_count=6)
    assert "each of 6 processes reads shards that others read" in caplog.text


def test_scale_1_takes_the_pictures_of_any_pack(config):
    pairs = data.source(dataclasses.replace(config, scale=1, patch=24))
    assert np.shares_memory(*pairs[0].values()) and len(pairs) == 96


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 4}, "packed at scale 2, not 4"),
        ({"patch": 26}, "smallest crop has a side of 24 .* pack with --patch 26"),
        ({"border": "replicate"}, "packed with the border symmetric, not replicate"),
        ({"lr": "folder"}, "has its own low-resolution images: leave out lr"),
        ({"batch": 512}, "do not fill a batch of 512: raise repeats to 6"),
    ],
)
def test_what_does_not_fit_is_one_line(config, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        data.train_batches(dataclasses.replace(config, **changes))
    assert "\n" not in str(error.value)


def shard(config, number=3) -> Path:
    return sorted(Path(config.hr).glob("*.parquet"))[number]


def test_missing_and_truncated_shards_are_found_before_the_first_step(config):
    path = shard(config)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{path}: 1000 bytes of \d+: copy it again") as error:
        data.source(config)
    path.unlink()
    shard(config, 0).unlink()
    with pytest.raises(ValueError, match=r"00000-of-00008.*is missing.*\(and 1 more\)") as error:
        data.source(config)
    assert "\n" not in str(error.value)
    assert len(data.check(config)) == 2


def test_a_checksum_that_does_not_match_is_found_when_the_shard_is_read(config):
    path = shard(config)
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    batches = data.train_batches(config)
    with pytest.raises(ValueError, match=f"{path}: its checksum does not match"):
        take(batches, 24)
    batches.close()
    (line,) = data.check(config)
    assert line.startswith(f"{path}: its checksum")


def test_a_damaged_index_is_one_line(config):
    index = Path(config.hr, packed.INDEX)
    for text in ("", "{}", "[]", index.read_text().replace('"version": 1', '"version": 99')):
        index.write_text(text)
        with pytest.raises(ValueError, match="pack.json: damaged, or of another version"):
            data.source(config)


def test_the_inventory_is_that_of_the_checksums(config, tmp_path):
    before = data.inventory(config)
    text = Path(config.hr, packed.INDEX).read_bytes()
    assert before == f"96 images with the hash {hashlib.sha256(text).hexdigest()[:8]}"
    Path(config.hr, packed.INDEX).write_bytes(text.replace(b"sha256", b"sha256 "))
    with pytest.raises(ValueError):
        data.inventory(config)


def test_all_places_give_the_same_batches(config, bucket, tmp_path):
    for place in (f"{bucket}/{tmp_path.name}", f"memory://{tmp_path}"):
        for path in Path(config.hr).iterdir():
            remote.write(remote.join(place, path.name), path.read_bytes())
        there = dataclasses.replace(config, hr=place)
        assert data.inventory(there) == data.inventory(config)
        assert same(stream(there, 30), stream(config, 30))


@pytest.mark.slow
def test_worker_processes_give_the_same_stream(config):
    batches = data.train_batches(dataclasses.replace(config, workers=2))
    assert same(take(batches, 20), stream(config, 20))
    batches.close()
