"""`exact.py`, with the network's passes forward and back by PyTorch in bfloat16, for CPUs.

    python -m isrrescnet_jax train experiments/exact_torch.py --scale 4 --data DIR --workdir DIR \\
        --validation DIR

oneDNN, which PyTorch calls, has bfloat16 convolutions for processors with AVX-512 BF16 or AMX, and
XLA has none: a step takes two thirds of the time (experiments/README.md). All else is what it is
in `exact.py`: data, operator, loss, optimiser, average, checkpoints. Validation runs in JAX, in
float32. The first and the last convolution stay float32, as bfloat16 knows grey levels no better
than by half a level. Needs the extra `convert`, and to be run in the folder of the repository.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float

from convert.names import official_layout
from convert.torch_model import Prior
from experiments.exact import config as config  # for the trainer, which looks for it here
from isrrescnet_jax import LearnedPrior, ModelConfig, Weights
from isrrescnet_jax.prior.projection import project

Tensors = dict[str, Array]
_number = itertools.count()
_pending: dict[int, tuple[torch.Tensor, list[torch.Tensor]]] = {}  # the last graph


def prior(weights: Weights) -> Any:
    """N of these weights, for the trainer: called as N(z, sigma, alpha)."""
    return jax.tree_util.Partial(_restrict, weights)


def _restrict(weights, z, sigma, alpha):
    tensors = {
        name.removeprefix("model."): tensor
        for name, tensor in official_layout(weights.params).items()
        if name.startswith("model.resblocks") or ".RBs." not in name and name.startswith("model.")
    }
    kernels = LearnedPrior.from_weights(weights)
    return project(residual(weights.config, kernels, tensors, z), sigma, alpha)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def residual(
    config: ModelConfig, prior: LearnedPrior, tensors: Tensors, z: Float[Array, "n h w c"]
) -> Float[Array, "n h w c"]:
    """r(z); by JAX where no gradient is asked for, else by PyTorch."""
    return prior.residual(z)


def _forward(config, prior, tensors, z):
    """PyTorch keeps what its way back needs; the number says which."""
    shapes = jax.ShapeDtypeStruct(z.shape, z.dtype), jax.ShapeDtypeStruct((), jnp.int32)
    r, number = jax.pure_callback(functools.partial(_run, config), shapes, tensors, z)
    return r, (number, prior, tensors, z)


def _backward(config, kept, gradient):
    number, prior, tensors, z = kept
    like = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype)  # noqa: E731
    shapes = jax.tree.map(like, (tensors, z))
    back = jax.pure_callback(functools.partial(_back, config), shapes, number, tensors, z, gradient)
    return jax.tree.map(jnp.zeros_like, prior), *back


residual.defvjp(_forward, _backward)


class _Mixed(Prior):
    """The network with features in bfloat16."""

    def forward(self, z, overwritten=False):
        x = self.conv(z)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = memory = x.bfloat16()
            for _ in range(self.feedback_steps):
                x = memory = self.fbblock(x, memory)
        return self.conv_out(x.float())


@functools.cache
def _network(config: ModelConfig) -> Prior:
    return _Mixed(config.channels, config.features, config.depth, config.feedback_steps)


def _tensor(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array), requires_grad=True)


def _record(config: ModelConfig, tensors: Tensors, z: Array):
    """The output (n, c, h, w), and the leaves of its graph."""
    names = sorted(tensors)
    leaves = [*(_tensor(tensors[name]) for name in names), _tensor(z)]
    network = _network(config)
    images = leaves[-1].permute(0, 3, 1, 2)  # channels-last in memory
    replaced = dict(zip(names, leaves[:-1], strict=True))
    with torch.enable_grad():
        out = torch.func.functional_call(network, replaced, (images,))
    return out, leaves


def _run(config, tensors, z):
    out, leaves = _record(config, tensors, z)
    number = next(_number) % 2**31
    _pending.clear()
    _pending[number] = out, leaves
    return out.detach().permute(0, 2, 3, 1).contiguous().numpy(), np.int32(number)


def _back(config, number, tensors, z, gradient):
    kept = _pending.pop(int(number), None)
    out, leaves = kept or _record(config, tensors, z)
    upstream = torch.tensor(np.asarray(gradient)).permute(0, 3, 1, 2)
    found = [g.numpy() for g in torch.autograd.grad(out, leaves, upstream)]
    return dict(zip(sorted(tensors), found, strict=False)), found[-1]
