"""The network as ONNX, for programs that know neither JAX nor PyTorch.

What is written is N(z; sigma, alpha), the learned prior with its projection, at any height, width
and number of images: the part that takes 99 % of the time. The iteration around it,

    v = x + exp(w_k) (x - previous),    x_(k+1) = clip(v - step gradient(v, y) - N, 0, 255),

is for the program that uses it; alpha, w, step, scale and physics stand in the file's metadata.
PyTorch's own exporter writes it, from the PyTorch implementation, which computes what ours does.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isrrescnet_jax import LearnedPrior, Weights, __version__

from .names import to_torch
from .torch_model import NormedConv, Prior, TransposedConv, from_state

GREY_LEVELS = 0.01  # largest difference that passes
SIZES = ((8, 9), (33, 20), (64, 96))
_SYMBOLS = {"n": 1, "height": 3, "width": 3}  # and the least that they may be


class Fixed(nn.Module):
    """A convolution of `torch_model` with its kernel worked out."""

    weight: Tensor
    bias: Tensor
    padding: Any

    def __init__(self, conv: NormedConv):
        super().__init__()
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", conv.bias.detach())
        self.transposed, self.padding = isinstance(conv, TransposedConv), conv.padding

    def forward(self, x: Tensor, overwritten: bool = False) -> Tensor:
        """As there."""
        if self.transposed:
            return F.conv_transpose2d(x, self.weight, self.bias, padding=self.padding)
        if any(self.padding):
            x = F.pad(x, self.padding, mode="reflect")
        return F.conv2d(x, self.weight, self.bias)


class Network(nn.Module):
    """(z, sigma, alpha) -> N, with images (n, c, h, w)."""

    def __init__(self, prior: Prior):
        super().__init__()
        for module in list(prior.modules()):
            for name, child in module.named_children():
                if isinstance(child, NormedConv):
                    setattr(module, name, Fixed(child))
        self.prior = prior

    def forward(self, z: Tensor, sigma: Tensor, alpha: Tensor) -> Tensor:
        """The residual, projected; (n, c, h, w)."""
        r = self.prior(z)
        squared = r.square().sum((1, 2, 3))
        size = torch.scalar_tensor(r.shape[1] * r.shape[2] * r.shape[3], dtype=r.dtype)
        radius = torch.exp(alpha) * sigma * torch.sqrt(size - 1)
        outside = squared > radius.square()
        factor = torch.where(outside, radius / torch.where(outside, squared, 1.0).sqrt(), 1.0)
        return r * torch.where(radius > 0, factor, 0.0)[:, None, None, None]


def as_onnx(weights: Weights) -> bytes:
    """N as an ONNX file, in float32.

    Inputs are "z" (n, c, h, w), "sigma" (n,) and "alpha" (), the output is "N" (n, c, h, w); sides
    from 3 pixels up.

    Raises:
        ValueError: the network has a noise input.
        ImportError: `onnxscript`, which PyTorch's exporter needs, is not installed.
    """
    needed("onnxscript")
    config = weights.config
    network = Network(from_state(to_torch(weights.params), config.feedback_steps).model).eval()
    n, height, width = (torch.export.Dim(name, min=low) for name, low in _SYMBOLS.items())
    z = torch.zeros(2, config.channels, 12, 14)
    with warnings.catch_warnings(action="ignore"), _silent():
        program: Any = torch.onnx.export(
            network,
            (z, torch.ones(2), torch.zeros(())),
            input_names=["z", "sigma", "alpha"],
            output_names=["N"],
            dynamic_shapes=({0: n, 2: height, 3: width}, {0: n}, None),
            dynamo=True,
            verbose=False,
        )
    about = dataclasses.asdict(config) | {"program": f"isrrescnet-jax {__version__}"}
    about |= {name: np.asarray(weights.params[name]).tolist() for name in ("alpha", "w")}
    model = program.model_proto
    for key, value in about.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return model.SerializeToString()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the exporter logs of packages that it could support as well."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def disagreement(weights: Weights, data: bytes, sizes: Sequence[tuple[int, int]] = SIZES) -> float:
    """The largest difference between N in onnxruntime and ours, in grey levels.

    On random images with edges and noise, within the ball of the projection and beyond.

    Raises:
        ImportError: `onnxruntime` is not installed.
    """
    session = needed("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    prior, rng, worst = LearnedPrior.from_weights(weights), np.random.default_rng(0), 0.0
    for h, w in sizes:
        coarse = rng.uniform(0, 255, (2, -(-h // 8), -(-w // 8), weights.config.channels))
        z = coarse.repeat(8, 1).repeat(8, 2)[:, :h, :w] + rng.normal(0, 5, (2, h, w, 1))
        z, sigma = z.astype(np.float32), np.array([0.5, 3], np.float32)
        for alpha in np.array([[-2], [20]], np.float32):
            alpha = alpha.reshape(())
            ours = np.asarray(prior(*map(jnp.asarray, (z, sigma, alpha))))
            inputs = {"z": z.transpose(0, 3, 1, 2), "sigma": sigma, "alpha": alpha}
            theirs = session.run(["N"], inputs)[0].transpose(0, 2, 3, 1)
            worst = float(np.maximum(worst, np.abs(ours - theirs).max()))  # max() would lose a NaN
    return worst


def needed(module: str) -> Any:
    """A module of the extra `onnx`."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{module} is not installed: pip install '.[onnx]'") from None
