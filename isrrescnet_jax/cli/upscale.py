"""`isrrescnet upscale`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from .. import cluster, images
from .batch import Done, Files, Job, report
from .fleet import Fleet, on_ray
from .model import Model
from .startup import uncollected
from .streams import STANDARD, encoded, open_film, save

if TYPE_CHECKING:
    import isrrescnet_jax.upscaler


@dataclasses.dataclass(frozen=True)
class Task:
    """A file that was read, and what its result cannot have of it."""

    film: images.Film
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Ready:
    """A network, and what results say of it."""

    upscaler: "isrrescnet_jax.upscaler.Upscaler"
    software: str | None


@dataclasses.dataclass(frozen=True)
class Upscale(Model, Fleet, Files):
    """Upscale pictures: files, folders, patterns; PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF."""

    scale: Annotated[
        Literal[2, 3, 4] | None, arg(aliases=["-s"], help_behavior_hint="(default: 4)")
    ] = None
    """Factor by which height and width grow; that of --weights where these are given."""
    out: Annotated[str | None, arg(aliases=["-o"], help_behavior_hint="(default: sr_results)")] = (
        None
    )
    """Folder for the results, named <stem>.png; for one picture also a file, or - for standard
    output, which is the default for pictures from standard input. With --ray also an address."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the network's features. auto: bfloat16 on GPUs and TPUs, where it is faster."""
    strip: bool = False
    """Leave out what the pictures say about themselves: EXIF and its position, XMP, text, DPI."""
    record: bool = True
    """Note program, version, weights and options in the results."""

    def run(self) -> int:
        """Upscale every picture; 0, or 2 if one failed."""
        if self.dry_run:
            self.upscaler(self.scale)  # whether weights and options fit
        if self.ray is not None:
            if self.trace:
                raise ValueError("--trace is not for --ray")
            return on_ray(self, self.out or "sr_results", self.work)
        batch = self.plan(self.out, Path("sr_results"), self.trace)
        if not batch.jobs:
            return 0
        with uncollected():
            import jax

            from .overlap import overlapped

        devices = jax.local_devices()[: len(batch.jobs)]
        readies = [self.ready(device) for device in devices]
        upscaler = readies[0].upscaler
        scale = upscaler.operator.scale
        if self.dtype == "auto" and (chosen := upscaler.dtype) != Model.dtype:
            kind = devices[0].device_kind
            print(f"features in {chosen}, which is faster on {kind}", file=batch.messages)

        def read(job: Job) -> Task | None:
            source, target = job
            if self.skip_existing and target.exists():
                return None  # by another process, since this one began
            return self.task(open_film(source), self._named(target), scale)

        def compute(ready: Ready, task: Task | None) -> tuple[Task, Any] | None:
            return None if task is None else self.compute(ready, task)

        def write(job: Job, result: tuple[Task, Any] | None) -> Done:
            source, target = job
            if result is None:
                return self.appeared(job)
            task, solution = result
            format = images.format_of(self._named(target))
            if not save(task.film, target, format, self.overwrite):
                return self.appeared(job)
            if source in batch.figures:
                from ..evaluation.figures import trace_figure

                trace_figure(solution, batch.figures[source])
            height, width = next(iter(task.film.pictures)).color.shape[:2]
            frames = f", {task.film.contents}" * (task.film.kind != "still")
            line = f"{source} {width // scale}x{height // scale} -> {target}{frames}"
            details = {"width": width, "height": height, "scale": scale, "count": task.film.count}
            details["dtype"] = upscaler.dtype
            return Done(line, details, task.note)

        computes: list[Callable] = [functools.partial(compute, each) for each in readies]
        return report(batch, overlapped(batch.jobs, read, computes, write))

    def ready(self, device: Any = None) -> Ready:
        """The network on a device."""
        upscaler = self.upscaler(self.scale, device)
        return Ready(upscaler, self.software(upscaler) if self.record else None)

    def task(self, film: images.Film, target: Path, scale: int) -> Task:
        """What to do for a file, if there is room for it."""
        if film.size is not None:
            images.check_room(film.size, scale, self.memory)
        return prepared(film, target, scale)

    def compute(self, ready: Ready, task: Task) -> tuple[Task, Any]:
        """The same with the pictures enlarged, and the iterates of the first if asked for."""
        upscaler, pictures, trace = ready.upscaler, [], None
        scale = upscaler.operator.scale
        for picture in task.film.pictures:
            if self.trace and trace is None:
                trace = upscaler.trace(picture.color)
            options: dict[str, Any] = {"software": ready.software, "strip": self.strip}
            result = images.enlarged(upscaler, picture, scale, **options)
            eight = result.bits == 8 or task.film.kind == "animation"
            pictures.append(images.rounded(result) if eight else result)
        film = dataclasses.replace(task.film, pictures=pictures)
        return dataclasses.replace(task, film=film), trace

    def work(self) -> "Enlarging":
        """What is done where Ray is; without a device here."""
        from ..weights import load_weights

        weights = load_weights(self.weights or f"x{self.scale or 4}")
        return Enlarging(self.anywhere(), self.scale or weights.config.scale or 4)

    def _named(self, target: Path) -> Path:
        """The output with a suffix that says its format."""
        return Path(f"-.{self.format or 'png'}") if target == STANDARD else target


@dataclasses.dataclass(frozen=True)
class Enlarging:
    """`upscale` for other processes (`cluster.Work`)."""

    options: Upscale
    scale: int
    accelerated = True

    def read(self, job: cluster.Job) -> Task:
        """The pictures of a file, decoded."""
        film = images.film_of(job.load(), job.source)
        task = self.options.task(film, Path(job.name), self.scale)
        pictures = [images.rounded(p) if p.bits == 8 else p for p in task.film.pictures]
        return dataclasses.replace(task, film=dataclasses.replace(task.film, pictures=pictures))

    def ready(self) -> Ready:
        """The network, on the device of this process."""
        return self.options.ready()

    def compute(self, ready: Ready, value: Task) -> Task:
        """Enlarged."""
        return self.options.compute(ready, value)[0]

    def encode(self, job: cluster.Job, result: Task) -> tuple[bytes, cluster.Record]:
        """The file, and its size in pixels."""
        height, width = next(iter(result.film.pictures)).color.shape[:2]
        data = encoded(result.film, images.format_of(job.name))
        return data, cluster.Record(
            job.source, job.name, width=width, height=height, note=result.note
        )


def prepared(film: images.Film, target: Path, scale: int) -> Task:
    """What to do for a file, checked before the work and not after it."""
    pictures = iter(film.pictures)
    first = next(pictures)
    images.check_writable(first, target, scale)
    format = images.format_of(target)
    if images.holds(format, film.kind):
        film = dataclasses.replace(film, pictures=itertools.chain([first], pictures))
        return Task(film)
    holder = "tiff" if film.kind == "pages" else "png or webp"
    note = (
        f"{film.contents}, of which {format} holds one: only the first was done; "
        f"--format {holder} does all"
    )
    return Task(images.Film([first]), note)
