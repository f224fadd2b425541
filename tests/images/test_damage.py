"""Damaged files with everything in them: read, or refused in one line; what is read is written."""

import io
import random
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from isrrescnet_jax import images
from isrrescnet_jax.images import Film, Picture

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def whole_files() -> dict[str, bytes]:
    """Files with metadata, frames, pages and unusual pixels."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera", 6
    exif[0x8769], exif[0x8825] = {0x829A: (1, 50)}, {1: "N", 2: (48.0, 8.0, 14.0)}
    first, *rest = (Image.fromarray(np.roll(PIXELS, i, 0)) for i in range(3))
    files = {}

    def keep(name: str, image: Image.Image, format: str, **options) -> None:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        files[name] = buffer.getvalue()

    for format in ("PNG", "JPEG", "WEBP", "TIFF"):
        keep(format, first, format, exif=exif.tobytes(), dpi=(300, 150))
    for format in ("PNG", "WEBP", "GIF", "TIFF", "AVIF"):
        more = {} if format == "TIFF" else {"duration": 50}
        keep(f"{format} frames", first, format, save_all=True, append_images=rest, **more)
    keep("BMP", Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]])), "BMP")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS.astype(np.float32), photometric="rgb")
    files["float"] = buffer.getvalue()
    return files


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, taken out or put in, most of them where the header is."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(result) if rng.random() < 0.4 else min(len(result), 400))
        match rng.randrange(3):
            case 0:
                result[at] = rng.randrange(256)
            case 1:
                del result[at : at + rng.randint(1, 20)]
            case 2:
                result[at:at] = rng.randbytes(rng.randint(1, 20))
        result = result or bytearray(b"x")
    return bytes(result)


def outcome(data: bytes) -> str:
    """What happens; anything but a picture or one line is an error."""
    try:
        film = images.film_of(data, "x")
        pictures = list(film.pictures)
    except ValueError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error)
        return "refused"
    assert len(pictures) == film.count
    picture = pictures[0]
    assert np.isfinite(picture.color).all()
    if picture.color.size > 1e6:  # a damaged size; writing it takes long and shows nothing
        return "large"
    for suffix in ("png", "jpg", "webp", "tif", "bmp"):
        try:
            images.check_writable(picture, f"x.{suffix}")
        except ValueError:
            continue
        buffer = io.BytesIO()
        images.encode_film(Film([picture]), images.format_of(f"x.{suffix}"), buffer)
        again: Picture = next(iter(images.film_of(buffer.getvalue(), "y").pictures))
        assert again.color.shape[:2] == picture.color.shape[:2]
    return "read"


@pytest.mark.parametrize("name", whole_files())
def test_damaged_files(name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    rng, data = random.Random(name), whole_files()[name]
    with warnings.catch_warnings(action="ignore"):
        assert outcome(data) == "read"
        outcomes = [outcome(damaged(data, rng)) for _ in range(40)]
        outcomes += [outcome(data[:end]) for end in range(1, len(data), 64)]
    assert "refused" in outcomes
