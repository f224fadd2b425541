"""Amounts of memory as people write them."""

import re


def parse_bytes(text: str, name: str) -> int:
    """800M, 6G, 1.5GiB or a number of bytes.

    Raises:
        ValueError: anything else; the message says that `name` must be like that.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not float(match[1]):
        raise ValueError(f"{name} must be like 800M or 6G, not {text}")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))
