import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import ExifTags, Image
from training_images import blocks, labelled, save

from isrrescnet_jax import data, images
from isrrescnet_jax.data import DataConfig, folders
from isrrescnet_jax.evaluation.degrade import degrade


def test_hr_folders_are_searched_with_their_subfolders(photos):
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "readme.txt").write_bytes(b"")
    pairs = data.source(DataConfig(hr=str(photos), scale=2, patch=16))
    names = ["a.png", "b.png", "c.PNG", "e.webp", "more/a.png", "more/deep/d.bmp"]
    assert pairs.names == [str(photos / name) for name in names]


@pytest.mark.parametrize("border", ["symmetric", "replicate"])
def test_lr_is_degraded_hr(photos, border):
    pairs = data.source(DataConfig(hr=str(photos), scale=3, patch=12, border=border))
    assert len(pairs) == 6
    for name, pair in zip(pairs.names, (pairs[i] for i in range(6)), strict=True):
        hr = images.read(name).color.astype(np.uint8)
        h, w = hr.shape[0] // 3, hr.shape[1] // 3
        np.testing.assert_array_equal(pair["hr"], hr[: 3 * h, : 3 * w])
        np.testing.assert_array_equal(pair["lr"], degrade(hr, 3, border=border))


def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path):
    rgb = photo(20, 20)[0]
    grey = rgb[..., 0]
    save(grey, tmp_path / "1.png")
    save(np.dstack([rgb, grey]), tmp_path / "2.png")
    images.write(images.Picture(rgb.astype(np.float32), bits=16), tmp_path / "3.png")
    save(np.dstack([grey, 255 - grey]), tmp_path / "4.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(rgb).save(tmp_path / "5.png", exif=exif)
    pairs = data.source(DataConfig(hr=str(tmp_path), scale=2, patch=16))
    grey = np.dstack([grey] * 3)
    for i, expected in enumerate([grey, rgb, rgb, grey, np.rot90(rgb, -1)]):
        np.testing.assert_array_equal(pairs[i]["hr"], expected)
        assert pairs[i]["lr"].shape == (10, 10, 3)
        rng = np.random.default_rng(0)
        whole = data.random_patch(pairs[i], rng, patch=20, scale=2, augment=False)
        np.testing.assert_array_equal(whole["hr"], expected)


def test_lr_folder(labels):
    pairs = data.source(labels)
    for k in range(7):
        np.testing.assert_array_equal(pairs[k]["lr"], labelled(k, 10 + k, 12))
        np.testing.assert_array_equal(pairs[k]["hr"], blocks(pairs[k]["lr"], 2))


def test_lr_files_are_found_by_name_within_their_subfolder(tmp_path):
    for k, name in enumerate(["a", "sub/a", "sub/b", "sub/lonely"]):
        lr = labelled(k, 8, 8)
        save(blocks(lr, 2), tmp_path / "HR" / f"{name}.png")
        if name != "sub/lonely":
            save(lr, tmp_path / "LR" / f"{name}x2.png")
    config = DataConfig(hr=str(tmp_path / "HR"), lr=str(tmp_path / "LR"), scale=2, patch=8)
    (line,) = data.check(config)
    assert line.startswith(f"{tmp_path / 'HR' / 'sub' / 'lonely.png'}: no LR image")
    with pytest.raises(ValueError, match="1 of 4 training images .*\n.*lonely.png"):
        data.source(config)
    pairs = data.source(DataConfig(**vars(config) | {"skip_bad": True}))
    assert [pair["lr"][0, 0, 0] for pair in map(pairs.__getitem__, range(3))] == [0, 1, 2]


def test_lr_of_another_size_is_reported(labels):
    save(labelled(3, 9, 12), Path(labels.lr) / "3.png")
    (line,) = data.check(labels)
    assert line.startswith(str(Path(labels.hr) / "3.png"))
    assert "HR 24x26 and LR 12x9 do not belong together at scale 2" in line


@pytest.fixture
def degraded(monkeypatch) -> list[tuple]:
    """The arguments of every call of `degrade`."""
    calls = []

    def counted(hr, scale, border):
        calls.append((hr.shape, scale, border))
        return degrade(hr, scale, border=border)

    monkeypatch.setattr(folders, "degrade", counted)
    return calls


def test_lr_is_made_once_per_content_scale_and_border(photos, degraded, tmp_path):
    config = DataConfig(hr=str(photos), scale=2, patch=12)
    first = [pair["lr"] for pair in map(data.source(config).__getitem__, range(6))]
    assert len(degraded) == 6
    assert len(list((tmp_path / "cache" / "lr").iterdir())) == 6
    again = [pair["lr"] for pair in map(data.source(config).__getitem__, range(6))]
    assert len(degraded) == 6
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    (photos / "b.png").rename(photos / "renamed.png")
    data.source(config)
    assert len(degraded) == 6
    save(photo(25, 31, seed=77)[0], photos / "renamed.png")
    data.source(config)
    assert len(degraded) == 7
    data.source(DataConfig(hr=str(photos), scale=3, patch=12))
    data.source(DataConfig(hr=str(photos), scale=2, patch=12, border="replicate"))
    assert len(degraded) == 19


def test_lr_of_images_with_the_same_bytes_in_another_shape_is_not_mixed_up(tmp_path):
    for h, w in [(20, 40), (40, 20)]:
        save(np.full((h, w, 3), 9, np.uint8), tmp_path / "flat" / f"{h}.png")
    pairs = data.source(DataConfig(hr=str(tmp_path / "flat"), scale=2, patch=12))
    assert [pairs[i]["lr"].shape for i in range(2)] == [(10, 20, 3), (20, 10, 3)]


def test_a_damaged_cache_is_made_again(photos, degraded, tmp_path):
    config = DataConfig(hr=str(photos), scale=2, patch=12, cache=str(tmp_path / "mine"))
    first = data.source(config)
    damaged = sorted((tmp_path / "mine").iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = data.source(config)
    assert len(degraded) == 7
    for i in range(6):
        np.testing.assert_array_equal(first[i]["lr"], again[i]["lr"])


def test_a_cache_that_cannot_be_written_is_named(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    config = DataConfig(hr=str(photos), scale=2, patch=12, cache=str(tmp_path / "file" / "lr"))
    with pytest.raises(OSError, match="file/lr: .*another folder with `cache`"):
        data.source(config)


def test_the_cache_can_be_turned_off(photos, degraded, monkeypatch):
    monkeypatch.setenv("ISRRESCNET_CACHE", "")
    config = DataConfig(hr=str(photos), scale=2, patch=12)
    assert data.lr_cache_folder(config) is None
    data.source(config)
    data.source(config)
    assert len(degraded) == 12


def test_files_that_are_not_read_are_named_and_counted(photos, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(photos, folder)
    (folder / "below").mkdir()
    (folder / "below" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("no image")
    pairs = data.source(DataConfig(hr=str(folder), scale=2, patch=16))
    (line,) = pairs.remarks["not_read"]
    assert line == f"{folder / 'below' / 'phone.heic'}: not read, though it looks like an image"
    assert pairs.counts["images_not_read"] == 1
