import jax
import jax.numpy as jnp
import numpy as np

from isrrescnet_jax.prior.parameters import fuse, norm
from isrrescnet_jax.tensors import flatten
from isrrescnet_jax.weights import expected_shapes


def test_initial_weights_fit_and_fuse_to_their_directions(small):
    shapes = {name: tuple(a.shape) for name, a in flatten(small.params).items()}
    assert shapes == expected_shapes(small.config)
    fused = flatten(fuse(small.params["network"]))
    for name, v in flatten(small.params["network"]).items():
        if name.endswith(".v"):  # lengths start as |v|
            np.testing.assert_allclose(fused[name[:-1] + "kernel"], v, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.exp(small.params["alpha"]), [2, np.sqrt(2), 1], rtol=1e-6)
    np.testing.assert_allclose(np.exp(small.params["w"]), [1 / 4, 1 / 4, 2 / 5], rtol=1e-6)


def test_kernels_have_the_lengths_g(small):
    rng = np.random.default_rng(0)
    network = jax.tree.map(lambda a: rng.normal(size=a.shape), small.params["network"])
    given, fused = flatten(network), flatten(fuse(network))
    layers = [name.removesuffix(".v") for name in given if name.endswith(".v")]
    assert len(layers) == 3 + 2 * small.config.depth
    for layer in layers:
        kernel = fused[f"{layer}.kernel"]
        assert isinstance(kernel, np.ndarray)  # as they came
        lengths = norm(kernel, layer == "decoder")
        np.testing.assert_allclose(lengths, np.abs(given[f"{layer}.g"]), rtol=1e-12)
        np.testing.assert_array_equal(fused[f"{layer}.bias"], given[f"{layer}.bias"])
    assert not any(name.endswith((".v", ".g")) for name in fused)
    np.testing.assert_array_equal(fused["slopes"], given["slopes"])
    assert isinstance(fuse(jax.tree.map(jnp.asarray, network))["encoder"]["kernel"], jax.Array)
