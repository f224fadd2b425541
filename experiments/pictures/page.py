"""The picture and the figures that a page of the documentation makes when its Python is run."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .. import harness

ROOT = Path(__file__).parents[2]


def minutes(path: Path) -> None:
    """What tutorials/minutes.md trains; its figures, in JSON, beside the picture."""
    sys.path.insert(0, str(ROOT / "docs"))
    from blocks import run  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("experiments").symlink_to(ROOT / "experiments")
        began = time.perf_counter()
        left = run(ROOT / "docs" / "tutorials" / "minutes.md")
        spent = os.times()
        shutil.copy("five.png", path)
    found = {name: left[name] for name in ("validation", "losses")}
    found |= {"bicubic": float(left["bicubic"]), "parameters": left["parameters"]}
    found |= {"seconds": time.perf_counter() - began}
    found |= {"processor_seconds": sum(spent[:4])}
    harness.write_json(path.with_suffix(".json"), found, "jax", "scikit-image")
