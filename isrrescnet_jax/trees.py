"""Dataclasses as pytrees."""

import dataclasses
from typing import Any, TypeVar

import jax
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

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
