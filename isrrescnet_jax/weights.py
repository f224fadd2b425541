"""Weights: parameters with the configuration they belong to, and their safetensors files."""

import dataclasses
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from .config import ModelConfig
from .files import atomic_path
from .pytree import pytree
from .representation import count, thousands

FORMAT = "isrrescnet-jax 1"
# Tensors that are logarithms, and beyond which value their exponential overflows.
LOGARITHMS = dict.fromkeys(("alpha", "w"), float(np.log(np.finfo(np.float32).max)))


@pytree
@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters and configuration of one network; a pytree whose leaves are the parameters.

    >>> import isrrescnet_jax as isr
    >>> weights = isr.load_weights("x4")
    >>> weights
    Weights(x4, K=1, exact, 389 k parameters)
    >>> weights.params["network"]["encoder"]["v"].shape, weights.config.features
    ((5, 5, 3, 64), 64)

    Attributes:
        params: nested dictionary of arrays, one per tensor of the official checkpoint:
            `alpha` (K,) and `w` (K,), the logarithms of the projection radius and of the momentum,
            and `network`, whose convolutions keep the direction `v`, the length `g` and the `bias`
            of their weight normalisation. Kernels are laid out (height, width, in, out).
        config: the static shape of the network.
    """

    params: dict[str, Any]
    config: ModelConfig = dataclasses.field(metadata={"static": True}, default=ModelConfig())

    def __repr__(self) -> str:
        config, (_, numbers) = self.config, count(self.params)
        scale = "any scale" if config.scale is None else f"x{config.scale}"
        about = f"{scale}, K={config.iterations}, {config.physics}"
        return f"Weights({about}, {thousands(numbers)} parameters)"


def _register_for_export() -> None:
    """`jax.export` writes a configuration as JSON, to programs that take or give `Weights`."""
    export.register_pytree_node_serialization(
        Weights,
        serialized_name="isrrescnet_jax.Weights",
        serialize_auxdata=lambda static: json.dumps(dataclasses.asdict(static[0])).encode(),
        deserialize_auxdata=lambda data: (ModelConfig(**json.loads(data)),),
    )


_register_for_export()


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one, keys joined with dots."""
    return flatten_dict(tree, sep=".")


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return unflatten_dict(flat, sep=".")


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a network, by flat name."""
    c, f = config.channels, config.features

    def conv(name, size, inputs, outputs, lengths=None):
        return {
            f"network.{name}.v": (size, size, inputs, outputs),
            f"network.{name}.g": (lengths or outputs,),
            f"network.{name}.bias": (outputs,),
        }

    shapes: dict[str, tuple[int, ...]] = {"alpha": (config.iterations,), "w": (config.iterations,)}
    shapes |= conv("encoder", 5, c + config.noise_input, f)
    shapes |= {"network.slopes": (2 * f,)} | conv("compress", 1, 2 * f, f)
    for i in range(config.depth):
        for j in (1, 2):
            shapes |= {f"network.block_{i}.slopes_{j}": (f,)} | conv(f"block_{i}.conv_{j}", 3, f, f)
    # The official decoder is a transposed convolution, normalised per *input* channel.
    return shapes | conv("decoder", 5, f, c, lengths=f)


def with_noise_input(weights: Weights) -> Weights:
    """Weights that compute the same as a network with `noise_input`, to be trained from there on.

    The directions v of the encoder, (5, 5, c, f), get zeros for the noise level: (5, 5, c + 1, f).
    So |v| and with it the kernel g v / |v| stay. Weights that have the input come back as they are.
    """
    if weights.config.noise_input:
        return weights
    network = weights.params["network"]
    v = network["encoder"]["v"]
    v = v.__array_namespace__().pad(v, ((0, 0), (0, 0), (0, 1), (0, 0)))
    network = network | {"encoder": network["encoder"] | {"v": v}}
    config = dataclasses.replace(weights.config, noise_input=True)
    return Weights(weights.params | {"network": network}, config)


def norm(v: jax.Array | np.ndarray, decoder: bool, keepdims: bool = False) -> Any:
    """|v| over all axes but the output channel; in the decoder, over all but the *input* channel.

    (PyTorch normalises a transposed convolution along its first axis.)
    """
    array = v.__array_namespace__()  # NumPy's functions or JAX's
    axes = (0, 1, 3) if decoder else (0, 1, 2)
    return array.sqrt(array.sum(array.square(v), axis=axes, keepdims=keepdims))


def kernel_problem(v: np.ndarray, g: np.ndarray, decoder: bool) -> str | None:
    """What is wrong with a direction v (finite) for which g v / |v| has no value; None if nothing.

    Args:
        decoder: the lengths g are those of its input channels (see `norm`).
    """
    with np.errstate(all="ignore"):
        length = norm(v, decoder)
        if not length.all():
            return f"has no direction in channel {int(np.argmin(length))}: its length |v| is 0"
        kernel = v * ((g / length)[:, None] if decoder else g / length)
        if not (np.isfinite(length).all() and np.isfinite(kernel).all()):
            return "overflows as its length g is given to it: g v / |v| is not finite"
    return None


def check_params(params: dict[str, Any], config: ModelConfig) -> None:
    """Raise ValueError, naming the first culprit, unless `params` fit `config` and can be used.

    That is: float32 of the right shapes, finite, and so are the kernels and logarithms' inverses.
    """
    found = {name: np.asarray(array) for name, array in flatten(params).items()}
    if config.depth > len(found):  # which could be so large that a list of names never ends
        raise ValueError(f"depth is {config.depth}, but there are only {len(found)} tensors")
    expected = expected_shapes(config)
    for name in expected:
        if name not in found:
            raise ValueError(f"tensor {name} is missing")
        if tuple(found[name].shape) != expected[name]:
            raise ValueError(f"tensor {name} is {tuple(found[name].shape)}, not {expected[name]}")
        if found[name].dtype != np.float32:
            raise ValueError(f"tensor {name} is {found[name].dtype}, not float32")
        if not np.isfinite(found[name]).all():
            raise ValueError(f"tensor {name} has values that are not finite")
        if name in LOGARITHMS and found[name].max() >= LOGARITHMS[name]:
            raise ValueError(f"tensor {name} is a logarithm of values that overflow")
    for name in found:
        if name not in expected:
            raise ValueError(f"tensor {name} is unknown")
        if name.endswith(".v"):
            g = found[name.removesuffix("v") + "g"]
            if problem := kernel_problem(found[name], g, name == "network.decoder.v"):
                raise ValueError(f"tensor {name} {problem}")


def shipped_weights() -> dict[str, Path]:
    """The weights that lie in the package, by name: "x4" (one iteration), "x4_k10" (ten), ...

    >>> import isrrescnet_jax as isr
    >>> sorted(isr.shipped_weights())
    ['x2', 'x2_k10', 'x3', 'x3_k10', 'x4', 'x4_k10']
    >>> isr.shipped_weights()["x4"].name
    'x4.safetensors'
    """
    folder = Path(str(resources.files("isrrescnet_jax") / "assets"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def load_weights(name: str | os.PathLike) -> Weights:
    """Load weights by shipped name ("x4") or from a `.safetensors` file; never uses the network.

    >>> import isrrescnet_jax as isr
    >>> isr.load_weights("x2_k10")
    Weights(x2, K=10, reference, 389 k parameters)

    Returns:
        `Weights` whose parameters are float32 JAX arrays.

    Raises:
        ValueError: no such shipped weights (the message says which exist), or a file that is not
            one of ours, is damaged, or holds tensors that do not fit its configuration.
        FileNotFoundError: there is no such file.
    """
    weights = load_weights_and_metadata(name)[0]
    return Weights(jax.device_put(weights.params), weights.config)  # jnp.asarray compiles


def load_weights_and_metadata(name: str | os.PathLike) -> tuple[Weights, dict[str, str]]:
    """`load_weights` as NumPy arrays, with the free-form metadata (training figures and such)."""
    shipped = shipped_weights()
    if isinstance(name, str) and name in shipped:
        path = shipped[name]
    elif Path(name).suffix:
        path = Path(name)
    else:
        raise ValueError(
            f"no weights named {str(name)!r} are shipped: choose {' or '.join(shipped)}, "
            "or give a .safetensors file"
        )
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
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not an ISRResCNet weights file (metadata lacks {FORMAT!r})")
    try:
        config = ModelConfig(**json.loads(metadata["config"], object_pairs_hook=_once))
        check_params(flat, config)  # before it is a tree: names may contradict each other
        params = unflatten(flat)
    except KeyError as error:
        raise ValueError(f"{path}: its metadata lacks {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    extra = {k: v for k, v in metadata.items() if k not in ("format", "config")}
    return Weights(params, config), extra


def _header(path: Path) -> dict[str, Any]:
    """Of a safetensors file, in which no name may be there twice: readers differ in which counts.

    Raises:
        ValueError: one is.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are all different."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is there twice")
        found[name] = value
    return found


def save_weights(
    weights: Weights, path: str | os.PathLike, metadata: dict[str, str] | None = None
) -> None:
    """Write weights as float32 safetensors with the configuration in the metadata; atomic.

    >>> import pathlib, tempfile, jax, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "mine.safetensors")
    ...     isr.save_weights(weights, path, {"note": "not trained"})
    ...     isr.load_weights(path)
    Weights(x2, K=2, reference, 979 parameters)

    Args:
        weights: any real type; what is written is float32.
        path: of the file, which is complete or not there.
        metadata: free text, kept beside the configuration.

    Raises:
        ValueError: the parameters do not fit the configuration or are not finite.
    """
    data = as_bytes(weights, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def as_bytes(weights: Weights, metadata: dict[str, str] | None = None) -> bytes:
    """The file that `save_weights` writes.

    Raises:
        ValueError: see there.
    """
    params = jax.tree.map(lambda a: np.asarray(a, np.float32), weights.params)
    check_params(params, weights.config)
    header = {"format": FORMAT, "config": json.dumps(dataclasses.asdict(weights.config))}
    flat = {k: np.ascontiguousarray(v) for k, v in flatten(params).items()}
    return safetensors.numpy.save(flat, (metadata or {}) | header)
