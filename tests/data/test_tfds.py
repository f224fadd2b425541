import io
import sys

import numpy as np
import pytest
from conftest import photo
from PIL import Image
from training_images import blocks, same, stream, take

from isrrescnet_jax import data
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.images import as_rgb


def png(image: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


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
    import tensorflow_datasets

    pairs = []
    for seed in range(3):
        lr = photo(10, 12 + seed, seed=seed)[0]
        pairs.append((lr, blocks(lr, 4)))
    # Grey files appear in such data sets, too; TFDS decodes them as (h, w) or (h, w, 1).
    pairs.append((pairs[0][0][..., 0], pairs[0][1][..., 0]))

    def examples(*_):
        for k, (lr, hr) in enumerate(pairs):
            yield k, {"lr": png(lr), "hr": png(hr)}

    builder = tensorflow_datasets.builder_cls("div2k")
    monkeypatch.setattr(builder, "_split_generators", lambda *_: {"train": examples()})
    config = DataConfig(
        hr="tfds:div2k/bicubic_x4", data_dir=str(tmp_path), scale=4, patch=20, batch=2
    )
    with pytest.raises(ValueError, match="no div2k/bicubic_x4 .* nothing is downloaded here"):
        data.source(config)
    builder(
        config="bicubic_x4", data_dir=str(tmp_path), file_format="array_record"
    ).download_and_prepare(
        download_config=tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
    )
    rgb = {tuple(as_rgb(image).tobytes() for image in pair) for pair in pairs}
    assert pixels(data.source(config)) == rgb
    for batch in stream(config, 4):
        np.testing.assert_array_equal(batch["hr"][0], blocks(batch["lr"][0], 4))


def test_tfds_data_with_other_features_or_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no no_such_thing"):
        data.source(DataConfig(hr="tfds:no_such_thing", data_dir=str(tmp_path)))
    with pytest.raises(ValueError, match="has its own low-resolution images"):
        data.source(DataConfig(hr="tfds:div2k/bicubic_x4", lr="folder"))
