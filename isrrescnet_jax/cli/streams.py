"""Pictures from files or standard input, to files or standard output."""

import io
import sys
from pathlib import Path

from .. import images
from ..images import STANDARD
from .startup import Nowhere

__all__ = ["STANDARD", "encoded", "open_film", "save"]


def open_film(source: Path) -> images.Film:
    """All pictures of a file, or of standard input where the name is "-"."""
    if source != STANDARD:
        return images.open_film(source)
    data = b"" if sys.stdin is None else sys.stdin.buffer.read()
    if not data:
        raise ValueError(f"{source}: nothing comes from standard input")
    return images.film_of(data, source)


def save(film: images.Film, target: Path, format: str, replace: bool = True) -> bool:
    """Write all pictures to a file, whole or not at all, or to standard output.

    Returns:
        Whether it was written: False if there is such a file, and it is not to be replaced.
    """
    if target != STANDARD:
        try:
            with images.writing(target, replace) as file:
                images.encode_film(film, format, file)
        except FileExistsError:
            return False
        return True
    if isinstance(sys.stdout, Nowhere):
        raise ValueError("standard output is closed")
    sys.stdout.buffer.write(encoded(film, format))
    sys.stdout.buffer.flush()
    return True


def encoded(film: images.Film, format: str) -> bytes:
    """The file of all pictures."""
    buffer = io.BytesIO()
    images.encode_film(film, format, buffer)
    return buffer.getvalue()
