"""Image files in, image files out."""

from .picture import (
    FORMATS,
    Picture,
    check_writable,
    find,
    plan_outputs,
    read,
    to_uint8,
    write,
)

__all__ = [
    "FORMATS",
    "Picture",
    "check_writable",
    "find",
    "plan_outputs",
    "read",
    "to_uint8",
    "write",
]
