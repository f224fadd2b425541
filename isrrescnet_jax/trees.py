"""Dataclasses as pytrees."""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey

T = TypeVar("T")


def pytree(cls: type[T]) -> type[T]:
    """Register a dataclass as a pytree; fields with the metadata {"static": True} are no children.

    As `jax.tree_util.register_dataclass`, but of two classes the trees are never equal. To JAX
    (0.10.2) those of dataclasses are if their static fields are, and now and then it uses a
    program that was compiled for one class for the other.

    >>> import dataclasses, jax, isrrescnet_jax as isr
    >>> @isr.pytree
    ... @dataclasses.dataclass(frozen=True)
    ... class Pull:
    ...     strength: jax.Array | float
    ...     towards: float = dataclasses.field(default=128.0, metadata={"static": True})
    ...
    ...     def __call__(self, z, sigma, alpha):
    ...         return self.strength * (z - self.towards)
    >>> jax.tree.leaves(Pull(0.5)), Pull(0.5)(130.0, None, None)
    ([0.5], 1.0)

    Args:
        cls: a dataclass; frozen ones with no arrays among their static fields can be arguments of
            compiled programs.
    """
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    static = [field.name for field in fields if field.metadata.get("static")]
    names = [field.name for field in fields if field.name not in static]
    keys = [GetAttrKey(name) for name in names]

    def kept(value: Any) -> tuple[Any, ...]:
        return tuple(getattr(value, name) for name in static)

    def flatten(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, name) for name in names], kept(value)

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(key, getattr(value, key.name)) for key in keys]
        return children, kept(value)

    def unflatten(values: tuple[Any, ...], children: Any) -> T:
        return cls(
            **dict(zip(static, values, strict=True)), **dict(zip(names, children, strict=True))
        )

    def same(self: Any, other: Any) -> Any:
        """The same values; of arrays that are traced, which have none yet, the same objects."""
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = (jax.tree.flatten(value) for value in (self, other))
        return mine[1] == theirs[1] and all(map(_equal, mine[0], theirs[0]))

    made = getattr(vars(cls).get("__eq__"), "__code__", None)
    if made is not None and made.co_filename == "<string>":  # by `dataclasses`, as of numbers
        cls.__eq__ = same
    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _equal(a: Any, b: Any) -> bool:
    if a is b or any(isinstance(x, Tracer) for x in (a, b)):
        return a is b
    keys = [jnp.issubdtype(getattr(x, "dtype", object), jax.dtypes.prng_key) for x in (a, b)]
    if any(keys):
        return all(keys) and bool(np.array_equal(jax.random.key_data(a), jax.random.key_data(b)))
    return bool(np.array_equal(a, b))
