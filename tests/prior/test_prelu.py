import jax
import jax.numpy as jnp
import numpy as np

from isrrescnet_jax.prior.prelu import prelu


def test_prelu_derivative_at_zero_is_the_slope():
    slopes = jnp.array([0.1, 0.3])
    grad = jax.grad(lambda x: prelu(x, slopes).sum())
    np.testing.assert_allclose(grad(jnp.zeros(2)), slopes)
    np.testing.assert_allclose(grad(jnp.ones(2)), 1)
