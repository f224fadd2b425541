"""Names of the hub, and files in its cache. No network: the cache is a folder made here."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import fails, run
from conftest import photo
from PIL import Image

import isrrescnet_jax as isr
from isrrescnet_jax import hub
from isrrescnet_jax.weights import as_bytes

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch, small) -> Path:
    """What `huggingface_hub` would have kept of user/nets: the main branch, tag v1, two files."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    repository = tmp_path / "cache" / "models--user--nets"
    snapshot = repository / "snapshots" / COMMIT
    for file in ("model.safetensors", "parts/x2.safetensors"):
        path = snapshot / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(small, {"note": file}))
    (repository / "refs").mkdir()
    for name in ("main", "v1"):
        (repository / "refs" / name).write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "name, parts",
    [
        ("hf://user/x4", ("user/x4", None, "model.safetensors")),
        ("hf://user/x4@v1.0", ("user/x4", "v1.0", "model.safetensors")),
        (f"hf://u-1/n_2.b@{COMMIT}/a/b.safetensors", ("u-1/n_2.b", COMMIT, "a/b.safetensors")),
    ],
)
def test_names(name, parts):
    assert hub.is_name(name) and hub.parse(name) == parts


@pytest.mark.parametrize(
    "name",
    [
        "hf://",
        "hf://x4",
        "hf://a/b/c.pth",
        "hf://a/b@",
        "hf://a/b@x/../c.safetensors",
        "hf://a/b c",
    ],
)
def test_what_is_no_name(name):
    with pytest.raises(ValueError, match="a name of the hub is hf://user/name"):
        isr.load_weights(name)


def test_nothing_else_is_a_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="no weights named 'user/nets' are shipped"):
        isr.load_weights("user/nets")
    with pytest.raises(FileNotFoundError):
        isr.load_weights("user/nets.safetensors")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'isrrescnet-jax\[hub\]'"):
        isr.load_weights("hf://user/nets")


@pytest.mark.parametrize(
    "name", ["hf://user/nets", "hf://user/nets@v1/parts/x2.safetensors", f"hf://user/nets@{COMMIT}"]
)
def test_weights_of_the_cache(cache, small, name):
    found = isr.load_weights(name)
    assert found.config == small.config
    jax.tree.map(np.testing.assert_array_equal, found.params, small.params)


@pytest.mark.parametrize(
    "name", ["hf://user/other", "hf://user/nets@v2", "hf://user/nets/none.safetensors"]
)
def test_what_is_not_there_is_one_line(cache, capsys, name, tmp_path):
    with pytest.raises(ValueError, match=f"^{name}: "):
        isr.load_weights(name)
    Image.fromarray(photo(8, 8)[0]).save(tmp_path / "a.png")
    assert name in fails(capsys, "upscale", tmp_path / "a.png", "-w", name, "-o", tmp_path / "big")


def test_the_command_takes_them(cache, tmp_path):
    Image.fromarray(photo(8, 9)[0]).save(tmp_path / "a.png")
    big = tmp_path / "big.png"
    assert run("upscale", tmp_path / "a.png", "-w", "hf://user/nets@v1", "-o", big) == 0
    with Image.open(big) as picture:
        assert picture.size == (18, 16)
        assert "weights model " in picture.info["Software"]
