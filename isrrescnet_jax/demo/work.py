"""What the demo does with a visitor's picture: bytes in, bytes of PNG files out."""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from .. import images
from ..evaluation.degrade import resize
from ..images import Picture
from ..physics.operators import Bicubic
from ..upscaler import Upscaler, joined

LOUDEST = 50.0  # grey levels: the largest noise level that can be given
_FAINTEST = 0.01  # grey levels: the same in a picture that has hardly any
_BRIGHT = 100  # grey levels that the residual's largest values get
_MOST = 64  # times that a residual is amplified
_SENT = 4  # files of the largest size that may be there beside those that wait
_RESULTS = 8  # of the largest size, that are there at one time
# Of a result, for a pixel and iteration, in one iteration: two iterates, two residuals, the picture
# in 16 bits with its transparency, and bicubic interpolation.
_BYTES = 2 * 3 + 2 * 3 + 8 + 4


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a visitor may ask for.

    Attributes:
        megapixels: of a result, times iterations: time and memory grow with it.
        file: bytes of a picture file.
        queue: visitors that wait.
    """

    megapixels: float = 8.0
    file: int = 20 * 2**20
    queue: int = 16

    @property
    def uploads(self) -> int:
        """Bytes on the disk of what visitors sent."""
        return (self.queue + _SENT) * self.file

    @property
    def results(self) -> int:
        """Bytes on the disk of all results."""
        return int(_RESULTS * _BYTES * 1e6 * self.megapixels)


@dataclasses.dataclass(frozen=True)
class Offer:
    """Weights that a visitor may choose.

    Attributes:
        scale: which they were trained for; None for any.
        iterations: how many were trained.
        noise: whether the noise level has a part in the result.
    """

    scale: int | None
    iterations: int
    noise: bool = True


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a visitor asks for.

    Attributes:
        weights: the name of an offer.
        scale: 2, 3 or 4.
        iterations: from 1 to those of the offer.
        noise: "estimate", or the noise level of the picture in grey levels, at most `LOUDEST`;
            of no effect with weights in which it has no part.
    """

    weights: str
    scale: int
    iterations: int
    noise: Literal["estimate"] | float = "estimate"


@dataclasses.dataclass(frozen=True)
class Step:
    """One iterate x_k and its residual y - D x_k, as PNG files of the same size."""

    image: bytes
    residual: bytes


@dataclasses.dataclass(frozen=True)
class Result:
    """What a visitor gets.

    Attributes:
        picture: the PNG file that `isrrescnet upscale` writes.
        bicubic: the same enlarged by bicubic interpolation, as a PNG file.
        steps: of x_0 to x_K; of the last one alone where the picture went in bands.
        gain: how many times residuals are amplified.
        about: what was done, in one line.
        note: what the result lacks of the file, or nothing.
    """

    picture: bytes
    bicubic: bytes
    steps: tuple[Step, ...]
    gain: int
    about: str
    note: str = ""


Progress = Callable[[float, str], None]
# The network for a wish, and what results say of how they were made.
Prepare = Callable[[Wish], tuple[Upscaler, str]]


def check(wish: Wish, offers: Mapping[str, Offer]) -> None:
    """Raise ValueError unless this is on offer: what a browser sends may be anything."""
    offer = offers.get(wish.weights) if isinstance(wish.weights, str) else None
    if offer is None or wish.scale not in (2, 3, 4):
        raise ValueError("choose a scale, and weights from the list")
    if offer.scale not in (None, wish.scale):
        raise ValueError(f"{wish.weights} are weights for scale {offer.scale}")
    if not 1 <= wish.iterations <= offer.iterations:
        raise ValueError(f"{wish.weights} have 1 to {offer.iterations} iterations")
    if wish.noise != "estimate" and not 0 <= wish.noise <= LOUDEST:
        raise ValueError(f"the noise level must be from 0 to {LOUDEST:g} grey levels")


def check_work(width: int, height: int, wish: Wish, limits: Limits, runs: int = 1) -> None:
    """Raise ValueError if a picture of this size is too much.

    Args:
        runs: of the network: three for a transparent picture, on white, grey and black.
    """
    s, k = wish.scale, wish.iterations
    work = width * height * s * s * k * runs / 1e6
    if work > limits.megapixels:
        times = f" in {k} iterations" if k > 1 else ""
        times += f", {runs} times for its transparency," if runs > 1 else ""
        other = "a smaller picture or scale" + (", or fewer iterations" if k > 1 else "")
        raise ValueError(
            f"{width}x{height} pixels at scale {s}{times} are {work:.1f} megapixels of work, of "
            f"which this demo does at most {limits.megapixels:g}: take {other}"
        )


def read(data: bytes, name: str, wish: Wish, limits: Limits) -> tuple[Picture, str]:
    """The first picture of a file, and what is said of the others.

    Raises:
        ValueError: not a picture, damaged, or too large; one line that begins with the name.
    """
    if len(data) > limits.file:
        raise ValueError(f"{name}: more than {megabytes(limits.file)}")
    try:
        film = images.film_of(data, name)
        if film.size is not None:
            check_work(film.size.width, film.size.height, wish, limits)
        picture = next(iter(film.pictures))
    except ValueError as error:
        if not isinstance(error.__context__, Image.DecompressionBombError):
            raise
        most = f"this demo does at most {limits.megapixels:g} megapixels of work"
        raise ValueError(f"{name}: too many pixels: {most}") from None
    height, width = picture.color.shape[:2]
    # A damaged file may not say its size before. Where alpha is flat, one run does.
    transparent = picture.alpha is not None and np.ptp(picture.alpha) > 0
    check_work(width, height, wish, limits, 3 if transparent else 1)
    more = film.kind != "still"
    return picture, f"Of {film.contents} only the first was done." if more else ""


def upscaled(
    picture: Picture,
    upscaler: Upscaler,
    software: str,
    progress: Progress = lambda part, text: None,
) -> Result:
    """A picture through the network, and all that the page shows beside it.

    Args:
        software: what the file says to have made it.
        progress: called with the part that is done, in [0, 1], and with what is being done.
    """
    scale = upscaler.operator.scale
    # y, x_0 ... x_K and the noise level, of what is enlarged first: on white if transparent.
    seen: list[tuple[np.ndarray, list[np.ndarray], float | None]] = []

    def iterated(done: int, total: int) -> None:
        progress(0.9 * done / total, f"iteration {done} of {total}")

    def model(color: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "H W c"]:
        if seen or not upscaler.at_once(*color.shape[:2]):
            result = upscaler(color)
            if not seen:
                seen.append((color, [result], None))
            return result
        solution = upscaler.trace(color, iterated)
        assert solution.iterates is not None
        channels = color.shape[2]
        iterates = [joined(x, channels) for x in [solution.initial, *solution.iterates]]
        seen.append((color, iterates, float(np.mean(solution.sigma))))
        return joined(solution.image, channels)

    progress(0, "getting ready")
    result = images.enlarged(model, picture, scale, software=software)
    (y, iterates, sigma) = seen[0]
    progress(0.9, "pictures")
    residuals = [y - reduced(x, scale) for x in iterates]
    gain = amplification(residuals[-1])

    def shown(color: np.ndarray) -> bytes:
        return png(images.rounded(Picture(color, icc=picture.icc)))

    def residual(r: np.ndarray) -> bytes:
        return png(images.rounded(Picture(centred(r, gain).repeat(scale, 0).repeat(scale, 1))))

    steps = tuple(Step(shown(x), residual(r)) for x, r in zip(iterates, residuals, strict=True))
    rms = float(np.sqrt(np.mean(np.square(residuals[-1]))))
    kind = "estimated" if upscaler.noise == "estimate" else "given"
    noise = "" if sigma is None else f"noise level {sigma:.1f} ({kind}), "
    (h, w), (height, width) = y.shape[:2], result.color.shape[:2]
    about = f"{w}×{h} → {width}×{height}. In grey levels: {noise}residual {rms:.2f} (RMS)."
    return Result(png(result), png(bicubic(picture, scale)), steps, gain, about)


def bicubic(picture: Picture, scale: int) -> Picture:
    """A picture enlarged by MATLAB's bicubic interpolation."""

    def model(color: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "H W c"]:
        h, w = color.shape[:2]
        return resize(images.to_uint8(color), scale * h, scale * w).astype(np.float32)

    return images.rounded(images.enlarged(model, picture, scale, strip=True))


def reduced(x: Float[np.ndarray, "H W c"], scale: int) -> Float[np.ndarray, "h w c"]:
    """D x, MATLAB's bicubic reduction, whichever physics the weights have: residuals compare."""
    return np.asarray(Bicubic(scale, reference=False).forward(x[None]))[0]


def amplification(residual: Float[np.ndarray, "h w c"]) -> int:
    """A power of two, 1 to 64, that makes a residual's largest values clearly visible."""
    largest = float(np.percentile(np.abs(residual), 99.5))
    fitting = [2**i for i in range(_MOST.bit_length()) if 2**i * largest <= _BRIGHT]
    return fitting[-1] if fitting else 1


def centred(residual: Float[np.ndarray, "h w c"], gain: int) -> Float[np.ndarray, "h w c"]:
    """128 + gain r: grey where nothing is left."""
    return np.float32(128) + np.float32(gain) * residual


def png(picture: Picture) -> bytes:
    """The file that `isrrescnet upscale` writes of it."""
    buffer = io.BytesIO()
    images.encode_film(images.Film([picture]), "PNG", buffer)
    return buffer.getvalue()


def answer(
    data: bytes,
    name: str,
    wish: Wish,
    progress: Progress,
    *,
    offers: Mapping[str, Offer],
    prepare: Prepare,
    limits: Limits,
) -> Result:
    """What a visitor gets for a file.

    Args:
        name: of the file, for messages.

    Raises:
        ValueError: bad input, in one line for the visitor: no paths but the file's name.
    """
    check(wish, offers)
    if not offers[wish.weights].noise:
        wish = dataclasses.replace(wish, noise="estimate")  # a level of 0 would undo everything
    picture, note = read(data, name, wish, limits)
    upscaler, software = prepare(wish)
    result = upscaled(picture, upscaler, software, progress)
    return dataclasses.replace(result, note=note)


def noise_acts(radii: Float[np.ndarray, " k"]) -> bool:
    """Whether the noise level has a part in results.

    Args:
        radii: of the projections, as multiples of the noise level; one of 1e8 lets all through.
    """
    return bool(np.min(radii) * _FAINTEST < 255)


def megabytes(size: int) -> str:
    """A limit in the units that `--max-file` has."""
    return f"{size / 2**20:.3g} MB"


def fitting(offers: Mapping[str, Offer], scale: int) -> Sequence[str]:
    """The offers for a scale, the one for upscaling first."""
    return [name for name, offer in offers.items() if offer.scale in (None, scale)]
