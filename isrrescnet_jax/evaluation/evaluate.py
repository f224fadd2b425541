"""A model measured on folders of images: PSNR and SSIM in the way of the papers.

Two protocols, always both: `paper` measures the whole image, as the ISRResCNet paper did, and
`standard` leaves out a border as wide as the scale, as EDSR, RCAN and BasicSR do. What is measured
is the picture as it would be saved, rounded to uint8.
"""

import csv
import dataclasses
import io
import json
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
from ..files import atomic_path
from . import metrics
from .degrade import Border, degrade, modcrop, resize

PROTOCOLS = ("paper", "standard")

# PSNR/SSIM on Y as Umer et al. (2020) report them, under the protocol `paper`.
_COLUMNS = [(name, scale) for name in ("set5", "set14", "b100", "urban100") for scale in SCALES]
_TABLE = {
    "bicubic": "33.55/.9304 30.35/.8686 28.39/.8109 30.05/.8701 27.40/.7763 25.86/.7056 "
    "29.51/.8439 27.19/.7399 25.96/.6698 26.84/.8409 24.44/.7359 23.13/.6593",
    "ISRResCNet": "37.67/.9596 34.08/.9251 31.63/.8890 32.89/.9144 29.63/.8365 27.99/.7757 "
    "31.98/.8974 28.91/.8014 27.40/.7301 31.29/.9205 27.57/.8409 25.56/.7682",
    "ISRResCNet+": "37.79/.9600 34.20/.9258 31.77/.8908 33.06/.9155 29.76/.8381 28.08/.7776 "
    "32.03/.8980 28.96/.8024 27.44/.7313 31.45/.9220 27.70/.8432 25.65/.7705",
}
PUBLISHED = {
    method: dict(zip(_COLUMNS, row.split(), strict=True)) for method, row in _TABLE.items()
}

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
    """

    benchmark: Benchmark
    rows: list[Row]
    problems: list[str]

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
    pairs, problems = _pairs(benchmark)
    rows = []
    for hr_path, lr_path in pairs:
        try:
            hr, lr = _load(hr_path, lr_path, benchmark)
            row, pictures = _measure(hr_path.stem, hr, lr, benchmark.scale, model, warm_up)
            rows.append(row)
            if each is not None:
                each(row, pictures)
        # JAX raises RuntimeError where memory runs out.
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            problems.append(text if str(hr_path) in text else f"{hr_path}: {text}")
    return Report(benchmark, rows, problems)


def _load(
    hr_path: Path, lr_path: Path | None, benchmark: Benchmark
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "h w 3"]]:
    scale = benchmark.scale
    hr = modcrop(_read_rgb(hr_path), scale)
    if lr_path is None:
        return hr, degrade(hr, scale, benchmark.border)
    lr = _read_rgb(lr_path)
    if hr.shape != (lr.shape[0] * scale, lr.shape[1] * scale, 3):
        raise ValueError(
            f"{hr_path} ({hr.shape[1]}x{hr.shape[0]} when cut to a multiple of {scale}) is not "
            f"{scale} times {lr_path} ({lr.shape[1]}x{lr.shape[0]})"
        )
    return hr, lr


def _read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    color = images.to_uint8(images.read(path).color)
    return np.broadcast_to(color, (*color.shape[:2], 3))


def _measure(
    name: str,
    hr: UInt8[np.ndarray, "H W 3"],
    lr: UInt8[np.ndarray, "h w 3"],
    scale: int,
    model: Model,
    warm_up: bool,
) -> tuple[Row, dict[str, np.ndarray]]:
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


# --- which LR image belongs to which HR image ---------------------------------------------------


def _pairs(benchmark: Benchmark) -> tuple[list[tuple[Path, Path | None]], list[str]]:
    """HR and LR files of the same name, and a line about each that has no partner."""
    hr = images.find([benchmark.hr])
    if benchmark.lr is None:
        return [(path, None) for path in hr], []
    pairs, problems = match(hr, images.find([benchmark.lr]), benchmark.scale)
    if not pairs:
        raise ValueError(
            f"no image in {benchmark.lr} has the name of one in {benchmark.hr}, such as "
            f"{hr[0].stem}x{benchmark.scale} for {hr[0].name}"
        )
    return pairs, problems


def match(
    hr: Sequence[Path], lr: Sequence[Path], scale: int
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Pair HR and LR files by name, in the order of the HR files.

    Equal names belong together. Of the rest, those do that are equal without what people append to
    them: "butterfly" and "butterflyx4" or "butterfly_LRBI_x4", "img_003_SRF_4_HR" and
    "img_003_SRF_4_LR"; at scale 4, that is. Case and file format do not matter.

    Returns:
        The pairs, and one line about each file that is left over.
    """
    left: tuple[Sequence[Path], Sequence[Path]] = (hr, lr)
    pairs: list[tuple[Path, Path]] = []
    for name in (lambda path: path.stem.casefold(), lambda path: _plain_name(path.stem, scale)):
        groups: dict[str, tuple[list[Path], list[Path]]] = {}
        for side, paths in enumerate(left):
            for path in paths:
                groups.setdefault(name(path), ([], []))[side].append(path)
        pairs += [(*high, *low) for high, low in groups.values() if len(high) == len(low) == 1]
        paired = {path for pair in pairs for path in pair}
        left = tuple([path for path in paths if path not in paired] for paths in left)
    problems = []
    for high, low in groups.values():
        if high and low and len(high + low) > 2:
            names = ", ".join(map(str, high + low))
            problems.append(f"{names}: which belong together? Their names are too alike")
        elif not (high and low):
            missing = "LR" if high else "HR"
            problems += [f"{path}: no {missing} image of that name" for path in high + low]
    order = {path: place for place, path in enumerate(hr)}
    return sorted(pairs, key=lambda pair: order[pair[0]]), problems


def _plain_name(stem: str, scale: int) -> str:
    """The stem without the parts that tell resolution, scale or the way of degradation."""
    parts = rf"x{scale}|{scale}x|srf_?{scale}|hr|gt|lr|lrbi|lrbicubic|bi|bicubic"
    # Parts follow a separator; the scale may do without.
    ending = re.compile(rf"(?<=.)[ ._-]+({parts})$|(?<=[^ ._-])x{scale}$")
    name = stem.casefold()
    while (shorter := ending.sub("", name)) != name:
        name = shorter
    return name


# --- tables -------------------------------------------------------------------------------------


def _pair(score: Score) -> str:
    """PSNR and SSIM on Y as papers print them: 31.63/.8890."""
    return f"{score.psnr:.2f}/" + f"{score.ssim:.4f}".removeprefix("0")


def _cells(row: Row, times: bool) -> list[str]:
    cells = [row.image]
    for protocol in PROTOCOLS:
        model = row.model[protocol]
        cells += [_pair(row.bicubic[protocol]), _pair(model), f"{model.psnr_rgb:.2f}"]
    return cells + [f"{row.seconds:.2f}"] * times


def _rows(report: Report) -> list[Row]:
    return [*report.rows, report.mean] if report.rows else []


def _published(report: Report) -> dict[str, str]:
    """method -> "PSNR/SSIM" of the paper, where the data set is one of the paper's."""
    benchmark = report.benchmark
    key = benchmark.name.casefold(), benchmark.scale
    return {method: row[key] for method, row in PUBLISHED.items() if key in row}


def text(report: Report, label: str = "model", times: bool = True) -> str:
    """A table for the terminal, the paper's numbers and the problems below it.

    Args:
        report: of one data set.
        label: what to call the model.
        times: with the seconds per image, all that differs between two runs.
    """
    benchmark = report.benchmark
    source = f"LR from {benchmark.lr}" if benchmark.lr else f"LR made, {benchmark.border} border"
    lines = [f"{benchmark.name} x{benchmark.scale} ({source})"]
    if report.rows:
        head = ["PSNR/SSIM on Y", *["bicubic", label, "RGB"] * 2, *["seconds"] * times]
        table = [head, *(_cells(row, times) for row in _rows(report))]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        spans = [" " * widths[0]]
        for first, title in (1, "paper (no crop)"), (4, f"standard (crop {benchmark.scale})"):
            spans.append(f" {title} ".center(sum(widths[first : first + 3]) + 4, "-"))
        lines.append("  ".join(spans))
        for cells in table:
            first, *others = cells
            aligned = [f"{c:>{width}}" for c, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([f"{first:<{widths[0]}}", *aligned]).rstrip())
        if published := _published(report):
            scores = ", ".join(f"{method} {score}" for method, score in published.items())
            lines.append(f"published (no crop): {scores}")
    return "\n".join(lines + [f"not measured: {problem}" for problem in report.problems])


def markdown(reports: Sequence[Report], label: str = "model", times: bool = True) -> str:
    """The means of all data sets in one table, the paper's beside them, then a table for each.

    Args:
        reports: of any number of data sets and scales.
        label, times: as for `text`.
    """
    measured = [report for report in reports if report.rows]
    lines = []
    if measured:
        names = [f"{r.benchmark.name} x{r.benchmark.scale}" for r in measured]
        lines += _markdown_table(["PSNR/SSIM on Y", *names], _summary(measured, label))
    for report in reports:
        scale = report.benchmark.scale
        lines += ["", f"### {report.benchmark.name} x{scale}", ""]
        if report.rows:
            head = ["image"]
            for protocol in ("no crop", f"crop {scale}"):
                head += [f"{name} ({protocol})" for name in ("bicubic", label, f"{label}, RGB")]
            head += ["seconds"] * times
            lines += _markdown_table(head, [_cells(row, times) for row in _rows(report)])
        lines += [f"- not measured: {problem}" for problem in report.problems]
    return "\n".join(lines).strip() + "\n"


def _summary(reports: Sequence[Report], label: str) -> list[list[str]]:
    means = [report.mean for report in reports]
    published = [_published(report) for report in reports]
    table = [
        [f"bicubic, {protocol}", *(_pair(mean.bicubic[protocol]) for mean in means)]
        for protocol in PROTOCOLS
    ]
    table += [
        [f"{label}, {protocol}", *(_pair(mean.model[protocol]) for mean in means)]
        for protocol in PROTOCOLS
    ]
    for method in PUBLISHED if any(published) else ():
        table.append([f"{method}, as published", *(p.get(method, "") for p in published)])
    return table


def _markdown_table(head: list[str], body: list[list[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in [head, rule, *body])
    return [f"| {' | '.join(cells)} |" for cells in escaped]


def as_json(reports: Sequence[Report], label: str = "model", times: bool = True) -> str:
    """Every number unrounded; infinite PSNR, of equal images, as null.

    Times stand apart, under "seconds" at the end, in the order of the results and their images; the
    rest is the same in every run.

    Args:
        reports: of any number of data sets and scales.
        label, times: as for `text`.
    """

    def scores(by_protocol: dict[str, Score]) -> dict[str, dict[str, float | None]]:
        return {
            protocol: {
                key: value if np.isfinite(value) else None
                for key, value in dataclasses.asdict(score).items()
            }
            for protocol, score in by_protocol.items()
        }

    def record(row: Row) -> dict[str, Any]:
        return {"image": row.image, "model": scores(row.model), "bicubic": scores(row.bicubic)}

    content: dict[str, Any] = {"model": label, "results": []}
    for report in reports:
        benchmark = report.benchmark
        content["results"].append(
            {
                "name": benchmark.name,
                "scale": benchmark.scale,
                "hr": str(benchmark.hr),
                "lr": str(benchmark.lr) if benchmark.lr else None,
                "border": None if benchmark.lr else benchmark.border,
                "mean": record(report.mean) if report.rows else None,
                "images": [record(row) for row in report.rows],
                "published": _published(report),
                "problems": report.problems,
            }
        )
    if times:
        content["seconds"] = [[row.seconds for row in report.rows] for report in reports]
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_csv(reports: Sequence[Report], times: bool = True) -> str:
    """One line for each image, protocol and method; every number unrounded.

    Args:
        reports: of any number of data sets and scales.
        times: with a column of seconds.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["dataset", "scale", "image", "protocol", "method", "psnr_y", "ssim_y", "psnr_rgb"]
    writer.writerow(head + ["seconds"] * times)
    for report in reports:
        for row in _rows(report):
            for protocol in PROTOCOLS:
                for method, score in (("bicubic", row.bicubic), ("model", row.model)):
                    cells = [report.benchmark.name, report.benchmark.scale, row.image, protocol]
                    cells += [method, *dataclasses.astuple(score[protocol])]
                    seconds = row.seconds if method == "model" else ""
                    writer.writerow(cells + [seconds] * times)
    return file.getvalue()


def save(content: str, path: str | os.PathLike) -> None:
    """Write a table to a file that is complete or not there; folders are made."""
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
