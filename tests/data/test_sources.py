import logging
import shutil
from pathlib import Path

import pytest
from conftest import photo
from training_images import same, save, stream

from isrrescnet_jax import data
from isrrescnet_jax.data import DataConfig


@pytest.fixture
def spoiled(photos) -> Path:
    """The photos, and a truncated one, a text file and two that are too small."""
    whole = save(photo(40, 40)[0], photos / "cut.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("not a picture")
    save(photo(15, 40)[0], photos / "more" / "low.png")
    save(photo(40, 8)[0], photos / "narrow.png")
    return photos


BAD = ["cut.png", "more/low.png", "narrow.png", "text.jpg"]


def test_bad_images_are_all_reported_by_name(spoiled):
    lines = data.check(DataConfig(hr=str(spoiled), scale=2, patch=16))
    assert [line.split(": ")[0] for line in lines] == [str(spoiled / name) for name in BAD]
    assert "40x15 pixels, smaller than a patch of 16x16" in lines[1]
    assert all("\n" not in line for line in lines)


def test_a_dangling_link_is_a_bad_image(photos):
    (photos / "link.png").symlink_to("nowhere.png")
    (line,) = data.check(DataConfig(hr=str(photos), scale=2, patch=16))
    assert line == f"{photos / 'link.png'}: no such file"


def test_bad_images_stop_the_start(spoiled):
    with pytest.raises(ValueError, match="4 of 10 training images") as error:
        data.train_batches(DataConfig(hr=str(spoiled), scale=2, patch=16))
    assert all(name in str(error.value) for name in BAD)


def test_bad_images_can_be_left_out_with_a_warning(spoiled, caplog):
    config = DataConfig(hr=str(spoiled), scale=2, patch=16, batch=4, skip_bad=True)
    with caplog.at_level(logging.WARNING):
        batches = stream(config, 12)
    assert [record.message for record in caplog.records] == [
        f"left out: {line}" for line in data.check(config)
    ]
    for name in BAD:
        (spoiled / name).unlink()
    assert same(batches, stream(config, 12))


def test_only_the_first_process_warns(spoiled, caplog):
    config = DataConfig(hr=str(spoiled), scale=2, patch=16, batch=4, skip_bad=True)
    stream(config, 1, process_index=1, process_count=2)
    assert not caplog.records


def test_nothing_but_bad_images_is_an_error_in_any_case(tmp_path):
    save(photo(10, 10)[0], tmp_path / "small.png")
    with pytest.raises(ValueError, match="1 of 1 training images .* give others"):
        data.source(DataConfig(hr=str(tmp_path), skip_bad=True))


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="no training images: give a folder"):
        data.source(DataConfig())
    with pytest.raises(ValueError, match="missing: no such folder"):
        data.source(DataConfig(hr=str(tmp_path / "missing")))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="no images"):
        data.source(DataConfig(hr=str(tmp_path)))


def test_an_inventory_is_of_names_sizes_and_bytes_wherever_the_folder_is(photos, labels, tmp_path):
    config = DataConfig(hr=str(photos))
    before = data.inventory(config)
    assert before.startswith("6 images with the hash ")
    shutil.copytree(photos, tmp_path / "copy")
    copy = DataConfig(hr=str(tmp_path / "copy"))
    assert data.inventory(copy) == before
    assert data.folder_inventory(copy.hr) == data.folder_inventory(config.hr)
    image = tmp_path / "copy" / "b.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    assert data.inventory(copy) != before
    image.write_bytes(whole)
    (tmp_path / "copy" / "b.png").rename(tmp_path / "copy" / "z.png")
    assert data.inventory(copy) != before
    with open(photos / "b.png", "ab") as file:
        file.write(b"more")
    assert data.inventory(config) != before
    pairs = data.inventory(labels)
    with open(tmp_path / "LR" / "0.png", "ab") as file:
        file.write(b"more")
    assert data.inventory(labels) != pairs and pairs.startswith("7 images")
