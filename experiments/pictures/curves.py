"""Curves of numbers that scripts have left: a training, and quality over speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ..studies import common
from ..studies.common import BLACK, BLUE, GREEN, GREY, ORANGE, RED

AROUND = 5  # logged means on each side that the line of the loss is a mean of


def training(path: Path, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Validation PSNR and the loss of training runs, one beside the other.

    Args:
        path: the PNG to write.
        runs: the lines of their `metrics.jsonl` by title; some have "validation_psnr", others
            "loss".
    """
    figure, axes = common.figure(3.6 * len(runs) + 0.6, 4.4, 2, len(runs), sharex="col")
    for column, (title, lines) in enumerate(runs.items()):
        upper, lower = axes[:, column]
        points = [(a["step"], a["validation_psnr"]) for a in lines if "validation_psnr" in a]
        upper.plot(*zip(*points, strict=True), "o-", color=BLUE, ms=3.5, lw=1.4)
        common.label(upper, f"{title}: validation", "", "PSNR on Y, dB", legend=False)
        steps, losses = zip(*((a["step"], a["loss"]) for a in lines if "loss" in a), strict=True)
        means = [fmean(losses[max(0, i - AROUND) : i + AROUND + 1]) for i in range(len(losses))]
        lower.plot(steps, losses, ".", color=GREY, ms=3, label="as logged")
        lower.plot(steps, means, color=RED, lw=1.4, label=f"mean of {2 * AROUND + 1}")
        lower.margins(y=0.25)
        lower.legend(fontsize=7, loc="upper right", ncols=2)
        common.label(lower, f"{title}: training patches", "step", "L1, grey levels", legend=False)
    common.save(figure, path)


def quality_speed(path: Path, found: Mapping[str, Any], published: Mapping[str, float]) -> None:
    """PSNR over megapixels by the second of one core, a plane for each scale.

    Args:
        path: the PNG to write.
        found: what `experiments.quality_speed` wrote.
        published: PSNR of the paper, by scale.
    """
    figure, axes = common.figure(9.6, 3.3, 1, len(found), sharex=True)
    for axis, (scale, parts) in zip(axes[0], found.items(), strict=True):
        psnr, speed = parts["quality"]["psnr"], parts["speed"]
        rate = {
            name: speed["pixels"] / median(times) / 1e6 for name, times in speed["seconds"].items()
        }
        ten = [name for name in psnr if name.startswith(f"{scale}_k10")]
        groups = {
            "bicubic interpolation": (["bicubic"], GREY, "s"),
            "one iteration": ([f"{scale}, K = 1"], BLUE, "o"),
            "its ensemble of 8": ([f"{scale}, K = 1, ensemble"], GREEN, "D"),
            "ten iterations, the first K": (ten, ORANGE, "o-"),
        }
        for label, (names, colour, marker) in groups.items():
            points = [rate[n] for n in names], [psnr[n] for n in names]
            axis.plot(*points, marker, color=colour, ms=5.5, lw=1.2, label=label)
        for name in ten:
            text = name.split(" = ")[1] if name != ten[-1] else name.split(", ")[1]
            options = {"textcoords": "offset points", "fontsize": 7, "color": BLACK}
            axis.annotate(text, (rate[name], psnr[name]), (6, 3), **options)
        axis.axhline(published[scale], color=BLACK, lw=0.9, ls=":", label="the paper's PSNR")
        axis.set_xscale("log")
        axis.margins(0.12)
        axis.xaxis.set_major_formatter("{x:g}")
        y = "PSNR on Y of Set5, dB" if axis is axes[0, 0] else ""
        common.label(axis, scale, "megapixels by the second of one core", y, legend=False)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8
    )
    common.save(figure, path)
