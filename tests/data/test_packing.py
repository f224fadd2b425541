import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from conftest import photo
from PIL import Image
from training_images import save

from isrrescnet_jax import data, remote
from isrrescnet_jax.data import DataConfig, packed, packing

CONFIG = DataConfig(scale=2, patch=16)


def make(folder, out, crop=32, shards=4, config=CONFIG, lr=()):
    plan = packing.plan(
        [str(folder)], [str(f) for f in lr], config=config, crop=crop, shards=shards
    )
    return packing.pack(plan, str(out))


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def folder(tmp_path) -> Path:
    for k in range(10):
        save(photo(40 + 4 * k, 70, seed=k)[0], tmp_path / "images" / f"{k}.png")
    return tmp_path / "images"


def test_crops_cover_the_picture_and_are_evenly_placed():
    for height, width, crop, scale in [(97, 60, 24, 3), (24, 24, 24, 2), (30, 200, 64, 4)]:
        seen = np.zeros((height // scale, width // scale), int)
        for rows, columns in packing.grid(height, width, crop, scale):
            assert seen[rows, columns].shape == tuple(
                min(crop // scale, side // scale) for side in (height, width)
            )
            seen[rows, columns] += 1
        assert seen.min() == 1 and seen.max() <= 4


def test_any_reader_of_parquet_sees_pictures(folder, tmp_path):
    make(folder, tmp_path / "out")
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    assert len(rows) == packed.read_index(str(tmp_path / "out")).records
    for row in rows[::5]:
        with Image.open(row["picture"]) as whole:
            place = row["left"], row["top"], row["left"] + 32, row["top"] + 32
            expected = np.asarray(whole.crop(place))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["hr"]))), expected)


def test_the_same_pictures_give_the_same_bytes(folder, tmp_path):
    make(folder, tmp_path / "a")
    make(folder, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    make(folder, tmp_path / "c", config=dataclasses.replace(CONFIG, seed=1))
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


@pytest.mark.parametrize("done", [1, 3, 4])
def test_what_was_interrupted_goes_on(folder, tmp_path, monkeypatch, done):
    make(folder, tmp_path / "whole")
    write, count = remote.write, 0

    def interrupted(*arguments, **options):
        nonlocal count
        if count == done:
            raise KeyboardInterrupt
        count += 1
        return write(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(remote, "write", interrupted)
        make(folder, tmp_path / "out")
    assert len(contents(tmp_path / "out")) == done
    with pytest.raises(ValueError, match="no images"):  # not a pack yet
        data.source(DataConfig(hr=str(tmp_path / "out"), scale=2, patch=16))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    make(folder, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_nothing_is_overwritten_or_mixed(folder, tmp_path):
    make(folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(FileExistsError, match="there is a finished pack"):
        make(folder, tmp_path / "out")
    (tmp_path / "out" / packed.INDEX).unlink()
    for changes in ({"crop": 24}, {"shards": 3}, {"config": dataclasses.replace(CONFIG, seed=1)}):
        with pytest.raises(ValueError, match="of another pack, or damaged: remove it"):
            make(folder, tmp_path / "out", **changes)
    cut = tmp_path / "out" / "00001-of-00004.parquet"
    cut.write_bytes(cut.read_bytes()[:500])
    with pytest.raises(ValueError, match="00001-of-00004.parquet is of another pack, or damaged"):
        make(folder, tmp_path / "out")
    del before[packed.INDEX], before[cut.name]
    assert contents(tmp_path / "out").items() >= before.items()


def test_pictures_are_decoded_once(folder, tmp_path, monkeypatch):
    read, names = packing.load_files, []

    def counted(files, config, index, keep):
        names.append(files[index][0].name)
        return read(files, config, index, keep)

    monkeypatch.setattr(packing, "load_files", counted)
    make(folder, tmp_path / "out")
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    assert not (tmp_path / "cache").exists()


def test_the_same_is_checked_as_of_folders(folder, tmp_path):
    whole = (folder / "1.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no picture")
    (folder / "again.png").write_bytes(whole)
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    save(photo(15, 40)[0], folder / "low.png")
    index = make(folder, tmp_path / "out", shards=1)
    config = dataclasses.replace(CONFIG, hr=str(folder), cache="")
    assert sorted(index.left_out) == sorted(data.check(config))
    folders = data.source(dataclasses.replace(config, skip_bad=True))
    pairs = data.source(dataclasses.replace(config, hr=str(tmp_path / "out")))
    assert index.pictures == len(folders) == 11
    for kind in ("twice", "not_read"):
        assert len(pairs.remarks[kind]) == len(folders.remarks[kind]) == 1
    assert pairs.counts["images_left_out"] == 3 and pairs.counts["images_twice"] == 1


def test_nothing_that_can_be_used_is_an_error(tmp_path):
    save(photo(15, 40)[0], tmp_path / "images" / "low.png")
    with pytest.raises(ValueError, match="none of 1 pictures can be used:\n.*low.png: 40x15"):
        make(tmp_path / "images", tmp_path / "out")


def test_pairs_of_ones_own(labels, tmp_path):
    config = dataclasses.replace(labels, hr="", lr=None)
    (Path(labels.lr) / "3.png").unlink()
    index = make(labels.hr, tmp_path / "out", 12, 1, config, [labels.lr])
    assert len(index.left_out) == 1 and "3.png: no LR image" in index.left_out[0]
    pairs = data.source(dataclasses.replace(config, hr=str(tmp_path / "out"), border="replicate"))
    for pair in map(pairs.__getitem__, range(len(pairs))):
        np.testing.assert_array_equal(pair["hr"], pair["lr"].repeat(2, axis=0).repeat(2, axis=1))
    with pytest.raises(ValueError, match="1 folders need as many of LR pictures, not 2"):
        make(labels.hr, tmp_path / "new", lr=["a", "b"])


def test_whole_pictures_and_those_of_several_folders(folder, tmp_path):
    save(photo(50, 50, seed=99)[0], tmp_path / "more" / "0.png")
    both = [str(folder), str(tmp_path / "more")]
    index = packing.pack(packing.plan(both, config=CONFIG, crop=0), str(tmp_path / "out"))
    assert (index.records, index.pictures, len(index.shards), index.smallest) == (11, 11, 1, 40)


def test_a_header_that_tells_a_wrong_size_does_no_harm(folder, tmp_path, monkeypatch):
    right = make(folder, tmp_path / "right")
    for size in ((0, 0), (200, 300)):
        monkeypatch.setattr(packing, "_measured", lambda path, size=size: size)
        wrong = make(folder, tmp_path / f"{size[0]}")
        assert wrong.records == right.records


@pytest.mark.parametrize(
    ("options", "words"),
    [({"crop": 8}, "no room for patches of 16"), ({"shards": 0}, "at least 1 shard, not 0")],
)
def test_options_that_do_not_go_together(folder, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        make(folder, tmp_path / "out", **options)


def test_many_shards_have_divisors_in_common_with_batches():
    counts = [packing._count(n * packing.SHARD) for n in (0, 1, 2, 3, 5, 63, 64, 100, 200, 1000)]
    assert counts == [1, 1, 2, 2, 4, 32, 64, 64, 192, 960]
