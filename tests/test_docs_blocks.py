"""The Python in the pages of docs/ runs as it stands, block after block."""

import jax
import pytest
from conftest import photo
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image
from test_docs import DOCS, PAGES
from test_documents import blocks

RUN = [page for page in PAGES if blocks((DOCS / page).read_text())]


@pytest.fixture
def settings():
    """What a page sets in JAX ends with it."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(24, 32)[0]).save("photo.png")
    for index, image in enumerate(photo(64, 72, n=3)):
        Image.fromarray(image).save(f"photos/{index}.png")
    namespace = {"__name__": "__main__"}
    for index, block in enumerate(blocks((DOCS / page).read_text())):
        exec(compile(block, f"{page}, block {index}", "exec"), namespace)
