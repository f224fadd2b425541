import collections
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from isrrescnet_jax import images
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.data import pipeline as data
from isrrescnet_jax.evaluation.degrade import degrade

# --- material -------------------------------------------------------------------------------------


def blocks(lr: np.ndarray, scale: int) -> np.ndarray:
    """The HR image whose every scale x scale block is one LR pixel."""
    return lr.repeat(scale, axis=0).repeat(scale, axis=1)


def labelled(label: int, h: int, w: int) -> np.ndarray:
    """An image that says in every pixel who it is and where: (label, row, column)."""
    rows, columns = np.mgrid[:h, :w]
    return np.stack([np.full((h, w), label), rows, columns], axis=-1).astype(np.uint8)


def save(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISRRESCNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path) -> Path:
    """Six images of several sizes, formats and depths of folder."""
    for k in range(6):
        name = ["a.png", "b.png", "c.PNG", "more/a.png", "more/deep/d.bmp", "e.webp"][k]
        image = photo(24 + k, 29 + 2 * k, seed=k)[0]
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(image).save(path, **options)
    return tmp_path / "photos"


@pytest.fixture
def labels(tmp_path) -> DataConfig:
    """Seven pairs of labelled LR images and HR images made of their blocks; epochs of 14 - 2."""
    for k in range(7):
        lr = labelled(k, 10 + k, 12)
        save(lr, tmp_path / "LR" / f"{k}.png")
        save(blocks(lr, 2), tmp_path / "HR" / f"{k}.png")
    folders = {"hr": str(tmp_path / "HR"), "lr": str(tmp_path / "LR")}
    return DataConfig(**folders, scale=2, patch=8, batch=4, repeats=2)


def take(batches, count: int) -> list[dict[str, np.ndarray]]:
    return [next(batches) for _ in range(count)]


def same(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x[key], y[key]) for x, y in zip(a, b, strict=True) for key in ("lr", "hr")
    )


def stream(config: DataConfig, count: int, **process) -> list[dict[str, np.ndarray]]:
    batches = data.train_batches(config, **process)
    try:
        return take(batches, count)
    finally:
        batches.close()


# --- patches --------------------------------------------------------------------------------------


def test_dihedral_is_the_symmetry_group_of_the_square():
    square = np.arange(9).reshape(3, 3)
    expected = {np.rot90(x, k).tobytes() for x in (square, square.T) for k in range(4)}
    assert {data.dihedral(square, v).tobytes() for v in range(8)} == expected


@given(
    scale=st.sampled_from([2, 3, 4]),
    h=st.integers(5, 12),
    w=st.integers(5, 12),
    augment=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50)
def test_patches_are_aligned(scale, h, w, augment, seed):
    lr = labelled(7, h, w)
    rng = np.random.default_rng(seed)
    pair = {"lr": lr, "hr": blocks(lr, scale)}
    patch = data.random_patch(pair, rng, patch=5 * scale, scale=scale, augment=augment)
    assert patch["lr"].shape == (5, 5, 3)
    np.testing.assert_array_equal(patch["hr"], blocks(patch["lr"], scale))
    if not augment:
        _, i, j = patch["lr"][0, 0]
        np.testing.assert_array_equal(patch["lr"], lr[i : i + 5, j : j + 5])


def test_every_place_and_every_variant_is_drawn():
    lr = labelled(0, 6, 7)
    pair = {"lr": lr, "hr": blocks(lr, 2)}
    rng = np.random.default_rng(0)
    draw = lambda augment: data.random_patch(pair, rng, patch=8, scale=2, augment=augment)["lr"]  # noqa: E731
    corners = collections.Counter(tuple(draw(False)[0, 0, 1:].tolist()) for _ in range(600))
    assert set(corners) == {(i, j) for i in range(3) for j in range(4)}
    assert min(corners.values()) > 20  # 50 expected, 7 standard deviation
    everywhere = [draw(True).tobytes() for _ in range(2000)]
    assert len(set(everywhere)) == 3 * 4 * 8


# --- batches --------------------------------------------------------------------------------------


def test_batches_have_the_shapes_and_types_of_the_configuration(photos):
    config = DataConfig(hr=str(photos), scale=3, patch=21, batch=5)
    for batch in stream(config, 3):
        assert batch["lr"].shape == (5, 7, 7, 3) and batch["lr"].dtype == np.uint8
        assert batch["hr"].shape == (5, 21, 21, 3) and batch["hr"].dtype == np.uint8


def test_the_seed_decides_everything(photos):
    config = DataConfig(hr=str(photos), scale=2, patch=16, batch=4, repeats=1, seed=3)
    assert same(stream(config, 6), stream(config, 6))
    other = DataConfig(hr=str(photos), scale=2, patch=16, batch=4, repeats=1, seed=4)
    assert not same(stream(config, 6), stream(other, 6))


def test_an_epoch_takes_every_image_as_often_as_told_and_drops_the_rest(labels):
    batches = stream(labels, 6)  # two epochs of 3 batches: 7 x 2 patches, of which 2 are dropped
    orders = []
    for epoch in (batches[:3], batches[3:]):
        seen = [int(label) for batch in epoch for label in batch["lr"][:, 0, 0, 0]]
        assert len(seen) == 12 and max(collections.Counter(seen).values()) <= labels.repeats
        orders.append(seen)
    assert orders[0] != orders[1]


def test_epochs_differ_in_places_and_flips_too(labels):
    patches = [p.tobytes() for batch in stream(labels, 30) for p in batch["lr"]]
    assert len(set(patches)) > 0.8 * len(patches)  # out of 8 x 3..9 x 9 per image


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_batches_of_one(labels, count):
    whole = stream(labels, 8)
    parts = [stream(labels, 8, process_index=i, process_count=count) for i in range(count)]
    for step, batch in enumerate(whole):
        for key in ("lr", "hr"):
            for i in range(count):
                np.testing.assert_array_equal(parts[i][step][key], batch[key][i::count])


def test_a_batch_that_processes_cannot_share_is_refused(labels):
    with pytest.raises(ValueError, match="batch of 4 cannot be shared by 3 processes"):
        data.train_batches(labels, process_index=0, process_count=3)


def test_too_few_images_for_a_batch_say_how_many_repeats_fill_one(photos):
    config = DataConfig(hr=str(photos), scale=2, patch=16, batch=16, repeats=2)
    with pytest.raises(ValueError, match="6 images x 2 repeats do not .* raise repeats to 3"):
        data.train_batches(config)


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, 5, 9])
def test_a_restored_state_continues_the_stream(labels, taken):
    first = data.train_batches(labels, process_index=1, process_count=2)
    take(first, taken)
    state = json.dumps(first.get_state())
    expected = take(first, 7)
    second = data.train_batches(labels, process_index=1, process_count=2)
    take(second, 3)  # a used iterator can be set back, too
    second.set_state(json.loads(state))
    assert same(take(second, 7), expected)
    first.close()
    second.close()


def test_a_state_serves_another_number_of_processes(labels):
    whole = stream(labels, 9)
    half = data.train_batches(labels, process_index=1, process_count=2)
    take(half, 4)
    quarter = data.train_batches(labels, process_index=3, process_count=4)
    quarter.set_state(half.get_state())
    np.testing.assert_array_equal(next(quarter)["hr"], whole[4]["hr"][3::4])
    half.close()
    quarter.close()


def test_orbax_saves_and_restores_the_iterator(labels, tmp_path):
    import grain
    import orbax.checkpoint as ocp

    batches = data.train_batches(labels)
    take(batches, 4)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        save_args = grain.checkpoint.CheckpointSave(batches)
        manager.save(4, args=ocp.args.Composite(data=save_args))
        manager.wait_until_finished()
        expected = take(batches, 4)
        fresh = data.train_batches(labels)
        restore_args = grain.checkpoint.CheckpointRestore(fresh)
        manager.restore(4, args=ocp.args.Composite(data=restore_args))
    assert same(take(fresh, 4), expected)
    batches.close()
    fresh.close()


@pytest.mark.slow
def test_worker_processes_give_the_same_stream_and_continue_it(labels):
    import dataclasses

    parallel = dataclasses.replace(labels, workers=2)
    expected = stream(labels, 9)
    batches = data.train_batches(parallel)
    assert same(take(batches, 5), expected[:5])
    state = json.loads(json.dumps(batches.get_state()))
    batches.close()
    again = data.train_batches(parallel)
    again.set_state(state)
    assert same(take(again, 4), expected[5:])
    again.close()


# --- images that cannot be used -------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", 5),
        ("patch", 30),
        ("patch", 0),
        ("batch", 0),
        ("repeats", 0),
        ("memory", -1.0),
        ("workers", -1),
        ("seed", 2**32),
    ],
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        DataConfig(**{field: value})


# --- folders --------------------------------------------------------------------------------------


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


# --- caches ---------------------------------------------------------------------------------------


@pytest.fixture
def degraded(monkeypatch) -> list[tuple]:
    """The arguments of every call of `degrade`."""
    calls = []

    def counted(hr, scale, border):
        calls.append((hr.shape, scale, border))
        return degrade(hr, scale, border=border)

    monkeypatch.setattr(data, "degrade", counted)
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


def test_decoded_images_are_kept_within_the_memory_allowed():
    loads = collections.Counter()

    def load(index):
        loads[index] += 1
        lr = labelled(index, 8, 8)
        return {"lr": lr, "hr": blocks(lr, 2)}

    one = 8 * 8 * 3 * 5
    pairs = data.Pairs([str(i) for i in range(6)], load, room=2.5 * one)
    pairs.leave_out_bad()
    for _ in range(3):
        for i in range(6):
            assert (pairs[i]["lr"][..., 0] == i).all()
    assert sorted(loads.values()) == [1, 1, 4, 4, 4, 4]


def test_memory_does_not_change_the_batches(photos):
    config = DataConfig(hr=str(photos), scale=2, patch=16, batch=4)
    without = DataConfig(hr=str(photos), scale=2, patch=16, batch=4, memory=0)
    assert same(stream(config, 8), stream(without, 8))


# --- TFDS -----------------------------------------------------------------------------------------


def pixels(pairs: data.Pairs) -> set[tuple[bytes, bytes]]:
    return {
        (p["lr"].tobytes(), p["hr"].tobytes()) for p in map(pairs.__getitem__, range(len(pairs)))
    }


def test_a_prepared_folder_gives_the_pairs_of_the_folder(photos, tmp_path):
    name = data.prepare_tfds({"train": photos, "validation": photos / "more"}, tmp_path / "tf", 2)
    config = DataConfig(hr=name, data_dir=str(tmp_path / "tf"), scale=2, patch=16, batch=4)
    folder = DataConfig(hr=str(photos), scale=2, patch=16)
    assert pixels(data.source(config)) == pixels(data.source(folder))
    for batch in stream(config, 3):
        assert batch["lr"].shape == (4, 8, 8, 3) and batch["hr"].shape == (4, 16, 16, 3)
    validation = DataConfig(**vars(config) | {"split": "validation"})
    assert len(data.source(validation)) == 2
    with pytest.raises(ValueError, match="no .* with the split test"):
        data.source(DataConfig(**vars(config) | {"split": "test"}))
    with pytest.raises(ValueError, match=r"hr_folder/bicubic_x2 train\[0\]: HR .* at scale 3"):
        data.source(DataConfig(**vars(config) | {"scale": 3, "patch": 12}))
    with pytest.raises(ValueError, match="exists already"):
        data.prepare_tfds({"train": photos}, tmp_path / "tf", 2)
    assert "tensorflow" not in sys.modules


def test_tfds_states_continue_the_stream(photos, tmp_path):
    name = data.prepare_tfds({"train": photos}, tmp_path / "tf", 3)
    config = DataConfig(hr=name, data_dir=str(tmp_path / "tf"), scale=3, patch=15, batch=4)
    first = data.train_batches(config)
    take(first, 3)
    second = data.train_batches(config)
    second.set_state(first.get_state())
    assert same(take(second, 4), take(first, 4))
    first.close()
    second.close()


def test_catalogued_div2k_is_used_where_it_lies_on_disk(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    pairs = []
    for seed in range(3):
        lr = photo(10, 12 + seed, seed=seed)[0]
        pairs.append((lr, blocks(lr, 4)))
    # Grey files appear in such data sets, too; TFDS decodes them as (h, w) or (h, w, 1).
    pairs.append((pairs[0][0][..., 0], pairs[0][1][..., 0]))

    def examples(*_):
        for k, (lr, hr) in enumerate(pairs):
            yield k, {"lr": data._png(lr), "hr": data._png(hr)}

    builder = tfds.builder_cls("div2k")
    monkeypatch.setattr(builder, "_split_generators", lambda *_: {"train": examples()})
    config = DataConfig(
        hr="tfds:div2k/bicubic_x4", data_dir=str(tmp_path), scale=4, patch=20, batch=2
    )
    with pytest.raises(ValueError, match="no div2k/bicubic_x4 .* nothing is downloaded here"):
        data.source(config)
    builder(
        config="bicubic_x4", data_dir=str(tmp_path), file_format="array_record"
    ).download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    rgb = {(data._as_rgb(lr).tobytes(), data._as_rgb(hr).tobytes()) for lr, hr in pairs}
    assert pixels(data.source(config)) == rgb
    for batch in stream(config, 4):
        np.testing.assert_array_equal(batch["hr"][0], blocks(batch["lr"][0], 4))


def test_tfds_data_with_other_features_or_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no no_such_thing"):
        data.source(DataConfig(hr="tfds:no_such_thing", data_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="has its own low-resolution images"):
        data.source(DataConfig(hr="tfds:div2k/bicubic_x4", lr="folder"))


def test_importing_is_light():
    code = (
        "import sys, isrrescnet_jax.data; print({'grain', 'tensorflow_datasets'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
