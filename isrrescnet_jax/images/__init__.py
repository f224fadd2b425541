"""Image files in, image files out."""

from .codecs import FORMATS, check_writable, read, read_rgb, write
from .paths import find, plan_outputs
from .picture import Picture, as_rgb, to_uint8

__all__ = [
    "FORMATS",
    "Picture",
    "as_rgb",
    "check_writable",
    "find",
    "plan_outputs",
    "read",
    "read_rgb",
    "to_uint8",
    "write",
]
