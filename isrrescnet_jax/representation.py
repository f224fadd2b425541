"""Values that hold arrays in one line: types and shapes take the place of numbers."""

import dataclasses
import math
from typing import Any

import numpy as np

_LETTERS = {"bfloat": "bf", "float": "f", "uint": "u", "int": "i", "complex": "c"}


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def thousands(count: int) -> str:
    """388823 -> "389 k"."""
    return str(count) if count < 1000 else f"{count / 1000:.0f} k"


def short(value: Any) -> str:
    """An array, abstract ones too, as `f32[1,48,48,3]`, a collection of them as their number.

    >>> import numpy as np
    >>> short(np.zeros((2, 3), "uint8")), short({"a": np.zeros(5), "b": [np.zeros((2, 2))]})
    ('u8[2,3]', '{2 arrays, 9 numbers}')
    >>> short(None), short(("symmetric", 4))
    ('None', "('symmetric', 4)")
    """
    if isinstance(value, np.generic):
        return str(value)
    if _is_array(value):
        kind = str(value.dtype)
        name = kind.rstrip("0123456789")
        letters = _LETTERS.get(name, name) + kind.removeprefix(name)
        return f"{letters}[{','.join(map(str, value.shape))}]"
    if isinstance(value, dict | list | tuple):
        arrays, numbers = count(value)
        if arrays:
            return f"{{{arrays} arrays, {thousands(numbers)} numbers}}"
    return repr(value)


def count(tree: Any) -> tuple[int, int]:
    """How many arrays a pytree has, and how many numbers are in them."""
    import jax  # not needed for pictures, which the command line reads without it

    arrays = [leaf for leaf in jax.tree.leaves(tree) if _is_array(leaf)]
    return len(arrays), sum(math.prod(leaf.shape) for leaf in arrays)


def in_one_line(self: Any) -> str:
    """`__repr__` of a dataclass: that which `dataclasses` makes, with `short` fields."""
    shown = (f for f in dataclasses.fields(self) if f.repr)
    fields = ", ".join(f"{f.name}={short(getattr(self, f.name))}" for f in shown)
    return f"{type(self).__name__}({fields})"
