"""Files with several pictures: animations, and the pages of TIFF files."""

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image

from .codecs import PILLOWS, TIFF, assembled, decode, load, named, opened, orientation_of
from .declared import Declared, check_room, declared
from .encoders import OpenFile, as_image, encode, encode_pages, pixels_of, save, save_options
from .metadata import read_metadata
from .picture import Picture

Kind = Literal["still", "animation", "pages"]
_HOLDS: dict[str, tuple[Kind, ...]] = {"PNG": ("animation",), "WEBP": ("animation",)}
_HOLDS |= {"TIFF": ("pages",)}
_CALLED: dict[Kind, str] = {"still": "picture", "animation": "frames of an animation"}
_PREVIEW = 1 | 4  # TIFF's kinds of page that are a smaller copy, or a mask, of another


@dataclasses.dataclass(frozen=True, eq=False)
class Film:
    """Pictures that one file holds, in their order.

    Attributes:
        pictures: of an animation each as it is to be seen, whatever the file builds it from.
        count: how many `pictures` gives, which may be read only as they are asked for.
        kind: what they are to each other.
        durations: milliseconds that each is shown, of an animation.
        loop: how often an animation plays, 0 for ever.
        apart: whether the first picture of a PNG is shown only where there is no animation.
        size: of the pictures, as the file's header has it, if it was read from a file.
    """

    pictures: Iterator[Picture] | Sequence[Picture]
    count: int = 1
    kind: Kind = "still"
    durations: tuple[float, ...] = ()
    loop: int = 1
    apart: bool = False
    size: Declared | None = None

    @property
    def contents(self) -> str:
        """How many pictures of which kind, for people."""
        return f"{self.count} {_CALLED.get(self.kind, self.kind)}"


def open_film(path: str | os.PathLike) -> Film:
    """All pictures of a file; `codecs.read` says which files and how."""
    return film_of(load(path), path)


def film_of(data: bytes, name: str | os.PathLike) -> Film:
    """All pictures of a file in memory, which errors call `name`.

    Raises:
        ValueError: as `codecs.read`, here or when a picture is asked for.
    """
    if data[:4] in TIFF:
        pages, size = _pages(data)
        kind = "pages" if len(pages) > 1 else "still"
        return Film(_read_pages(data, name, pages), len(pages), kind, size=size)
    with named(name), Image.open(io.BytesIO(data), formats=PILLOWS) as image:
        count = getattr(image, "n_frames", 1)
        if count == 1 or image.format == "MPO":
            kind = "pages" if count > 1 else "still"
            pictures = _read_pages(data, name, list(range(count)))
            return Film(pictures, count, kind, size=declared(image, count))
        if count * image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
            raise Image.DecompressionBombError  # as of one picture
        size = declared(image, count)
        check_room(size)
        durations = _durations(image, count)
        apart = bool(image.info.get("default_image"))
        loop = _loop(image)
    return Film(_read_frames(data, name, count), count, "animation", durations, loop, apart, size)


def holds(format: str, kind: Kind) -> bool:
    """Whether a file of this format can have several pictures of this kind."""
    return kind == "still" or kind in _HOLDS.get(format, ())


def encode_film(film: Film, format: str, file: OpenFile) -> None:
    """Write all pictures, 8 bits for animations, to an open, empty file.

    Raises:
        ValueError: the format has no place for them.
    """
    if not holds(format, film.kind):
        raise ValueError(f"{format} cannot hold {film.kind}")
    pictures = list(film.pictures)
    if film.kind == "still":
        encode(pictures[0], format, file)
    elif film.kind == "pages":
        encode_pages(pictures, file)
    else:
        if film.apart and format != "PNG":  # only PNG has a picture that is not shown
            pictures, film = pictures[1:], dataclasses.replace(film, durations=film.durations[1:])
        first = dataclasses.replace(pictures[0], bits=8)
        images = [as_image(pixels_of(dataclasses.replace(p, bits=8), format)) for p in pictures]
        if len({image.mode for image in images}) > 1:  # Pillow looks at the first one's.
            images = [image.convert("RGBA") for image in images]
        durations = [_shown(duration) for duration in film.durations]
        options = save_options(first, format) | {"save_all": True, "append_images": images[1:]}
        if format == "PNG":
            options |= {"default_image": film.apart, "disposal": 0, "blend": 0}
            durations = durations[film.apart :]
        save(images[0], file, format, duration=durations, loop=film.loop, **options)


def _pages(data: bytes) -> tuple[list[int], Declared | None]:
    """Those of a TIFF file that are pictures of their own, and their size if it can be told."""
    kinds: dict[int, int] = {}
    sizes: list[tuple[int, int, int, bool]] = []
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            for page in file.pages:
                if page.offset in kinds:  # a damaged file, whose pages go round in circles
                    break
                kinds[page.offset] = int(getattr(page, "subfiletype", 0) or 0)
                sizes.append(_page_size(page))
    except Exception:  # said when the page is read, if that cannot be done, either
        return [0], None
    pages = [index for index, kind in enumerate(kinds.values()) if not kind & _PREVIEW] or [0]
    if not sizes:
        return pages, None
    areas = {index: sizes[index][0] * sizes[index][1] for index in pages}
    largest = max(pages, key=areas.__getitem__)
    return pages, Declared(*sizes[largest], pixels=sum(areas.values()))


def _page_size(page: Any) -> tuple[int, int, int, bool]:
    """Width, height, values of a pixel, and whether they have more than 8 bits."""
    values = 4 if page.photometric == tifffile.PHOTOMETRIC.PALETTE else page.samplesperpixel
    deep = not isinstance(page.bitspersample, int) or page.bitspersample > 8
    return int(page.imagewidth), int(page.imagelength), int(values), deep


def _read_pages(data: bytes, name: str | os.PathLike, pages: list[int]) -> Iterator[Picture]:
    with named(name):
        image = opened(data) if data[:4] in TIFF else None
    for index in pages:
        with named(name):
            picture = decode(data, index, image)
        yield picture


def _read_frames(data: bytes, name: str | os.PathLike, count: int) -> Iterator[Picture]:
    with named(name):
        image = Image.open(io.BytesIO(data), formats=PILLOWS)
    with image:
        size, orientation = image.size, orientation_of(image)
        for index in range(count):
            with named(name):
                image.seek(index)
                image.load()
                if image.size != size:
                    raise ValueError("its frames are of different sizes")
                if image.has_transparency_data:
                    mode = "LA" if image.mode in ("L", "LA") else "RGBA"
                else:
                    mode = "L" if image.mode in ("1", "L") else "RGB"
                pixels = np.asarray(image.convert(mode))
                pixels = pixels.reshape(image.height, image.width, -1)
                icc = image.info.get("icc_profile") or None
                picture = assembled(pixels, read_metadata(image), icc, orientation)
            yield picture


def _durations(image: Image.Image, count: int) -> tuple[float, ...]:
    found = []
    for index in range(count):
        image.seek(index)
        if image.format in ("WEBP", "AVIF"):
            image.load()  # which says how long
        found.append(float(image.info.get("duration") or 0))
    image.seek(0)
    return tuple(found)


def _shown(duration: float) -> float:
    """A duration as PNG can store it, a fraction of small numbers; four hours at most."""
    duration = min(duration, 1.44e7)
    for step in (0, 1, 10, 100, 1000):
        rounded = step * round(duration / step) if step else duration
        if Fraction(rounded / 1000).limit_denominator(65535).numerator <= 65535:
            return rounded
    raise AssertionError(duration)


def _loop(image: Image.Image) -> int:
    """How often an animation plays; GIF counts how often it is played again, if it says so."""
    if image.format != "GIF":
        return int(image.info.get("loop", 0))
    again = image.info.get("loop")
    return 1 if again is None else again + 1 if again else 0
