"""`isrrescnet upscale`."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
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

_VALUES = 1 << 22  # of pictures that are enlarged together; their results take 64 bytes for each


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
    batch: int | Literal["auto"] = "auto"
    """With --ray: pictures of about one size that a device computes at once. auto: one on CPUs."""
    strip: bool = False
    """Leave out what the pictures say about themselves: EXIF and its position, XMP, text, DPI."""
    record: bool = True
    """Note program, version, weights and options in the results."""

    def run(self) -> int:
        """Upscale every picture; 0, or 2 if one failed."""
        self.check_nodes()
        if self.ray is None and self.batch != "auto":
            raise ValueError(f"--batch {self.batch} is for --ray")
        if self.batch != "auto" and self.batch < 1:
            raise ValueError(f"--batch must be at least 1, not {self.batch}")
        if self.dry_run:
            self.upscaler(self.scale, None, self.batch)  # whether weights and options fit
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
        upscaler = self.upscaler(self.scale, device, self.batch)
        return Ready(upscaler, self.software(upscaler) if self.record else None)

    def task(self, film: images.Film, target: Path, scale: int) -> Task:
        """What to do for a file, if there is room for it."""
        if film.size is not None:
            images.check_room(film.size, scale, self.memory)
        return prepared(film, target, scale)

    def compute(self, ready: Ready, task: Task) -> tuple[Task, Any]:
        """The same with the pictures enlarged, and the iterates of the first if asked for."""
        pictures, trace = [], None
        for picture in task.film.pictures:
            if self.trace and trace is None:
                trace = ready.upscaler.trace(picture.color)
            pictures += self._enlarged(ready, [picture], [task.film.kind])
        film = dataclasses.replace(task.film, pictures=pictures)
        return dataclasses.replace(task, film=film), trace

    def compute_together(self, ready: Ready, tasks: Sequence[Task]) -> list[Task]:
        """The same of several at once, in parts where that would take too much memory."""
        of_each = [list(task.film.pictures) for task in tasks]
        kinds = [t.film.kind for t, pictures in zip(tasks, of_each, strict=True) for _ in pictures]
        flat = [picture for pictures in of_each for picture in pictures]
        parts = _parts(list(zip(flat, kinds, strict=True)), 0 if ready.upscaler.singly else _VALUES)
        enlarged = (
            result for part in parts for result in self._enlarged(ready, *zip(*part, strict=True))
        )
        films = [
            dataclasses.replace(task.film, pictures=[next(enlarged) for _ in pictures])
            for task, pictures in zip(tasks, of_each, strict=True)
        ]
        return [
            dataclasses.replace(task, film=film) for task, film in zip(tasks, films, strict=True)
        ]

    def _enlarged(
        self, ready: Ready, pictures: Sequence[images.Picture], kinds: Sequence[str]
    ) -> list[images.Picture]:
        """Pictures of films of these kinds."""
        upscaler = ready.upscaler
        options: dict[str, Any] = {"software": ready.software, "strip": self.strip}
        results = images.enlarged_together(
            upscaler.each, pictures, upscaler.operator.scale, **options
        )
        return [
            images.rounded(result) if result.bits == 8 or kind == "animation" else result
            for result, kind in zip(results, kinds, strict=True)
        ]

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

    def compute(self, ready: Ready, values: Sequence[Task]) -> Iterator[tuple[float, Task]]:
        """Enlarged; together where the device is the better for it, and seconds are shared."""
        groups = [[value] for value in values] if ready.upscaler.singly else [values]
        for group in groups:
            start = time.perf_counter()
            results = self.options.compute_together(ready, group)
            seconds = (time.perf_counter() - start) / len(group)
            yield from ((seconds, result) for result in results)

    def encode(self, job: cluster.Job, result: Task) -> tuple[bytes, cluster.Record]:
        """The file, and its size in pixels."""
        height, width = next(iter(result.film.pictures)).color.shape[:2]
        data = encoded(result.film, images.format_of(job.name))
        return data, cluster.Record(
            job.source, job.name, width=width, height=height, note=result.note
        )


def _parts(
    items: Sequence[tuple[images.Picture, str]], most: int
) -> Iterator[list[tuple[images.Picture, str]]]:
    """Pictures of at most so many values, or one, whose results are not rounded yet at a time."""
    part, size = [], 0
    for item in items:
        more = item[0].color.size
        if part and size + more > most:
            yield part
            part, size = [], 0
        part.append(item)
        size += more
    if part:
        yield part


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
