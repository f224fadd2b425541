"""The Python in README.md and CONTRIBUTING.md runs as it stands, block after block."""

import re
from pathlib import Path

import pytest
from blocks import blocks, run
from conftest import photo
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(9, 10)[0]).save("photo.png")
    assert blocks((ROOT / name).read_text())
    run(ROOT / name)


def test_relative_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md"):
        path = ROOT / name
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{name}: {link}"
