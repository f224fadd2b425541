"""Official tensor names and layouts <-> ours, exact to the bit in both directions."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from isrrescnet_jax.config import ModelConfig
from isrrescnet_jax.weights import (
    LOGARITHMS,
    Weights,
    expected_shapes,
    flatten,
    kernel_problem,
    unflatten,
)

# New-style weight norm (torch.nn.utils.parametrizations) -> the old style of the official files.
_NEW_STYLE = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}
# What the official code runs, and what a checkpoint that says nothing else was trained with.
OFFICIAL = {"physics": "reference", "step": 1.0}
_BLOCKS, _DUPLICATES = "model.resblocks.", "model.fbblock.RBs."


def _pairs(depth: int) -> Iterator[tuple[str, str]]:
    """(official name, our flat name), in the order of the official file, duplicates included."""

    def conv(official, ours):
        for suffix, leaf in (("bias", "bias"), ("weight_g", "g"), ("weight_v", "v")):
            yield f"{official}.{suffix}", f"network.{ours}.{leaf}"

    def blocks(prefix):
        for i in range(depth):
            block = f"network.block_{i}"
            yield from conv(f"{prefix}{i}.conv1", f"block_{i}.conv_1")
            yield f"{prefix}{i}.relu1.weight", f"{block}.slopes_1"
            yield f"{prefix}{i}.relu2.weight", f"{block}.slopes_2"
            yield from conv(f"{prefix}{i}.conv2", f"block_{i}.conv_2")

    yield from (("alpha", "alpha"), ("w", "w"))
    yield from conv("model.conv", "encoder")
    yield from blocks(_BLOCKS)
    yield from conv("model.fbblock.compress_in", "compress")
    yield "model.fbblock.prelu.weight", "network.slopes"
    yield from blocks(_DUPLICATES)
    yield from conv("model.conv_out", "decoder")


def _to_ours(name: str, array: np.ndarray) -> np.ndarray:
    if name.endswith(".g"):
        return array.reshape(-1)
    if name.endswith(".decoder.v"):  # (in, out, k, k), a transposed convolution
        return array[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    if name.endswith(".v"):  # (out, in, k, k)
        return array.transpose(2, 3, 1, 0)
    return array


def _to_official(name: str, array: Any) -> Any:
    if name.endswith(".g"):
        return array.reshape(-1, 1, 1, 1)
    if name.endswith(".decoder.v"):
        return array.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
    if name.endswith(".v"):
        return array.transpose(3, 2, 0, 1)
    return array


def _numpy(value: Any) -> np.ndarray:
    """A tensor or array as a NumPy array, without importing torch."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _official(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors under their official, old-style names."""
    if "model_state_dict" in state:
        state = state["model_state_dict"]
        if not isinstance(state, Mapping):
            raise ValueError(f"model_state_dict is a {type(state).__name__}, not a state dict")
    tensors = {}
    for name, value in state.items():
        official = str(name).removeprefix("module.")
        for new, old in _NEW_STYLE.items():
            if official.endswith(new):
                official = official.removesuffix(new) + old
        if not hasattr(value, "shape"):
            raise ValueError(f"{name} is not a tensor: this is not a state dict of ISRResCNet")
        if official in tensors:
            raise ValueError(f"tensor {official} is there twice, the second time as {name}")
        try:
            tensors[official] = _numpy(value)
        except (TypeError, RuntimeError):  # of a type that NumPy lacks, sparse, or without values
            raise ValueError(f"tensor {name} is {value.dtype}, not dense float32") from None
    return tensors


def _infer(tensors: dict[str, np.ndarray], feedback_steps: int, scale: int | None) -> ModelConfig:
    """The configuration that the tensors show."""
    for name, dimensions in (("alpha", 1), ("w", 1), ("model.conv.weight_v", 4)):
        if name not in tensors:
            raise ValueError(f"tensor {name} is missing: this is not an ISRResCNet checkpoint")
        if tensors[name].ndim != dimensions or not tensors[name].size:
            raise ValueError(f"tensor {name} has shape {tensors[name].shape}")
    if tensors["alpha"].size != tensors["w"].size:
        sizes = f"{tensors['alpha'].size} and {tensors['w'].size}"
        raise ValueError(f"tensors alpha and w have {sizes} values, not one for each iteration")
    numbers = {
        int(number)
        for name in tensors
        if name.startswith(_BLOCKS) and (number := name.split(".")[2]).isdecimal()
    }
    if not numbers:
        raise ValueError(f"there are no residual blocks ({_BLOCKS}*)")
    # What most tensors say, so that a single one of another size is found to be the wrong one.
    biases = (array.size for name, array in tensors.items() if name.endswith(".bias"))
    ((features, _),) = Counter(biases).most_common(1)
    channels = tensors["model.conv.weight_v"].shape[1]
    if channels not in (1, 3):
        raise ValueError(f"tensor model.conv.weight_v is for {channels} channels, not 1 or 3")
    # Of numbers with a gap, no more than shows the first that is missing.
    depth = min(max(numbers), len(numbers)) + 1
    return ModelConfig(channels, features, depth, feedback_steps, len(tensors["alpha"]), scale)


def _physics(state: Mapping[str, Any]) -> dict[str, Any]:
    """Physics and step as they stand beside "model_state_dict"; the official ones otherwise."""
    beside = state if "model_state_dict" in state else {}
    physics, step = (beside.get(name, official) for name, official in OFFICIAL.items())
    if not isinstance(physics, str):
        raise ValueError(f"physics is a {type(physics).__name__}, not a name")
    if isinstance(step, bool) or not isinstance(step, int | float):
        raise ValueError(f"step is a {type(step).__name__}, not a number")
    try:
        return {"physics": physics, "step": float(step)}
    except OverflowError:  # an integer has no largest value
        raise ValueError("step must be a positive number, not one beyond all floats") from None


def from_torch(
    state_dict: Mapping[str, Any], feedback_steps: int = 4, scale: int | None = None
) -> Weights:
    """Weights of an official checkpoint.

    Args:
        state_dict: the state dict, or a dictionary that holds it as "model_state_dict"; tensors or
            NumPy arrays, with or without the prefix "module.", in old-style weight norm
            (`weight_g`, `weight_v`) or new (`parametrizations.weight.original0/1`). Depth,
            channels, features and iterations are read off the tensors. Beside "model_state_dict"
            may stand "physics" ("reference" or "exact") and "step" (a positive number), as
            `python -m convert` writes them; without them they are "reference" and 1.
        feedback_steps, scale: what a checkpoint does not say.

    Returns:
        What `isrrescnet_jax.load_weights` returns; the values are those of the checkpoint.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or type, not finite, or a
            direction without length or with one that overflows, or the two copies of a block
            differ; in one line, with the name of the tensor. Also where "physics" or "step" is of
            another kind.
    """
    tensors = _official(state_dict)
    config = _infer(tensors, feedback_steps, scale)
    config = dataclasses.replace(config, **_physics(state_dict))
    shapes = expected_shapes(config)
    flat: dict[str, np.ndarray] = {}
    for official, ours in _pairs(config.depth):
        if official not in tensors:
            raise ValueError(f"tensor {official} is missing")
        array = tensors.pop(official)
        # A view of one number tells the shape in the other layout, and costs no memory.
        expected = _to_official(ours, np.broadcast_to(0, shapes[ours])).shape
        if array.shape != expected or array.dtype != np.float32:
            found = f"{array.dtype} of shape {array.shape}"
            raise ValueError(f"tensor {official} is {found}, not float32 of shape {expected}")
        if not np.isfinite(array).all():
            raise ValueError(f"tensor {official} has values that are not finite")
        if ours in LOGARITHMS and array.max() >= LOGARITHMS[ours]:
            raise ValueError(f"tensor {official} is a logarithm of values that overflow")
        array = _to_ours(ours, array)
        # Bytes and not values: -0 and 0 are equal, but not the same.
        if ours in flat and flat[ours].tobytes() != array.tobytes():
            original = official.replace(_DUPLICATES, _BLOCKS)
            raise ValueError(f"tensors {original} and {official} differ, but are one in the model")
        flat[ours] = np.ascontiguousarray(array)
    if tensors:
        raise ValueError(f"tensor {next(iter(tensors))} is unknown")
    for official, ours in _pairs(config.depth):
        if ours.endswith(".v"):
            g = flat[ours.removesuffix("v") + "g"]
            if problem := kernel_problem(flat[ours], g, ours == "network.decoder.v"):
                raise ValueError(f"tensor {official} {problem}")
    return Weights(unflatten(flat), config)


def to_torch(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters, or a gradient with respect to them, in official names, layouts and order.

    The inverse of `from_torch(...).params`; the blocks appear twice, as in the official files.

    Raises:
        ValueError: the network has a noise input, for which the official one has no place.
    """
    return {
        name: np.ascontiguousarray(_numpy(array)) for name, array in official_layout(params).items()
    }


def official_layout(params: Mapping[str, Any]) -> dict[str, Any]:
    """What `to_torch` does, for arrays of any kind, so that JAX can differentiate through it.

    Raises:
        ValueError: as there.
    """
    flat = flatten(params)
    if flat["network.encoder.v"].shape[2] != flat["network.decoder.v"].shape[3]:
        raise ValueError(
            "these weights have a noise input (noise_input), which the official PyTorch network "
            "lacks: they cannot be written in its format"
        )
    depth = sum(name.endswith(".slopes_1") for name in flat)
    return {official: _to_official(ours, flat[ours]) for official, ours in _pairs(depth)}
