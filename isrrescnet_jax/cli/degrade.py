"""`isrrescnet degrade`."""

import dataclasses
import zlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import arg

from .. import images
from .batch import Done, Files, Job, report
from .model import read_kernel
from .startup import uncollected
from .streams import STANDARD, open_film, save


@dataclasses.dataclass(frozen=True)
class Degrade(Files):
    """Make low-resolution pictures as the benchmarks have them (MATLAB's bicubic imresize)."""

    scale: Annotated[Literal[2, 3, 4], arg(aliases=["-s"])] = 4
    """Factor by which height and width shrink; pictures are cut to multiples of it first."""
    out: Annotated[str | None, arg(aliases=["-o"])] = None
    """Folder for the results, named <stem>.png; for one picture also a file, or -."""
    border: Literal["symmetric", "replicate"] = "symmetric"
    """Beyond its edge a picture is mirrored, or its edge pixels are repeated."""
    kernel: Path | None = None
    """Blur before reducing: a .npy file, (k, k) with odd k."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise added at the end, in grey levels."""
    seed: int = 0
    """Of the noise, which also depends on the picture's file name."""

    def run(self) -> int:
        """Reduce every picture; 0, or 2 if one failed."""
        batch = self.plan(self.out)
        if not batch.jobs:
            return 0
        with uncollected():
            from ..evaluation.degrade import degrade
            from .overlap import overlapped

        kernel = None if self.kernel is None else read_kernel(self.kernel)

        notes: dict[Job, str] = {}

        def read(job: Job) -> tuple[int, np.ndarray, bytes | None]:
            film = open_film(job[0])
            if film.kind != "still":
                notes[job] = f"{film.count} pictures in one file: only the first was done"
            picture = next(iter(film.pictures))
            if picture.alpha is not None:
                raise ValueError("pictures with transparency cannot be degraded")
            seed = self.seed + zlib.crc32(job[0].name.encode())
            return seed, images.to_uint8(picture.color), picture.icc

        def compute(
            value: tuple[int, np.ndarray, bytes | None],
        ) -> tuple[tuple[int, ...], images.Picture]:
            seed, hr, icc = value
            lr = degrade(hr, self.scale, self.border, kernel, self.noise, seed)
            return hr.shape, images.Picture(lr.astype(np.float32), icc=icc)

        def write(job: Job, result: tuple[tuple[int, ...], images.Picture]) -> Done:
            shape, picture = result
            target = Path(f"-.{self.format or 'png'}") if job[1] == STANDARD else job[1]
            images.check_writable(picture, target)
            film, format = images.Film([picture]), images.format_of(target)
            if not save(film, job[1], format, self.overwrite):
                return self.appeared(job)
            height, width = picture.color.shape[:2]
            details = {"width": width, "height": height, "scale": self.scale}
            return Done(f"{job[0]} {shape[1]}x{shape[0]} -> {job[1]}", details, notes.get(job, ""))

        return report(batch, overlapped(batch.jobs, read, [compute], write))
