"""`isrrescnet degrade`."""

import dataclasses
import functools
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from tyro.conf import arg

from .. import cluster, images
from .batch import Done, Files, Job, report
from .fleet import Fleet, on_ray
from .model import read_kernel
from .startup import uncollected
from .streams import STANDARD, encoded, open_film, save


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A picture that was read, what noise it gets, and what the result cannot have of its file."""

    hr: np.ndarray
    seed: int
    icc: bytes | None
    note: str


@dataclasses.dataclass(frozen=True, eq=False)
class Reduced:
    """The result, and of what size the picture was."""

    picture: images.Picture
    shape: tuple[int, ...]
    note: str


@dataclasses.dataclass(frozen=True)
class Degrade(Fleet, Files):
    """Make low-resolution pictures as the benchmarks have them (MATLAB's bicubic imresize)."""

    scale: Annotated[Literal[2, 3, 4], arg(aliases=["-s"])] = 4
    """Factor by which height and width shrink; pictures are cut to multiples of it first."""
    out: Annotated[str | None, arg(aliases=["-o"])] = None
    """Folder for the results, named <stem>.png; for one picture also a file, or -. With --ray also
    an address."""
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
        self.check_nodes()
        if self.ray is not None:
            if self.out is None:
                raise ValueError("name a folder for the results: --out DIR")
            return on_ray(self, self.out, functools.partial(Reducing, self, self._kernel()))
        kernel = self._kernel()
        batch = self.plan(self.out)
        if not batch.jobs:
            return 0
        with uncollected():
            from ..evaluation import degrade as _  # noqa: F401
            from .overlap import overlapped

        def read(job: Job) -> Task:
            return self.task(open_film(job[0]), job[0].name)

        def write(job: Job, result: Reduced) -> Done:
            picture = result.picture
            target = Path(f"-.{self.format or 'png'}") if job[1] == STANDARD else job[1]
            images.check_writable(picture, target)
            film, format = images.Film([picture]), images.format_of(target)
            if not save(film, job[1], format, self.overwrite):
                return self.appeared(job)
            height, width = picture.color.shape[:2]
            details = {"width": width, "height": height, "scale": self.scale}
            size = f"{result.shape[1]}x{result.shape[0]}"
            return Done(f"{job[0]} {size} -> {job[1]}", details, result.note)

        compute = functools.partial(self.compute, kernel=kernel)
        return report(batch, overlapped(batch.jobs, read, [compute], write))

    def _kernel(self) -> np.ndarray | None:
        return None if self.kernel is None else read_kernel(self.kernel)

    def task(self, film: images.Film, name: str) -> Task:
        """What to do for a file of this name.

        Raises:
            ValueError: it has transparency.
        """
        several = film.kind != "still"
        note = f"{film.count} pictures in one file: only the first was done" if several else ""
        picture = next(iter(film.pictures))
        if picture.alpha is not None:
            raise ValueError("pictures with transparency cannot be degraded")
        seed = self.seed + zlib.crc32(name.encode())
        return Task(images.to_uint8(picture.color), seed, picture.icc, note)

    def compute(self, task: Task, kernel: np.ndarray | None) -> Reduced:
        """The picture, reduced."""
        from ..evaluation.degrade import degrade

        lr = degrade(task.hr, self.scale, self.border, kernel, self.noise, task.seed)
        picture = images.Picture(lr.astype(np.float32), icc=task.icc)
        return Reduced(picture, task.hr.shape, task.note)


@dataclasses.dataclass(frozen=True, eq=False)
class Reducing:
    """`degrade` for other processes (`cluster.Work`)."""

    options: Degrade
    kernel: np.ndarray | None
    accelerated = False

    def read(self, job: cluster.Job) -> Task:
        """The picture, decoded."""
        film = images.film_of(job.load(), job.source)
        return self.options.task(film, PurePosixPath(job.source).name)

    def ready(self) -> None:
        """Nothing is needed."""

    def compute(self, ready: None, values: Sequence[Task]) -> Iterator[tuple[float, Reduced]]:
        """Reduced."""
        for value in values:
            start = time.perf_counter()
            result = self.options.compute(value, self.kernel)
            yield time.perf_counter() - start, result

    def encode(self, job: cluster.Job, result: Reduced) -> tuple[bytes, cluster.Record]:
        """The file, and its size in pixels."""
        images.check_writable(result.picture, job.name)
        height, width = result.picture.color.shape[:2]
        data = encoded(images.Film([result.picture]), images.format_of(job.name))
        return data, cluster.Record(
            job.source, job.name, width=width, height=height, note=result.note
        )
