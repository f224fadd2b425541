"""`isrrescnet upscale`."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from .. import images
from .batch import Files, Job, report
from .model import Model
from .startup import uncollected

if TYPE_CHECKING:
    import isrrescnet_jax.upscaler


@dataclasses.dataclass(frozen=True)
class Upscale(Model, Files):
    """Upscale pictures: files, folders, patterns; PNG, JPEG, WebP, TIFF or BMP."""

    scale: Annotated[Literal[2, 3, 4] | None, arg(help_behavior_hint="(default: 4)")] = None
    """Factor by which height and width grow; that of --weights where these are given."""
    out: Path = Path("sr_results")
    """Folder for the results, named <stem>.png."""

    def run(self) -> int:
        """Upscale every picture; 0, or 2 if one failed."""
        plan = self.plan(self.out)
        if not plan:
            return 0
        with uncollected():
            import jax

            from .overlap import overlapped

        devices = jax.local_devices()[: len(plan)]
        upscalers = [self.upscaler(self.scale, device) for device in devices]
        scale = upscalers[0].operator.scale

        def read(job: Job) -> images.Picture:
            source, target = job
            picture = images.read(source)
            images.check_writable(picture, target, scale)  # before the work, not after it
            return picture

        def compute(
            upscaler: "isrrescnet_jax.upscaler.Upscaler", picture: images.Picture
        ) -> tuple[images.Picture, Any]:
            solution = upscaler.trace(picture.color) if self.trace else None
            return upscale_picture(upscaler, picture), solution

        def write(job: Job, result: tuple[images.Picture, Any]) -> str:
            (source, target), (picture, solution) = job, result
            images.write(picture, target)
            if self.trace:
                from ..evaluation.figures import trace_figure

                trace_figure(solution, self.trace / f"{source.stem}_iterates.png")
            height, width = picture.color.shape[:2]
            return f"{source} {width // scale}x{height // scale} -> {target}"

        computes = [functools.partial(compute, upscaler) for upscaler in upscalers]
        return report(plan, overlapped(plan, read, computes, write), self.out)


def upscale_picture(
    upscaler: "isrrescnet_jax.upscaler.Upscaler", picture: images.Picture
) -> images.Picture:
    """A picture upscaled, with its transparency, bit depth and colour profile."""
    from ..transparency import restore

    if picture.alpha is None:
        return dataclasses.replace(picture, color=upscaler(picture.color))
    color, alpha = restore(upscaler, picture.color, picture.alpha)
    return dataclasses.replace(picture, color=color, alpha=alpha)
