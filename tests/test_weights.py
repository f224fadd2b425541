import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import exact
from hypothesis import given
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax import tensors
from isrrescnet_jax import weights as module


def test_flatten_and_unflatten_are_inverse(small):
    again = tensors.unflatten(tensors.flatten(small.params))
    assert jax.tree.structure(again) == jax.tree.structure(small.params)


@given(st.sampled_from([1, 3]), st.integers(1, 4), st.integers(1, 5), st.integers(1, 12))
def test_saved_weights_come_back_to_the_bit(tmp_path_factory, channels, depth, steps, iterations):
    config = isr.ModelConfig(channels, 4, depth, steps, iterations, scale=3)
    rng = np.random.default_rng(depth)
    shapes = module.expected_shapes(config)
    params = tensors.unflatten({k: rng.normal(size=s).astype("f4") for k, s in shapes.items()})
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    isr.save_weights(isr.Weights(params, config), path, {"note": "here"})
    loaded, metadata = module.load_weights_and_metadata(path)
    assert loaded.config == config and metadata == {"note": "here"}
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


def test_weights_are_a_pytree_of_their_parameters(small):
    doubled = jax.tree.map(lambda a: 2 * a, small)
    assert doubled.config == small.config
    np.testing.assert_allclose(doubled.params["w"], 2 * small.params["w"])


@pytest.mark.parametrize("name", sorted(isr.shipped_weights()))
def test_shipped_weights(name):
    weights, metadata = module.load_weights_and_metadata(name)
    scale, iterations = weights.config.scale, weights.config.iterations
    assert name == (f"x{scale}" if iterations == 1 else f"x{scale}_k{iterations}")
    assert isr.shipped_weights()[name].stat().st_size < 2e6
    assert metadata, "say where they come from and how good they are"


def test_weights_that_are_not_there_say_what_is(tmp_path):
    with pytest.raises(ValueError, match="'x8' .*choose .*x4.*or give a .safetensors"):
        isr.load_weights("x8")
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        isr.load_weights(tmp_path / "none.safetensors")
    (tmp_path / "official.pth").write_bytes(b"PK")
    with pytest.raises(ValueError, match="python -m convert"):
        isr.load_weights(tmp_path / "official.pth")


def damaged(flat, metadata, how):
    name = "network.encoder.v"
    match how:
        case "missing":
            del flat[name]
        case "unknown":
            flat["extra"] = np.zeros(3, "f4")
        case "alpha.more is unknown":
            flat["alpha.more"] = np.zeros(3, "f4")
        case "not \\(":
            flat[name] = flat[name][:-1].copy()
        case "float64, not float32":
            flat[name] = flat[name].astype("f8")
        case "has no direction in channel 3":
            flat[name][..., 3] = 0
        case "decoder.v has no direction in channel 5":
            flat["network.decoder.v"][:, :, 5] = -0.0
        case "v has no direction in channel 2":  # too small to have a square
            flat[name][..., 2] = 1e-30
        case "overflows as its length":
            flat[name][..., 1] *= 1e-18
            flat["network.encoder.g"][1] = 1e30
        case "v overflows":  # |v|^2 does
            flat[name][..., 0] = 1e25
        case "alpha is a logarithm of values that overflow":
            flat["alpha"][1] = 90
        case "but there are only":
            metadata["config"] = json.dumps(json.loads(metadata["config"]) | {"depth": 10**9})
        case "feedback_steps must be at most 100":
            config = json.loads(metadata["config"]) | {"feedback_steps": 10**9}
            metadata["config"] = json.dumps(config)
        case "scale is there twice":
            metadata["config"] = metadata["config"][:-1] + ', "scale": 3}'
        case "metadata lacks 'config'":
            del metadata["config"]
        case "maximum recursion":
            metadata["config"] = "[" * 10**5
        case "not finite":
            flat[name][0, 0, 0, 0] = np.nan
        case "not an ISRResCNet":
            metadata = {"format": "pt"}
        case "channels must be":
            metadata["config"] = json.dumps({"channels": 2})
    return flat, metadata


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "unknown",
        "alpha.more is unknown",
        r"not \(",
        "not finite",
        "not an ISRResCNet",
        "channels must be",
        "float64, not float32",
        "has no direction in channel 3",
        "decoder.v has no direction in channel 5",
        "v has no direction in channel 2",
        "overflows as its length",
        "v overflows",
        "alpha is a logarithm of values that overflow",
        "but there are only",
        "feedback_steps must be at most 100",
        "scale is there twice",
        "metadata lacks 'config'",
        "maximum recursion",
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, small, how):
    path = tmp_path / "bad.safetensors"
    flat = {k: np.array(v) for k, v in tensors.flatten(small.params).items()}
    config = json.dumps(dataclasses.asdict(small.config))
    flat, metadata = damaged(flat, {"format": tensors.FORMAT, "config": config}, how)
    safetensors.numpy.save_file(flat, path, metadata)
    with pytest.raises(ValueError, match=how) as error:
        isr.load_weights(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_tensor_that_is_there_twice(tmp_path, small):
    path = tmp_path / "w.safetensors"
    isr.save_weights(small, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].decode()
    start = header.index('"alpha":')
    again = header[start : header.index("}", start) + 1]
    header = header.rstrip()[:-1] + f",{again}}}"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data[8 + length :])
    with pytest.raises(ValueError, match="alpha is there twice"):
        isr.load_weights(path)


def test_negative_lengths_are_kept_to_the_bit(tmp_path, small):
    flip = {"encoder", "decoder"}
    network = {
        name: layer | {"g": -np.asarray(layer["g"])} if name in flip else layer
        for name, layer in small.params["network"].items()
    }
    weights = isr.Weights(small.params | {"network": network}, small.config)
    isr.save_weights(weights, tmp_path / "w.safetensors")
    loaded = isr.load_weights(tmp_path / "w.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, weights.params)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [8.0, True, "8", None, [8]])
def test_a_shape_is_of_whole_numbers(value):
    with pytest.raises(ValueError, match="features must be a whole number, not"):
        isr.ModelConfig(features=value)
    assert isr.ModelConfig(features=np.int64(8)).features == 8


def test_physics_and_step_are_kept_and_old_files_mean_the_reference(tmp_path, small):
    path = tmp_path / "exact.safetensors"
    isr.save_weights(exact(small, step=4.0), path)
    assert isr.load_weights(path).config == exact(small, step=4.0).config
    old = dataclasses.asdict(small.config)
    del old["physics"], old["step"], old["noise_input"]
    flat = {k: np.array(v) for k, v in tensors.flatten(small.params).items()}
    header = {"format": tensors.FORMAT, "config": json.dumps(old)}
    safetensors.numpy.save_file(flat, path, header)
    assert isr.load_weights(path).config == small.config
    assert small.config.physics == "reference" and small.config.step == 1


def test_truncated_files_and_failed_writes(tmp_path, small):
    path = tmp_path / "w.safetensors"
    isr.save_weights(small, path)
    whole = path.read_bytes()
    bad = jax.tree.map(lambda a: np.full_like(a, np.nan), small)
    with pytest.raises(ValueError, match="not finite"):
        isr.save_weights(bad, path)
    assert path.read_bytes() == whole and len(list(tmp_path.iterdir())) == 1
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        isr.load_weights(path)
