"""The Python in the pages of docs/ runs as it stands, block after block."""

import os
import re
import subprocess
import sys

import blocks
import jax
import pytest
from conftest import photo
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image
from test_docs import DOCS, PAGES, ROOT

RUN = [page for page in PAGES if blocks.blocks((DOCS / page).read_text())]
STEPS = "40"  # of the run in tutorials/minutes.md, which says so


@pytest.fixture
def settings():
    """What a page sets in JAX ends with it."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def start(text: str) -> dict[str, str]:
    """The environment in which a page wants Python to be started, if in one of its own."""
    found = re.search(r"^    (\w+)=(\S+) ipython$", text, re.MULTILINE)
    return {found[1]: found[2]} if found else {}


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", STEPS)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(24, 32)[0]).save("photo.png")
    for index, image in enumerate(photo(64, 72, n=3)):
        Image.fromarray(image).save(f"photos/{index}.png")
    wanted = start((DOCS / page).read_text())
    if not wanted:
        blocks.run(DOCS / page)
        return
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    given = {name: f"{os.environ.get(name, '')} {value}".strip() for name, value in wanted.items()}
    subprocess.run(
        [sys.executable, blocks.__file__, DOCS / page],
        env=os.environ | given | {"PYTHONPATH": path},
        check=True,
    )
