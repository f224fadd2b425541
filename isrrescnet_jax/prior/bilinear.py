"""Bilinear maps of images and kernels as primitives: any derivative, the best way on each platform.

A map f(x, kernel), linear in both, belongs to a form that is linear in three arguments,

    T(x, kernel, out) = sum(out * f(x, kernel)),

and T has three partial derivatives: f itself, the gradient for x, and the gradient for the kernel.
Each is bilinear in the other two arguments, and the transpose of each is another of them. So three
primitives with `ad.defbilinear` are closed under differentiation, in forward and in reverse mode
and to any order; none of it depends on how they are computed, which is decided when a program is
lowered, for the platform that it is lowered for. (Branches by `lax.platform_dependent` would be
differentiated as well: a training step then takes seven times as long to trace.)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

# x (n, h, w, i), kernel (kh, kw, i, o) and out (n, H, W, o): which axes are the same.
SLOTS = ("x", "kernel", "out")
_SHARED = {("x", "kernel"): (3, 2), ("x", "out"): (0, 0), ("kernel", "out"): (3, 3)}
_SHARED |= {(b, a): (j, i) for (a, b), (i, j) in _SHARED.items()}


@dataclasses.dataclass(frozen=True)
class Way:
    """How the three maps are computed on one platform.

    Attributes:
        out: (x, kernel, **fixed) -> out.
        x: (kernel, out, shape=, **fixed) -> the gradient for x, of that shape; if None, by
            transposition of `out`.
        kernel: (x, out, shape=, **fixed) -> the gradient for the kernel, in the same way.
    """

    out: Callable[..., Array]
    x: Callable[..., Array] | None = None
    kernel: Callable[..., Array] | None = None

    def maps(self) -> dict[str, Callable[..., Array]]:
        """The map to each slot from the other two, called with (*others, shape=, **fixed)."""

        def out(x, kernel, *, shape, **fixed):
            return self.out(x, kernel, **fixed)

        def of_x(kernel, out, *, shape, **fixed):
            x = jnp.zeros_like(out, shape=shape)  # it varies over the axes of a `shard_map` as out
            return jax.linear_transpose(lambda x: self.out(x, kernel, **fixed), x)(out)[0]

        def of_kernel(x, out, *, shape, **fixed):
            kernel = jnp.zeros_like(out, shape=shape)
            return jax.linear_transpose(lambda k: self.out(x, k, **fixed), kernel)(out)[0]

        return {"x": self.x or of_x, "kernel": self.kernel or of_kernel, "out": out}


def bilinear(name: str, default: Way, **platforms: Way) -> Callable[..., Array]:
    """f as a function of (x, kernel, shape=, **fixed), differentiable and batched as said above.

    `shape` is that of the result; `fixed` are static arguments of the ways, by name. Both arguments
    must have the same type, which is that of the result.
    """
    primitives = {slot: Primitive(f"{name}_{slot}") for slot in SLOTS}
    for target, primitive in primitives.items():
        maps = {platform: way.maps()[target] for platform, way in platforms.items()}
        maps["default"] = default.maps()[target]
        _define(primitive, maps)
        first, second = (slot for slot in SLOTS if slot != target)
        ad.defbilinear(
            primitive,
            functools.partial(_transpose, primitives, target, first),
            functools.partial(_transpose, primitives, target, second),
        )
        rule = functools.partial(_batch, primitive, maps, target, (first, second))
        batching.primitive_batchers[primitive] = rule

    def call(x: Array | np.ndarray, kernel: Array | np.ndarray, **fixed: Any) -> Array:
        return primitives["out"].bind(*_varying_alike(x, kernel), **fixed)

    return call


def _define(primitive: Primitive, maps: dict[str, Callable[..., Array]]) -> None:
    @functools.partial(jax.jit, static_argnames=("shape", "padding", "precision"))
    def run(*args, **fixed):
        return primitive.bind(*args, **fixed)

    primitive.def_impl(run)
    primitive.def_abstract_eval(lambda a, b, *, shape, **_: a.update(shape=shape, weak_type=False))
    for platform, way in maps.items():
        lowering = mlir.lower_fun(way, multiple_results=False)
        mlir.register_lowering(primitive, lowering, None if platform == "default" else platform)


def _transpose(primitives, target, wanted, cotangent, *args, shape, **fixed):
    """From the cotangent of `target` and one argument to the gradient for the other, `wanted`."""
    names = [slot for slot in SLOTS if slot != target]
    known = {**dict(zip(names, args, strict=True)), target: cotangent}
    unknown = known.pop(wanted)
    others = [known[slot] for slot in SLOTS if slot != wanted]
    return primitives[wanted].bind(*others, shape=unknown.aval.shape, **fixed)


def _batch(primitive, maps, target, names, args, dims, *, shape, **fixed):
    fixed["shape"] = shape
    if None not in dims:
        args = [jnp.moveaxis(a, dim, 0) for a, dim in zip(args, dims, strict=True)]
        ways: dict[str, Callable[..., Array]] = {
            platform: jax.vmap(functools.partial(f, **fixed)) for platform, f in maps.items()
        }
        # One by one: XLA's grouped convolutions are slow there.
        ways["cpu"] = lambda *args: lax.map(lambda pair: primitive.bind(*pair, **fixed), args)
        return lax.platform_dependent(*args, **ways), 0
    # The axis that one argument shares with the result and not with the other holds its batch too.
    which = 0 if dims[1] is None else 1
    axis, result = _SHARED[names[which], target]
    a = jnp.moveaxis(args[which], dims[which], axis)
    count, length = a.shape[axis : axis + 2]
    a = a.reshape(*a.shape[:axis], count * length, *a.shape[axis + 2 :])
    args = [a if i == which else b for i, b in enumerate(args)]
    folded = (*shape[:result], count * length, *shape[result + 1 :])
    out = primitive.bind(*args, **fixed | {"shape": folded})
    return out.reshape(*shape[:result], count, length, *shape[result + 1 :]), result


def _varying_alike(*arrays):
    """The same, but varying over the same axes of a surrounding `shard_map`."""
    # A name that JAX has changed before; without it there are no such axes for us.
    kinds = [getattr(jax.typeof(a), "mat", None) for a in arrays]
    axes = [getattr(kind, "varying", frozenset()) for kind in kinds]
    missing = [tuple(frozenset().union(*axes) - own) for own in axes]
    return [
        lax.pcast(a, names, to="varying") if names else a
        for a, names in zip(arrays, missing, strict=True)
    ]
