"""What a recipe with a model of its own has trained: parameters, and the function that uses them.

The function is in the recipe's file. A weights file only names it, with a hash of its text, and no
file is ever run but one that the caller gives.
"""

import dataclasses
import hashlib
import os
import runpy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Array, Inexact

from . import tensors
from .representation import count, thousands
from .trees import pytree

Solve = Callable[[dict[str, Any], dict[str, Any]], Inexact[Array, "n H W c"]]


@pytree
@dataclasses.dataclass(frozen=True)
class Trained:
    """A model of a recipe's own, called with what was measured; a pytree of its parameters.

    Attributes:
        params: nested dictionary of arrays, as the recipe's `init` makes it.
        solve: the recipe's, (params, batch) -> images; static.
        recipe: name of its file; static.

    Example:
        >>> import jax.numpy as jnp, isrrescnet_jax as isr
        >>> double = isr.Trained({"gain": jnp.float32(2)}, lambda p, batch: p["gain"] * batch["y"])
        >>> double
        Trained(1 parameters)
        >>> print(double({"y": jnp.ones((1, 1, 2, 1))}).ravel())
        [2. 2.]
    """

    params: dict[str, Any]
    solve: Solve = dataclasses.field(metadata={"static": True})
    recipe: str = dataclasses.field(default="", metadata={"static": True})

    def __call__(self, batch: dict[str, Any]) -> Inexact[Array, "n H W c"]:
        """Images of a batch of measurements, whose names are the recipe's."""
        return self.solve(self.params, batch)

    def __repr__(self) -> str:
        numbers = f"{thousands(count(self.params)[1])} parameters"
        return f"Trained({f'{self.recipe}, ' if self.recipe else ''}{numbers})"


def run_file(path: str | os.PathLike) -> tuple[dict[str, Any], str]:
    """What a Python file defines, by name, and its text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it fails.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such recipe (a Python file with a TrainConfig)")
    try:
        return runpy.run_path(os.fspath(path)), Path(path).read_text()
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


def digest(text: str) -> str:
    """Of the text of a recipe."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_like(params: Mapping[str, Any], like: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the first culprit, unless arrays are finite and like these."""
    found, expected = tensors.flatten(params), tensors.flatten(like)
    for name in [*expected, *found]:
        if name not in found:
            raise ValueError(f"tensor {name} is missing")
        if name not in expected:
            raise ValueError(f"tensor {name} is unknown")
        for what in ("shape", "dtype"):
            ours, theirs = getattr(expected[name], what), getattr(found[name], what)
            if ours != theirs:
                raise ValueError(f"tensor {name} is {theirs}, not {ours}")
        if not np.isfinite(found[name]).all():
            raise ValueError(f"tensor {name} has values that are not finite")


def load_trained(path: str | os.PathLike, recipe: str | os.PathLike) -> Trained:
    """See `load_weights`."""
    names, text = run_file(recipe)
    init, solve = names.get("init"), names.get("solve")
    if not (callable(init) and callable(solve)):
        raise ValueError(f"{recipe} has no functions init(key) and solve(params, batch)")
    flat, metadata = tensors.read(Path(path))
    if metadata["format"] != tensors.RECIPE:
        raise ValueError(f"{path} is of the library's own network: load it without a recipe")
    if metadata.get("recipe_sha256") != digest(text):
        made_by = (
            f"{metadata.get('recipe_file')} with the hash {metadata.get('recipe_sha256', '')[:8]}"
        )
        warnings.warn(
            f"{path} was made by {made_by}, and {recipe} has {digest(text)[:8]}", stacklevel=3
        )
    try:
        check_like(tensors.unflatten(flat), jax.eval_shape(init, jax.random.key(0)))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} does not fit {recipe}: {error}") from None
    params = jax.device_put(tensors.unflatten(flat))
    return Trained(params, cast(Any, solve), Path(recipe).name)


def as_bytes(params: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """The file that `load_trained` reads; `metadata` names the recipe and its hash."""
    return tensors.as_bytes(params, {**metadata, "format": tensors.RECIPE})
