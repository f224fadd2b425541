"""Rules of the house: short files, rooms with names that say what they hold, a light import."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("isrrescnet_jax", "convert", "experiments", "tests")
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]

AT_IMPORT = """
import sys
import isrrescnet_jax
from jax._src import xla_bridge
loaded = {"torch", "optax", "matplotlib"} & set(sys.modules)
assert not loaded, loaded
assert not xla_bridge.backends_are_initialized()
"""


def test_no_file_is_long():
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in SOURCES}
    assert len(SOURCES) > 100 and not {name: n for name, n in long.items() if n > 400}


def test_no_module_is_a_drawer_for_everything():
    assert not [path for path in SOURCES if "utils" in (path.stem, path.parent.name)]


def test_importing_the_library_loads_little_and_starts_no_backend():
    subprocess.run(
        [sys.executable, "-c", AT_IMPORT], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
    )


def test_the_annotations_are_for_others_too():
    assert (ROOT / "isrrescnet_jax" / "py.typed").exists()
