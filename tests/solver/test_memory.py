import jax
import numpy as np
import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.prior.network import ResidualNetwork
from isrrescnet_jax.prior.parameters import fuse
from isrrescnet_jax.solver.memory import first_that_fits, footprint, free_memory


def test_the_first_that_fits():
    needs = {3: 300, 2: 200, 1: 100}
    assert first_that_fits(needs, None) == first_that_fits(needs, 300) == 3
    assert first_that_fits(needs, 299) == 2
    with pytest.raises(ValueError, match="not enough"):
        first_that_fits(needs, 99)
    assert (free_memory(jax.devices()[0]) or 2**30) > 2**20


def test_the_footprint_is_what_the_compiler_plans():
    config = isr.ModelConfig(iterations=1)
    kernels = jax.eval_shape(
        lambda: fuse(isr.init_weights(config, jax.random.key(0)).params["network"])
    )
    window = jax.ShapeDtypeStruct((1, 196, 196, 3), np.float32)
    size = (jax.ShapeDtypeStruct((), np.int32),) * 2

    @jax.jit
    def residual(kernels, window, size):
        network = ResidualNetwork(config, None, "highest")
        return network.apply({"params": kernels}, window, size)

    memory = residual.lower(kernels, window, size).compile().memory_analysis()
    used = memory.temp_size_in_bytes + memory.output_size_in_bytes
    assert 0.5 * footprint(config, (196, 196)) <= used <= footprint(config, (196, 196))
