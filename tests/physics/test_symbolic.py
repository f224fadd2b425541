import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.physics.symbolic import SHORTEST, at_any_size


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_axis_is_that_of_numpy(scale, reference):
    operator = isr.Bicubic(scale, reference=reference)
    for n in (SHORTEST, SHORTEST + 1, 31, 500):
        known, found = operator.axis(n, "float32"), at_any_size(operator, n, n).rows
        assert known.keys() == found.keys()
        for key in known:
            if reference and key != "weight":
                # The same matrix; which of two neighbours a position at a pixel is given to, and
                # where a weight is 0, may differ.
                x = jnp.asarray(np.random.default_rng(n).uniform(0, 255, (n, 1)), jnp.float32)
                np.testing.assert_allclose(found[key](x, 0), known[key](x, 0), atol=2e-5 * n)
            else:
                pairs = zip(*map(jax.tree.leaves, (found[key], known[key])), strict=True)
                for ours, theirs in pairs:
                    np.testing.assert_allclose(ours, theirs, atol=3e-7 * n)


def test_the_border_may_repeat_the_edge():
    operator = isr.Bicubic(4, reference=False, border="replicate")
    found, known = at_any_size(operator, 12, 12).rows["down"], operator.axis(12, "float32")["down"]
    np.testing.assert_allclose(found.weight, known.weight, atol=1e-7)
