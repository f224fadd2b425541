"""Weights: parameters with the configuration they belong to, and their safetensors files."""

import dataclasses
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from jax import export

from . import hub, tensors
from .config import ModelConfig
from .files import atomic_path
from .representation import count, thousands
from .tensors import flatten, unflatten
from .trained import Trained, load_trained
from .trees import pytree

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


@overload
def load_weights(name: str | os.PathLike) -> Weights: ...
@overload
def load_weights(name: str | os.PathLike, recipe: str | os.PathLike) -> Trained: ...
def load_weights(
    name: str | os.PathLike, recipe: str | os.PathLike | None = None
) -> Weights | Trained:
    """Load weights by shipped name ("x4"), from a `.safetensors` file, or from a model hub.

    The network is used for names that begin with hf:// alone, and for those only where the file is
    not in the hub's cache yet, or might be newer there (see `hub`).

    >>> import isrrescnet_jax as isr
    >>> isr.load_weights("x2_k10")
    Weights(x2, K=10, reference, 389 k parameters)

    Args:
        name: of shipped weights, the path of a file, or hf://user/name[@revision][/file] for a
            repository of the Hugging Face hub (extra `hub`).
        recipe: for weights of a model that is a recipe's own, the path of the recipe, which is run.
            Nothing else is, whatever the weights name.

    Returns:
        `Weights`, or with `recipe` what it trains, whose parameters are float32 JAX arrays.

    Raises:
        ValueError: no such shipped weights (the message says which exist), or a file that is not
            one of ours, is damaged, or holds tensors that do not fit its configuration or recipe.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: a name of the hub, and `huggingface_hub` is not installed.

    Warns:
        UserWarning: the recipe has another text than the one that made the weights.
    """
    if recipe is not None:
        return load_trained(weights_file(name), recipe)
    weights = load_weights_and_metadata(name)[0]
    return Weights(jax.device_put(weights.params), weights.config)  # jnp.asarray compiles


def weights_file(name: str | os.PathLike) -> Path:
    """Where the weights of this name lie; those of a hub are fetched.

    Raises:
        ValueError: no weights of this name are shipped, or a hub has none.
    """
    shipped = shipped_weights()
    if isinstance(name, str) and name in shipped:
        return shipped[name]
    if hub.is_name(name):
        return hub.fetch(name)
    if Path(name).suffix:
        return Path(name)
    raise ValueError(
        f"no weights named {str(name)!r} are shipped: choose {' or '.join(shipped)}, "
        "or give a .safetensors file"
    )


def load_weights_and_metadata(name: str | os.PathLike) -> tuple[Weights, dict[str, str]]:
    """`load_weights` as NumPy arrays, with the free-form metadata (training figures and such)."""
    path = weights_file(name)
    flat, metadata = tensors.read(path)
    if metadata["format"] == tensors.RECIPE:
        raise ValueError(
            f"{path} is of a model of the recipe {metadata.get('recipe_file')}: give its file, as "
            "load_weights(path, recipe=FILE)"
        )
    try:
        config = ModelConfig(**json.loads(metadata["config"], object_pairs_hook=tensors.once))
        check_params(flat, config)  # before it is a tree: names may contradict each other
        params = unflatten(flat)
    except KeyError as error:
        raise ValueError(f"{path}: its metadata lacks {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    extra = {k: v for k, v in metadata.items() if k not in ("format", "config")}
    return Weights(params, config), extra


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
    header = {"format": tensors.FORMAT, "config": json.dumps(dataclasses.asdict(weights.config))}
    return tensors.as_bytes(params, (metadata or {}) | header)
