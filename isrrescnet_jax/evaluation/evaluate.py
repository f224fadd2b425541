"""A model measured on folders of images: PSNR and SSIM in the way of the papers.

Two protocols, always both: `paper` measures the whole image, as the ISRResCNet paper did, and
`standard` leaves out a border as wide as the scale, as EDSR, RCAN and BasicSR do. What is measured
is the picture as it would be saved, rounded to uint8.
"""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from .. import images
from ..config import SCALES
from ..messages import one_line
from . import metrics
from .degrade import Border, degrade, modcrop, resize
from .names import match
from .origin import Difference, difference, remark

PROTOCOLS = ("paper", "standard")

Model = Callable[[Float[np.ndarray, "h w 3"]], Float[np.ndarray, "H W 3"]]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One data set at one scale.

    Attributes:
        hr: folder of the high-resolution images.
        lr: folder of the low-resolution ones; None makes them by `degrade`.
        scale: factor between the two.
        border: of `degrade`, where it is used.
    """

    hr: Path
    lr: Path | None
    scale: int
    border: Border = "symmetric"

    @property
    def name(self) -> str:
        """The folder's name, or the nearest one above it that is more than "HR" or "x4"."""
        parts = [part for part in self.hr.resolve().parts if not _ROLE.fullmatch(part)]
        return parts[-1] if len(parts) > 1 else str(self.hr)


_ROLE = re.compile(r"x\d|HR|GT|GTmod\d*|original|image_SRF_\d", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Score:
    """One image, or the mean of several, under one protocol.

    Attributes:
        psnr: on Y, in dB; infinite for equal images.
        ssim: on Y.
        psnr_rgb: over the three colour channels, in dB.
    """

    psnr: float
    ssim: float
    psnr_rgb: float


@dataclasses.dataclass(frozen=True)
class Row:
    """The scores of one image by protocol, of the model and of bicubic interpolation.

    Attributes:
        image: stem of the high-resolution image.
        model, bicubic: protocol -> score.
        seconds: what the model took.
    """

    image: str
    model: dict[str, Score]
    bicubic: dict[str, Score]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Attributes:
        benchmark: what was measured.
        rows: by image, in the order of names.
        problems: one line for each image that could not be measured or found no partner.
        remark: one line if the given LR images are not what papers measure on, else nothing.
        overlooked: files in the folders that look like images, but are not read.
    """

    benchmark: Benchmark
    rows: list[Row]
    problems: list[str]
    remark: str = ""
    overlooked: tuple[Path, ...] = ()

    @property
    def mean(self) -> Row:
        """The mean over the images of everything."""

        def mean(scores: list[Score]) -> Score:
            return Score(*map(fmean, zip(*map(dataclasses.astuple, scores), strict=True)))

        return Row(
            "mean",
            {p: mean([row.model[p] for row in self.rows]) for p in PROTOCOLS},
            {p: mean([row.bicubic[p] for row in self.rows]) for p in PROTOCOLS},
            fmean(row.seconds for row in self.rows),
        )


def benchmarks(
    hr: Sequence[str | os.PathLike],
    lr: Sequence[str | os.PathLike],
    scales: Sequence[int],
    border: Border = "symmetric",
) -> list[Benchmark]:
    """Data sets and scales as they are named on a command line.

    As many scales as HR folders belong together in order, and so do as many LR folders; one scale
    serves all folders. Without LR folders, one HR folder serves all scales.

    Raises:
        ValueError: numbers that do not go together, or an unknown scale.
    """
    if unknown := [scale for scale in scales if scale not in SCALES]:
        raise ValueError(f"scale must be one of {SCALES}, not {unknown[0]}")
    if len(scales) == 1:
        scales = list(scales) * len(hr)
    elif len(hr) == 1 and not lr:
        hr = list(hr) * len(scales)
    if not hr or len(hr) != len(scales) or len(lr) not in (0, len(hr)):
        raise ValueError(
            f"{len(hr)} HR folders, {len(lr)} LR folders and {len(scales)} scales do not pair up: "
            "give one scale, or one for each HR folder, and no LR folder or one for each"
        )
    return [
        Benchmark(Path(h), Path(low) if low else None, scale, border)
        for h, low, scale in zip(hr, lr or [None] * len(hr), scales, strict=True)
    ]


def evaluate(
    benchmark: Benchmark,
    model: Model,
    *,
    warm_up: bool = False,
    each: Callable[[Row, dict[str, np.ndarray]], Any] | None = None,
) -> Report:
    """Measure a model on one data set.

    Grey images count as RGB with equal channels; transparency is ignored; 16-bit images are rounded
    to 8. HR images are cut to a multiple of the scale. An image that fails is a problem in the
    report and does not stop the others.

    Args:
        benchmark: the folders and the scale.
        model: takes an LR image in [0, 255], float32 (h, w, 3), to the HR one, (s h, s w, 3).
        warm_up: run the model on each image once more, untimed, before: compiling is not counted.
        each: called after each image with its row and the uint8 images "hr", "lr", "bicubic", "sr".

    Raises:
        FileNotFoundError, ValueError: a folder that is not there or has no images, or not one HR
            image with an LR image of its name.
    """
    pairs, problems, overlooked = pairs_of(benchmark)
    measured = []
    for hr_path, lr_path in pairs:
        try:
            hr, lr = load(hr_path, lr_path, benchmark)
            row, pictures = measure(hr_path.stem, hr, lr, benchmark.scale, model, warm_up)
            apart = difference(hr, lr, benchmark.scale) if lr_path else None
            measured.append((row, lr_path, apart))
            if each is not None:
                each(row, pictures)
        # JAX raises RuntimeError where memory runs out.
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            problems.append(one_line(error, hr_path))
    return summary(benchmark, measured, problems, overlooked)


def summary(
    benchmark: Benchmark,
    measured: Sequence[tuple[Row, Path | None, Difference | None]],
    problems: list[str],
    overlooked: tuple[Path, ...],
) -> Report:
    """The report: rows in order, with their LR files and how these differ from `degrade`'s."""
    differences = {lr.name: apart for _, lr, apart in measured if lr and apart}
    rows = [row for row, _, _ in measured]
    said = remark(differences, benchmark.lr or "", len(rows), benchmark.scale)
    return Report(benchmark, rows, problems, said, overlooked)


def load(
    hr_path: Path, lr_path: Path | None, benchmark: Benchmark
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "h w 3"]]:
    """A pair of pictures; the LR one is made if it has no file.

    Raises:
        OSError, ValueError: they cannot be read, or their sizes do not go together.
    """
    scale = benchmark.scale
    hr = modcrop(images.read_rgb(hr_path), scale)
    if lr_path is None:
        return hr, degrade(hr, scale, benchmark.border)
    lr = images.read_rgb(lr_path)
    if hr.shape != (lr.shape[0] * scale, lr.shape[1] * scale, 3):
        raise ValueError(
            f"{hr_path} ({hr.shape[1]}x{hr.shape[0]} when cut to a multiple of {scale}) is not "
            f"{scale} times {lr_path} ({lr.shape[1]}x{lr.shape[0]})"
        )
    return hr, lr


def measure(
    name: str,
    hr: UInt8[np.ndarray, "H W 3"],
    lr: UInt8[np.ndarray, "h w 3"],
    scale: int,
    model: Model,
    warm_up: bool,
) -> tuple[Row, dict[str, np.ndarray]]:
    """The scores of a model on one pair, and the pictures "hr", "lr", "bicubic" and "sr".

    Raises:
        ValueError: the model's picture is of another size, or not finite.
    """
    color = lr.astype(np.float32)
    if warm_up:
        model(color)
    start = time.perf_counter()
    sr = np.asarray(model(color))
    seconds = time.perf_counter() - start
    if sr.shape != hr.shape:
        raise ValueError(f"the model gave an image of shape {sr.shape}, not {hr.shape}")
    if not np.isfinite(sr).all():
        raise ValueError("the model gave values that are not finite")
    sr, bicubic = images.to_uint8(sr), resize(lr, *hr.shape[:2])
    row = Row(name, _scores(sr, hr, scale), _scores(bicubic, hr, scale), seconds)
    return row, {"hr": hr, "lr": lr, "bicubic": bicubic, "sr": sr}


def _scores(
    image: UInt8[np.ndarray, "h w 3"], truth: UInt8[np.ndarray, "h w 3"], scale: int
) -> dict[str, Score]:
    y, y_truth = metrics.luma(image), metrics.luma(truth)
    return {
        protocol: Score(
            metrics.psnr(y, y_truth, crop),
            metrics.ssim(y, y_truth, crop),
            metrics.psnr(image, truth, crop),
        )
        for protocol, crop in zip(PROTOCOLS, (0, scale), strict=True)
    }


def pairs_of(
    benchmark: Benchmark,
) -> tuple[Sequence[tuple[Path, Path | None]], list[str], tuple[Path, ...]]:
    """HR and LR files of the same name, a line about each without partner, and what is not read."""
    found = images.search([benchmark.hr])
    hr = found.files
    if benchmark.lr is None:
        return [(path, None) for path in hr], [], found.overlooked
    lr = images.search([benchmark.lr])
    pairs, problems = match(hr, lr.files, benchmark.scale)
    if not pairs:
        raise ValueError(
            f"no image in {benchmark.lr} has the name of one in {benchmark.hr}, such as "
            f"{hr[0].stem}x{benchmark.scale} for {hr[0].name}"
        )
    return pairs, problems, found.overlooked + lr.overlooked
