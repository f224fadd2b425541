from pathlib import Path

import pytest
from conftest import photo
from PIL import Image
from training_images import blocks, labelled, save

from isrrescnet_jax.data import DataConfig


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
