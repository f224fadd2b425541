"""Image files in, image files out."""

from .codecs import (
    FORMATS,
    READABLE,
    check_writable,
    format_of,
    load,
    read,
    read_rgb,
    write,
    writing,
)
from .declared import Declared, check_room
from .enlarge import enlarged, enlarged_together, rounded
from .frames import Film, encode_film, film_of, holds, open_film
from .metadata import Metadata
from .paths import STANDARD, checked_plan, find, plan_outputs, result_name, search
from .picture import Picture, as_rgb, to_uint8

__all__ = [
    "FORMATS",
    "READABLE",
    "STANDARD",
    "Declared",
    "Film",
    "Metadata",
    "Picture",
    "as_rgb",
    "check_room",
    "check_writable",
    "checked_plan",
    "encode_film",
    "enlarged",
    "enlarged_together",
    "film_of",
    "find",
    "format_of",
    "holds",
    "load",
    "open_film",
    "plan_outputs",
    "read",
    "read_rgb",
    "rounded",
    "result_name",
    "search",
    "to_uint8",
    "write",
    "writing",
]
