"""`isrrescnet upscale` as a model of Cog and Replicate (see cog.yaml)."""

import json
import shutil
import tempfile
from pathlib import Path as Folder
from typing import Any

from cog import BaseRunner, Input, Path

from isrrescnet_jax.cli.upscale import Upscale


class Runner(BaseRunner):
    """One picture at a time, by the code of the command line: formats, frames, transparency."""

    last: Folder | None = None  # where the last result lies

    # Cog reads names, types and limits from the text of this signature: literals alone.
    def run(
        self,
        image: Path = Input(
            description="Picture: PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF", accept="image/*"
        ),
        scale: int | None = Input(
            description="Factor by which height and width grow; that of the weights, or 4",
            default=None,
            choices=[2, 3, 4],
        ),
        weights: str | None = Input(
            description="Shipped weights; x2, x3 or x4 for the scale by default, the better ones",
            default=None,
            choices=["x2", "x3", "x4", "x2_k10", "x3_k10", "x4_k10"],
        ),
        iterations: int | None = Input(
            description="Number of iterations; as many as were trained by default",
            default=None,
            ge=1,
            le=100,
        ),
        noise: float | None = Input(
            description="Noise level of the picture in grey levels; estimated by default",
            default=None,
            ge=0,
        ),
        format: str = Input(
            description="File format of the result",
            default="png",
            choices=["png", "jpg", "webp", "tiff", "bmp"],
        ),
    ) -> Path:
        """Upscale a picture.

        Returns:
            The result, which is there until the next one.

        Raises:
            ValueError: the picture cannot be read or upscaled; one line that says why.
        """
        chosen: dict[str, Any] = {"scale": scale, "weights": weights, "format": format}  # by Cog
        if self.last is not None:  # one after the other, in a server that may run for months
            shutil.rmtree(self.last, ignore_errors=True)
        self.last = folder = Folder(tempfile.mkdtemp())
        record = folder / "record.json"
        failed = Upscale(
            inputs=(str(image),),
            out=str(folder),
            json=record,
            iterations=iterations,
            noise="estimate" if noise is None else noise,
            **chosen,
        ).run()
        (done,) = json.loads(record.read_text())["pictures"]
        if failed:
            raise ValueError(done["error"])
        return Path(done["output"])
