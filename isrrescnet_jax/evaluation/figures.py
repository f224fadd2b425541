"""Figures: the iterations of one picture, and two pictures side by side. Needs matplotlib.

Pictures are uint8 or floating point, values in [0, 255], grey (h, w) or (h, w, 1), or (h, w, 3).
A figure has the file format that the suffix of its path names: png, pdf, svg, ...
"""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Num, UInt8
from scipy import ndimage

from ..files import atomic_path
from ..images import as_rgb
from ..solver.unroll import Solution
from . import metrics
from .degrade import resize

_INK, _ACCENT = "#343a40", "#d9480f"


class _Canvas:
    """A matplotlib figure whose parts are placed in inches from its upper left corner."""

    def __init__(self, width: float, height: float):
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError:
            raise ValueError("figures need matplotlib: pip install matplotlib") from None
        self.width, self.height = width, height
        # Not through pyplot, which would choose a window system and keep every figure.
        self.figure = Figure(figsize=(width, height), dpi=200)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        bottom = 1 - (top + height) / self.height
        size = (width / self.width, height / self.height)
        return self.figure.add_axes((left / self.width, bottom, *size))

    def curve(
        self,
        place: tuple[float, ...],
        first: int,
        values: np.ndarray,
        title: str,
        scale: str = "linear",
    ) -> None:
        """Plot values over the iterations `first`, `first` + 1, ..."""
        from matplotlib.ticker import MaxNLocator

        axes = self.axes(*place)
        axes.plot(np.arange(len(values)) + first, values, "o-", color=_ACCENT, ms=4, lw=1.4)
        axes.set_title(title, fontsize=9, color=_INK, loc="left")
        axes.set_xlabel("iteration k", fontsize=8, color=_INK, labelpad=2)
        axes.set_xlim(first - 0.4, first + len(values) - 0.6)
        axes.set_yscale(scale)
        axes.xaxis.set_major_locator(MaxNLocator(11, integer=True))
        axes.tick_params(which="both", labelsize=8, colors=_INK, width=0.6)
        axes.grid(color="#dee2e6", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color="#adb5bd", lw=0.6)

    def picture(self, place: tuple[float, ...], pixels: np.ndarray, **options) -> Any:
        """Show pixels as squares, smoothed only where they are smaller than those of the figure."""
        axes = self.axes(*place)
        axes.imshow(pixels, interpolation="antialiased", **options)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def write(self, left: float, top: float, text: str, **options) -> None:
        """Text centred on a point."""
        options = {"ha": "center", "va": "center", "fontsize": 8, "color": _INK} | options
        self.figure.text(left / self.width, 1 - top / self.height, text, **options)

    def save(self, path: str | os.PathLike) -> None:
        with atomic_path(path) as temporary:
            # Named, as matplotlib would add a suffix where there is none.
            self.figure.savefig(temporary, format=Path(path).suffix[1:] or "png")


def trace_figure(
    solution: Solution,
    path: str | os.PathLike,
    hr: Num[np.ndarray, "H W *c"] | None = None,
) -> None:
    """How the iterations went: step sizes, PSNR where the truth is known, and the iterates.

    The step size is the root mean square of x_k - x_{k-1}, in grey levels; PSNR is on Y, of the
    whole picture rounded to uint8. The strip shows the most detailed part of the iterates, at most
    11 of them, and below each its difference from the one before, red where it became brighter.

    Args:
        solution: of one picture, with its iterates (`Upscaler.trace`, or `reconstruct` with
            `trace=True`).
        path: the figure to write.
        hr: the true picture, of the size of the iterates.

    Raises:
        ValueError: no iterates, several pictures, an `hr` of another size, a format that matplotlib
            does not know, or no matplotlib.
    """
    iterates = _iterates(solution)
    steps = np.diff(iterates, axis=0)
    pictures = [_rgb(x) for x in iterates]
    last = len(steps)

    x, y, w, h = _busiest(_detail(pictures[-1]))
    part = np.s_[y : y + h, x : x + w]
    shown = np.unique(np.linspace(0, last, min(last, 10) + 1).round().astype(int))
    gap, top = 0.05, 2.9
    side = min((10.76 + gap) / len(shown) - gap, 1.5)
    canvas = _Canvas(11.0, top + 2 * side + gap + 0.3)

    rms = np.sqrt(np.mean(steps**2, axis=(1, 2, 3)))
    title = "step size |x$_k$ − x$_{k-1}$|, root mean square in grey levels"
    scale = "log" if 0 < 10 * rms.min() < rms.max() else "linear"
    canvas.curve((0.5, 0.35, 10.4 if hr is None else 4.9, 1.75), 1, rms, title, scale)
    if hr is not None:
        truth = _rgb(hr)
        if truth.shape != pictures[0].shape:
            raise ValueError(f"a truth of {_size(truth)} and iterates of {_size(pictures[0])}")
        quality = np.array([metrics.luma_psnr(x, truth) for x in pictures])
        title = f"PSNR on Y, {_decibels(quality[-1])} at the end"
        canvas.curve((6.0, 0.35, 4.9, 1.75), 0, quality, title)

    left = (canvas.width - len(shown) * (side + gap) + gap) / 2
    for column, k in enumerate(shown):
        x = left + column * (side + gap)
        canvas.write(x + side / 2, top - 0.12, f"x$_{{{k}}}$", fontsize=9)
        canvas.picture((x, top, side, side), pictures[k][part])
        lower = top + side + gap
        if k == 0:
            canvas.write(x + side / 2, lower + side / 2, "change in\nthe last\niteration")
            continue
        change = steps[k - 1].mean(-1)[part]
        bound = float(np.abs(change).max()) or 1.0
        options = {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
        canvas.picture((x, lower, side, side), change, **options)
        digits = 0 if bound >= 10 else 1 if bound >= 1 else 2
        canvas.write(x + side / 2, lower + side + 0.13, f"±{bound:.{digits}f}")
    canvas.save(path)


def compare(
    before: Num[np.ndarray, "h w ..."],
    after: Num[np.ndarray, "H W ..."],
    path: str | os.PathLike,
    *,
    truth: Num[np.ndarray, "_ _ ..."] | None = None,
    titles: tuple[str, str] = ("before", "after"),
    crop: tuple[int, int, int, int] | None = None,
    interpolation: Literal["bicubic", "nearest"] = "bicubic",
) -> None:
    """Two pictures side by side as papers print them: the whole, and a part of each enlarged.

    The captions give PSNR on Y, of the whole pictures: of both against the truth, the better one in
    bold, or between the two where there is no truth.

    Args:
        before, after: the pictures. If one is smaller by an integer factor it is enlarged.
        path: the figure to write.
        truth: the true picture, of the size of the larger one; it is shown, too.
        titles: what to call the two.
        crop: (x, y, width, height) of the part, in pixels of the larger picture; where the two
            differ most by default.
        interpolation: how the smaller picture is enlarged.

    Raises:
        ValueError: sizes that do not fit, a crop that is not in the picture, a format that
            matplotlib does not know, or no matplotlib.
    """
    pictures, factors = _same_size(_rgb(before), _rgb(after), interpolation)
    captions = [
        _short(title) if factor == 1 else f"{_short(title)} ({interpolation} ×{factor})"
        for title, factor in zip(titles, factors, strict=True)
    ]
    height, width = pictures[0].shape[:2]
    if crop is None:
        difference = np.abs(np.subtract(*pictures, dtype=np.float32)).mean(-1)
        crop = _busiest(difference if difference.any() else _detail(pictures[0]))
    x, y, w, h = crop
    if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
        raise ValueError(
            f"the crop {crop} (x, y, width, height) leaves {_size(pictures[0])} pixels"
        )

    best = None
    if truth is None:
        between = metrics.luma_psnr(pictures[0], pictures[1])
        captions[1] += f"\nPSNR between the two: {_decibels(between)}"
    else:
        truth = _rgb(truth)
        if truth.shape != pictures[0].shape:
            raise ValueError(f"a truth of {_size(truth)} and pictures of {_size(pictures[0])}")
        quality = [metrics.luma_psnr(picture, truth) for picture in pictures]
        captions = [f"{c}\n{_decibels(q)}" for c, q in zip(captions, quality, strict=True)]
        best = int(np.argmax(quality)) if quality[0] != quality[1] else None
        pictures, captions = [*pictures, truth], [*captions, "truth\nPSNR on Y"]

    side, gap, margin = 3.0, 0.12, 0.12
    whole_width = side * np.clip(width / height, 0.4, 2.5)
    part_width = side * np.clip(w / h, 0.4, 2.5)
    total = 2 * margin + whole_width + len(pictures) * (part_width + gap)
    canvas = _Canvas(total, margin + side + 0.5)
    axes = canvas.picture((margin, margin, whole_width, side), pictures[-1])
    axes.add_patch(_frame(x - 0.5, y - 0.5, w, h))
    below = {"va": "top", "fontsize": 9, "parse_math": False}  # a file name may hold a $
    middle = margin + whole_width / 2
    canvas.write(middle, margin + side + 0.08, f"{width} × {height} pixels", **below)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = margin + whole_width + gap + i * (part_width + gap)
        axes = canvas.picture((left, margin, part_width, side), picture[y : y + h, x : x + w])
        axes.add_patch(_frame(-0.5, -0.5, w, h))
        weight = "bold" if i == best else "normal"
        middle = left + part_width / 2
        canvas.write(middle, margin + side + 0.08, caption, weight=weight, **below)
    canvas.save(path)


def _frame(x: float, y: float, w: int, h: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), w, h, fill=False, edgecolor=_ACCENT, lw=1.5)


def _iterates(solution: Solution) -> Float[np.ndarray, "k H W c"]:
    """x_0 ... x_K of the one picture; the colours of a grey network, a batch, side by side."""
    if solution.iterates is None:
        raise ValueError("this solution has no iterates: reconstruct with trace=True")
    x = np.concatenate([np.asarray(solution.initial)[None], np.asarray(solution.iterates)])
    if x.shape[-1] == 1:
        x = np.moveaxis(x[..., 0], 1, -1)[:, None]
    if x.shape[1] != 1 or x.shape[-1] not in (1, 3):
        raise ValueError(f"a figure shows the iterates of one picture, not of {x.shape[1]}")
    return x[:, 0]


def _rgb(image: Num[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w 3"]:
    image = np.atleast_3d(np.asarray(image))
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise ValueError(f"a picture must be (h, w), (h, w, 1) or (h, w, 3), not {image.shape}")
    return as_rgb(image)


def _same_size(
    a: UInt8[np.ndarray, "_ _ 3"], b: UInt8[np.ndarray, "_ _ 3"], interpolation: str
) -> tuple[list[UInt8[np.ndarray, "H W 3"]], list[int]]:
    """Both at the size of the larger one, and the factors by which they were enlarged."""
    large = max(a, b, key=lambda image: image.size).shape[:2]
    factors = [large[0] // image.shape[0] for image in (a, b)]
    for image, factor in zip((a, b), factors, strict=True):
        if (image.shape[0] * factor, image.shape[1] * factor) != large:
            raise ValueError(
                f"pictures of {_size(a)} and {_size(b)} pixels cannot be compared: let one be as "
                "large as the other or an integer factor larger"
            )
    if interpolation not in ("bicubic", "nearest"):
        raise ValueError(f"interpolation must be 'bicubic' or 'nearest', not {interpolation!r}")
    enlarged = [
        resize(image, *large)
        if interpolation == "bicubic"
        else image.repeat(factor, 0).repeat(factor, 1)
        for image, factor in zip((a, b), factors, strict=True)
    ]
    return enlarged, factors


def _busiest(weight: Float[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the square with the greatest sum, a fifth of the shorter side."""
    shorter = min(weight.shape)
    side = min(max(shorter // 5, 32), shorter)
    sums = np.pad(weight, ((1, 0), (1, 0))).cumsum(0, np.float64).cumsum(1)
    sums = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    y, x = np.unravel_index(np.argmax(sums), sums.shape)
    return int(x), int(y), side, side


def _detail(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    return ndimage.gaussian_gradient_magnitude(metrics.luma(image), 1.0)


def _decibels(value: float) -> str:
    return f"{value:.2f} dB" if np.isfinite(value) else "equal"


def _short(title: str) -> str:
    return title if len(title) <= 28 else f"{title[:13]}…{title[-14:]}"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
