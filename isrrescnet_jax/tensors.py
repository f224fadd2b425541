"""Safetensors files: nested dictionaries of arrays, and metadata that says what they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

FORMAT = "isrrescnet-jax 1"  # of the network of the library
RECIPE = "isrrescnet-jax recipe 1"  # of a model that only a recipe knows


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one, keys joined with dots."""
    return flatten_dict(tree, sep=".")


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return unflatten_dict(flat, sep=".")


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays of a file of ours by flat name, and the metadata, with "format" FORMAT or RECIPE.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another kind.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such weights file")
    if path.suffix in (".pth", ".pt"):
        raise ValueError(
            f"{path} is a PyTorch file: convert it with `python -m convert {path} "
            f"{path.with_suffix('.safetensors')}`"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _header(path)
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a readable safetensors file: {reason}") from None
    if metadata.get("format") not in (FORMAT, RECIPE):
        raise ValueError(f"{path} is not an ISRResCNet weights file (metadata lacks {FORMAT!r})")
    return flat, metadata


def as_bytes(tree: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """The file that `read` reads."""
    flat = {name: np.asarray(array, order="C") for name, array in flatten(tree).items()}
    return safetensors.numpy.save(flat, dict(metadata))


def _header(path: Path) -> dict[str, Any]:
    """Of a safetensors file, in which no name may be there twice: readers differ in which counts.

    Raises:
        ValueError: one is.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length), object_pairs_hook=once)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are all different."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = value
    return found
