"""Safetensors files."""

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from isrrescnet_jax import tensors

NAMES = st.text("abc_1", min_size=1, max_size=3)
ARRAYS = st.lists(st.integers(0, 3), max_size=3).map(lambda s: np.zeros(s, np.float32) + len(s))
TREES = st.recursive(ARRAYS, lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3))


@given(st.dictionaries(NAMES, TREES, min_size=1, max_size=3))
def test_trees_come_back_with_shapes_and_values(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("tree") / "a.safetensors"
    path.write_bytes(tensors.as_bytes(tree, {"format": tensors.RECIPE, "note": "n"}))
    flat, metadata = tensors.read(path)
    assert metadata == {"format": tensors.RECIPE, "note": "n"}
    expected = tensors.flatten(tree)
    assert flat.keys() == expected.keys()
    for name, array in flat.items():
        assert array.shape == expected[name].shape and array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name])


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(1)}, {"format": "pt"}))
    with pytest.raises(ValueError, match="not an ISRResCNet weights file"):
        tensors.read(path)
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        tensors.read(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="PyTorch file: convert it"):
        (tmp_path / "b.pth").write_bytes(b"")
        tensors.read(tmp_path / "b.pth")
