"""`isrrescnet upscale` without its network, for `fuzz.py`."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from isrrescnet_jax import cli
from isrrescnet_jax.cli import overlap  # noqa: F401 (or every fork imports it anew)
from isrrescnet_jax.cli.model import Model
from isrrescnet_jax.cli.upscale import Upscale

from .fuzz import exit_code


class Nearest:
    """In the place of `Upscaler`: every pixel becomes two by two."""

    operator = type("Twice", (), {"scale": 2})
    max_memory = None
    dtype = "float32"

    def __call__(self, color: np.ndarray) -> np.ndarray:
        large = np.empty((2 * color.shape[0], 2 * color.shape[1], color.shape[2]), np.float32)
        for i in range(4):
            large[i // 2 :: 2, i % 2 :: 2] = color
        return large

    def each(self, colors: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self(color) for color in colors]


def start(_: Path) -> None:
    """Replace the network, and the devices, which nothing is done on then."""
    jax.local_devices = lambda: [None]
    Model.upscaler = lambda *_: Nearest()  # pyright: ignore[reportAttributeAccessIssue]


def run(case: Any, data: bytes, folder: Path) -> tuple[int, Callable[[], bool]]:
    """Exit code, and whether the result is right."""
    source = folder / case.name
    source.write_bytes(data)
    format = random.Random(case.id).choice(("png", "png", "tiff", "webp", "jpg"))
    target = folder / f"out.{format}"
    command = Upscale((str(source),), scale=2, out=str(target), weights="x2")
    cli._command = lambda argv: command
    return exit_code(cli.main, ["upscale"]), lambda: _twice(source, target)


def _twice(source: Path, target: Path) -> bool:
    """Whether one picture is twice as large as another, by what Pillow or tifffile says of both."""
    with Image.open(target) as image:
        found = image.size
        image.load()
    try:
        with Image.open(source) as image:
            expected = image.size
    except UnidentifiedImageError:
        with tifffile.TiffFile(source) as file:
            page = file.pages[0].aspage()
            expected = page.imagewidth, page.imagelength
    return sorted(found) == sorted(2 * side for side in expected)  # EXIF may turn it
