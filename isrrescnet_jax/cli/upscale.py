"""`isrrescnet upscale`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from .. import images
from .batch import Done, Files, Job, report
from .model import Model
from .startup import uncollected
from .streams import STANDARD, open_film, save

if TYPE_CHECKING:
    import isrrescnet_jax.upscaler


@dataclasses.dataclass(frozen=True)
class Task:
    """A file that was read, and what its result cannot have of it."""

    film: images.Film
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Upscale(Model, Files):
    """Upscale pictures: files, folders, patterns; PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF."""

    scale: Annotated[
        Literal[2, 3, 4] | None, arg(aliases=["-s"], help_behavior_hint="(default: 4)")
    ] = None
    """Factor by which height and width grow; that of --weights where these are given."""
    out: Annotated[Path | None, arg(aliases=["-o"], help_behavior_hint="(default: sr_results)")] = (
        None
    )
    """Folder for the results, named <stem>.png; for one picture also a file, or - for standard
    output, which is the default for pictures from standard input."""
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
        batch = self.plan(self.out, Path("sr_results"), self.trace)
        if not batch.jobs:
            return 0
        with uncollected():
            import jax

            from .overlap import overlapped

        devices = jax.local_devices()[: len(batch.jobs)]
        upscalers = [self.upscaler(self.scale, device) for device in devices]
        scale = upscalers[0].operator.scale
        software = self.software(upscalers[0]) if self.record else None
        if self.dtype == "auto" and (chosen := upscalers[0].dtype) != Model.dtype:
            kind = devices[0].device_kind
            print(f"features in {chosen}, which is faster on {kind}", file=batch.messages)

        def read(job: Job) -> Task | None:
            source, target = job
            if self.skip_existing and target.exists():
                return None  # by another process, since this one began
            film = open_film(source)
            if film.size is not None:
                images.check_room(film.size, scale, upscalers[0].max_memory)
            return prepared(film, self._named(target), scale)

        def compute(
            upscaler: "isrrescnet_jax.upscaler.Upscaler", task: Task | None
        ) -> tuple[Task, Any] | None:
            if task is None:
                return None
            pictures = []
            trace = None
            for picture in task.film.pictures:
                if self.trace and trace is None:
                    trace = upscaler.trace(picture.color)
                options: dict[str, Any] = {"software": software, "strip": self.strip}
                result = images.enlarged(upscaler, picture, scale, **options)
                eight = result.bits == 8 or task.film.kind == "animation"
                pictures.append(images.rounded(result) if eight else result)
            return dataclasses.replace(
                task, film=dataclasses.replace(task.film, pictures=pictures)
            ), trace

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
            details["dtype"] = upscalers[0].dtype
            return Done(line, details, task.note)

        computes: list[Callable] = [functools.partial(compute, each) for each in upscalers]
        return report(batch, overlapped(batch.jobs, read, computes, write))

    def _named(self, target: Path) -> Path:
        """The output with a suffix that says its format."""
        return Path(f"-.{self.format or 'png'}") if target == STANDARD else target


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
