"""Weight normalisation, w = g v / |v|, which the network itself knows nothing of."""

from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from ..weights import norm


def fuse(network: dict[str, Any]) -> dict[str, Any]:
    """Weight normalisation carried out: (v, g, bias) -> (kernel, bias) with kernel = g v / |v|.

    NumPy arrays give NumPy arrays. (Salimans & Kingma, "Weight normalization", NeurIPS 2016.)
    """
    flat: dict[Any, Any] = flatten_dict(network)
    fused = {path: value for path, value in flat.items() if path[-1] not in ("v", "g")}
    for path, v in flat.items():
        *layer, name = path
        if name == "v":
            decoder, g = layer[-1] == "decoder", flat[*layer, "g"]
            length = g[:, None] if decoder else g
            fused[*layer, "kernel"] = v * (length / norm(v, decoder, keepdims=True))
    return unflatten_dict(fused)
