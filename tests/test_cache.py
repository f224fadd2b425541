import os

import pytest
from commands import fails, run

from isrrescnet_jax.cache import cache_limit, cache_size, clear_cache, limit_cache


@pytest.fixture
def folder(tmp_path):
    """Ten files of 1000 bytes, the first one used last of all."""
    for i in range(10):
        path = tmp_path / "lr" / f"{i}.png" if i % 2 else tmp_path / f"jit_f-{i}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (100 + i, 50))
    os.utime(tmp_path / "jit_f-0-cache", (1000, 50))
    return tmp_path


def test_what_was_not_used_for_longest_goes_first(folder):
    assert cache_size(folder) == 10000 and limit_cache(folder, 10000) == 0
    assert limit_cache(folder, 4500) == 6
    left = sorted(p.name for p in folder.rglob("*") if p.is_file())
    assert left == ["7.png", "9.png", "jit_f-0-cache", "jit_f-8-cache"]
    assert clear_cache(folder) == 4000 and cache_size(folder) == 0
    assert limit_cache(folder / "nowhere", 0) == 0


def test_files_of_others_stay(folder):
    others = [folder / "thesis.txt", folder / "lr" / "2026" / "photo.png"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert clear_cache(folder) == 10000 and limit_cache(folder, 0) == 0
    assert all(path.exists() for path in others)


def test_the_limit_can_be_set(monkeypatch):
    monkeypatch.delenv("ISRRESCNET_CACHE_LIMIT", raising=False)
    assert cache_limit() == 5 * 1024**3
    monkeypatch.setenv("ISRRESCNET_CACHE_LIMIT", "800M")
    assert cache_limit() == 800 * 1024**2


def test_the_command_shows_and_clears(folder, monkeypatch, capsys):
    monkeypatch.setenv("ISRRESCNET_CACHE", str(folder))
    assert run("info") == 0
    assert f"{folder}, 0.0 of 5369 MB" in capsys.readouterr().out
    assert run("info", "--clear-cache") == 0
    assert f"MB removed from {folder}" in capsys.readouterr().out
    assert cache_size(folder) == 0
    monkeypatch.setenv("ISRRESCNET_CACHE_LIMIT", "lots")
    assert "$ISRRESCNET_CACHE_LIMIT must be like" in fails(capsys, "info")


def test_low_resolution_images_are_limited(tmp_path, monkeypatch):
    from conftest import photo
    from PIL import Image

    from isrrescnet_jax import data
    from isrrescnet_jax.data.folders import load_files

    monkeypatch.setenv("ISRRESCNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ISRRESCNET_CACHE_LIMIT", "3000")
    (tmp_path / "hr").mkdir()
    files = []
    for i in range(8):
        path = tmp_path / "hr" / f"{i}.png"
        Image.fromarray(photo(24, 24, seed=i)[0]).save(path)
        files.append((path, None))
    # As if each were the one in 256 that looks at the size.
    monkeypatch.setattr("isrrescnet_jax.data.folders._LOOKS", "")
    config = data.DataConfig(hr=str(tmp_path / "hr"), scale=2, patch=8)
    for i in range(8):
        load_files(files, config, i)
        assert cache_size(tmp_path / "cache") <= 3000
    assert cache_size(tmp_path / "cache") > 0
