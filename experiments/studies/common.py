"""What the studies share: the command line, pictures, numbers with where they are from, a style.

A study is two functions: `measure(quick)` gives numbers as JSON has them, and `draw(found, path)` a
figure of nothing else. So a figure can be made again from the JSON alone, with `--draw`.
"""

import dataclasses
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jaxtyping import Float, Num
from PIL import Image

from isrrescnet_jax.evaluation import metrics
from isrrescnet_jax.files import atomic_path

from .. import harness

# Okabe and Ito's colours, which those see as different who do not see red or green.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#868e96"
DPI = 110  # of all figures

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """How a study is run.

    Attributes:
        quick: smaller, in less than half a minute; into files of their own, NAME_quick.
        draw: measure nothing, and draw the figure of the numbers that are there.
        out: folder for the JSON and the figure.
    """

    quick: bool = False
    draw: bool = False
    out: Path = Path(__file__).parent


def run(
    name: str,
    measure: Callable[[bool], Found],
    draw: Callable[[Found, Path], None],
    options: Options | None = None,
) -> Found:
    """Measure, write the JSON, draw the figure; what was found.

    Args:
        name: of the files.
        measure, draw: the study.
        options: those of the command line by default.
    """
    options = tyro.cli(Options) if options is None else options
    path = options.out / (f"{name}_quick.json" if options.quick else f"{name}.json")
    if not options.draw:
        harness.write_json(path, rounded(measure(options.quick)), "jax", "optax", "lineax")
    found = json.loads(path.read_text())["rows"]
    draw(found, path.with_suffix(".png"))
    return found


def rounded(value: Any, digits: int = 5) -> Any:
    """Plain numbers of so many digits; what is not finite becomes None, as JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, digits) for part in value]
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return rounded(np.asarray(value).tolist(), digits)
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds that it takes."""
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


# --- pictures -------------------------------------------------------------------------------------


def colour(name: str) -> Num[np.ndarray, "h w *c"]:
    """A photograph that comes with scikit-image."""
    from skimage import data

    return np.asarray(getattr(data, name)())


def grey(name: str, side: int, top: int = 0, left: int = 0) -> Float[np.ndarray, "1 h w 1"]:
    """A square of such a photograph, halved, grey, values in [0, 255]."""
    image = colour(name).astype(np.float32)
    image = image @ np.array([0.299, 0.587, 0.114], np.float32) if image.ndim == 3 else image
    part = image[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
    if part.shape != (2 * side, 2 * side):
        raise ValueError(f"{name} has no {side} halved pixels from ({top}, {left})")
    return part.reshape(1, side, 2, side, 2, 1).mean((2, 4))


def psnr(a: Any, b: Any) -> float:
    """Of a batch of images, as if they were one."""
    return metrics.psnr(np.concatenate(np.asarray(a)), np.concatenate(np.asarray(b)))


# --- figures --------------------------------------------------------------------------------------


def figure(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, always in two dimensions."""
    made = blank(width, height)
    return made, made.subplots(rows, columns, squeeze=False, **options)


def blank(width: float, height: float) -> Any:
    """A figure in inches, not of pyplot, which would keep it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain(axis: Any) -> None:
    """1, 2, 5, 10, ... as they are along a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def shown(values: Any, least: float = 1e-12) -> np.ndarray:
    """For a logarithmic axis: what is missing, or no more than rounding, is left out."""
    numbers = np.array([np.nan if value is None else value for value in values])
    return np.where(numbers > least, numbers, np.nan)


def label(axes: Any, title: str, x: str, y: str, legend: bool = True) -> None:
    """Title, both axes, a faint grid and a small legend."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dee2e6", lw=0.6)
    axes.set_axisbelow(True)
    if legend:
        axes.legend(fontsize=7, framealpha=0.9)


def save(figure: Any, path: Path, colours: int | None = 256) -> None:
    """As PNG, of so many colours; 256 are half of the bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    image = Image.open(buffer).convert("RGB")
    if colours is not None:
        image = image.quantize(colours, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        image.save(temporary, format="png", optimize=True)
