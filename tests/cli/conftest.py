from pathlib import Path

import pytest
from conftest import photo
from PIL import Image


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder with two photographs in photos/, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISRRESCNET_CACHE", "")
    Path("photos").mkdir()
    for i, name in enumerate(("bird.png", "castle.bmp")):
        Image.fromarray(photo(9, 12, seed=i)[0]).save(Path("photos") / name)
    return tmp_path
