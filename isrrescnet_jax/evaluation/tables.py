"""What was measured, as text: for the terminal, Markdown, JSON and CSV."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from ..config import SCALES
from ..messages import printable
from .evaluate import PROTOCOLS, Report, Row, Score

_PICTURES = {"set5": 5, "set14": 14, "b100": 100, "urban100": 100}
# PSNR/SSIM on Y as Umer et al. (2020) report them, under the protocol `paper`.
_COLUMNS = [(name, scale) for name in _PICTURES for scale in SCALES]
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


def _pair(score: Score) -> str:
    """PSNR and SSIM on Y as papers print them: 31.63/.8890."""
    return f"{score.psnr:.2f}/" + f"{score.ssim:.4f}".removeprefix("0")


def _cells(row: Row, times: bool) -> list[str]:
    cells = [printable(row.image)]
    for protocol in PROTOCOLS:
        model = row.model[protocol]
        cells += [_pair(row.bicubic[protocol]), _pair(model), f"{model.psnr_rgb:.2f}"]
    return cells + [f"{row.seconds:.2f}"] * times


def _rows(report: Report) -> list[Row]:
    return [*report.rows, report.mean] if report.rows else []


def _published(report: Report) -> dict[str, str]:
    """method -> "PSNR/SSIM" of the paper, where the data set is one of the paper's, and whole."""
    key = report.benchmark.name.casefold(), report.benchmark.scale
    if len(report.rows) != _PICTURES.get(key[0]):
        return {}
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
    lines = [printable(f"{benchmark.name} x{benchmark.scale} ({source})")]
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
                key: value if math.isfinite(value) else None
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
                **({"remark": report.remark} if report.remark else {}),
                **({"not_read": [str(p) for p in report.overlooked]} if report.overlooked else {}),
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
