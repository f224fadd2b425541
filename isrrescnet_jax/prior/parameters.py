"""Weight normalisation, w = g v / |v|, which the network itself knows nothing of."""

from typing import Any

import jax
import numpy as np


def norm(v: jax.Array | np.ndarray, decoder: bool, keepdims: bool = False) -> Any:
    """|v| over all axes but the output channel; in the decoder, over all but the *input* channel.

    (PyTorch normalises a transposed convolution along its first axis.)
    """
    array = v.__array_namespace__()  # NumPy's functions or JAX's
    axes = (0, 1, 3) if decoder else (0, 1, 2)
    return array.sqrt(array.sum(array.square(v), axis=axes, keepdims=keepdims))


def fuse(network: dict[str, Any]) -> dict[str, Any]:
    """Weight normalisation carried out: (v, g, bias) -> (kernel, bias) with kernel = g v / |v|.

    NumPy arrays give NumPy arrays. (Salimans & Kingma, "Weight normalization", NeurIPS 2016.)
    """

    def fused(name, node):
        if not isinstance(node, dict):
            return node
        if "v" not in node:
            return {key: fused(key, value) for key, value in node.items()}
        v, decoder = node["v"], name == "decoder"
        g = node["g"][:, None] if decoder else node["g"]
        return {"kernel": v * (g / norm(v, decoder, keepdims=True)), "bias": node["bias"]}

    return {name: fused(name, node) for name, node in network.items()}
