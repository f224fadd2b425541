"""A convex prior: filters whose responses are shrunk in groups, with a fixed point by construction.

What it takes away from an image is the gradient of a convex function of it,

    R(z) = sum_(p, g) tau_g (d_pg - tau_g),    d_pg^2 = tau_g^2 + sum_f M_gf (W z)_pf^2
    N(z) = grad R(z) = W^T (s W z),            s_pf   = sum_g M_gf tau_g / d_pg

over pixels p: filters W of zero mean, groups g of filters by a matrix M >= 0 whose columns sum to
1, and thresholds tau that grow with the noise. As |W| <= 1 the Jacobian of N is symmetric, with
eigenvalues in [0, 1], and so is that of z - N(z): whatever the parameters, that map is averaged,
and the proximal map of a convex function g. For steps below 2 / |A|^2 and without momentum the
iterations of `unroll` then converge, to a minimum of  step / 2 |A x - y|^2 + g(x).  (Goujon et al.,
"A neural-network-based convex regularizer for inverse problems", IEEE TCI 9, 2023, where every
filter is a group; Moreau, "Proximite et dualite dans un espace hilbertien", Bull. SMF 93, 1965;
Combettes & Wajs, "Signal recovery by proximal forward-backward splitting", SIAM MMS 4(4), 2005.)
"""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .. import tensors
from ..trees import pytree

STEP = 0.1  # of the gradient, for which the shipped prior is trained, where |A| = 1
FLIPS = 4  # none, up and down, left and right, both: combined by XOR of their numbers
FREQUENCIES = 64  # along each axis, at which the norm of the filters is computed
TINY = 1e-12  # the square root has no gradient at 0
SQUARINGS = 5  # of matrices whose largest eigenvalue is sought


@pytree
@dataclasses.dataclass(frozen=True)
class ConvexRidge:
    """N(z; sigma), that of the formulas above; a pytree. Made by `from_params`, or `shipped`.

    The image is continued by reflection, and as the bank has every filter with its mirror images,
    the border changes nothing in what is said of the Jacobian: N is a part of that of the image
    with its reflections, on a torus.

    To remove noise, take step = `STEP` and its level for sigma. With another operator the best
    level is to be sought; for a step of 1 it is about that of the noise, where that is little.

    Attributes:
        filters: W, (k, k, c, f), k odd, in `FLIPS` blocks each the mirror image of the first.
        groups: M, (g, f).
        levels: log of the thresholds tau at sigma = 1, (g,).
        powers: tau = exp(levels) (exp(alpha) sigma)^powers, (g,), positive.

    Example:
        >>> import isrrescnet_jax as isr, jax, jax.numpy as jnp
        >>> from isrrescnet_jax.prior.ridge import ConvexRidge
        >>> prior, sigma = ConvexRidge.shipped(), jnp.array([15.0])
        >>> y = 128 + sigma * jax.random.normal(jax.random.key(0), (1, 24, 24, 3))
        >>> quiet = {"alpha": jnp.zeros(60), "w": jnp.full(60, -jnp.inf), "sigma": sigma}
        >>> denoised = isr.unroll(y, isr.Mask(jnp.ones(())), prior, step=STEP, **quiet)
        >>> before, after = (float(abs(a - 128).mean()) for a in (y, denoised.image))
        >>> bool(denoised.converged[0]), after < before / 4
        (True, True)
    """

    filters: Float[Any, "*stack k k c f"]
    groups: Float[Any, "*stack g f"]
    levels: Float[Any, "*stack g"]
    powers: Float[Any, "*stack g"]

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> "ConvexRidge":
        """Of free parameters, as `init_ridge` makes them; whatever they are, it is averaged.

        Args:
            params: `filters` (k, k, c, b), made zero in the mean, mirrored and divided by a bound
                of their norm; `groups` (4, m, b), logits of what each flip of a filter gives to the
                groups; `levels` and `powers` (m,), the latter before a softplus.
        """
        filters = params["filters"]
        filters = filters - jnp.mean(filters, (0, 1), keepdims=True)
        mirrored = [filters, filters[::-1], filters[:, ::-1], filters[::-1, ::-1]]
        bank = jnp.concatenate(mirrored, -1)
        bank = bank * jax.lax.rsqrt(squared_norm(bank))
        _, m, b = params["groups"].shape
        shares = jax.nn.softmax(params["groups"].reshape(FLIPS * m, b), 0).reshape(FLIPS, m, b)
        # What a flip of a filter gives to a flip of a group depends on how they differ.
        between = np.arange(FLIPS)[:, None] ^ np.arange(FLIPS)
        groups = shares[between].transpose(0, 2, 1, 3).reshape(FLIPS * m, FLIPS * b)
        powers = jax.nn.softplus(params["powers"])
        return cls(bank, groups, jnp.tile(params["levels"], FLIPS), jnp.tile(powers, FLIPS))

    @classmethod
    def shipped(cls) -> "ConvexRidge":
        """That which lies in the package: of colour images in [0, 255], for a step of `STEP`.

        >>> from isrrescnet_jax.prior.ridge import ConvexRidge
        >>> ConvexRidge.shipped().filters.shape
        (7, 7, 3, 64)
        """
        return _from_params(shipped_params())

    def __call__(
        self, z: Float[Array, "n h w c"], sigma: Float[Array, "#n"], alpha: Float[Array, ""]
    ) -> Float[Array, "n h w c"]:
        """N(z): `sigma` is the noise level of each image, which exp(alpha) multiplies."""
        responses, back = jax.vjp(self.responses, z)
        tau = self.thresholds(sigma, alpha)[:, None, None].astype(z.dtype)
        slopes = tau * jax.lax.rsqrt(jnp.square(tau) + self._energy(responses) + TINY)
        gains = jnp.matmul(slopes, self.groups.astype(z.dtype), precision="highest")
        return back(responses * gains)[0]

    def value(
        self, z: Float[Array, "n h w c"], sigma: Float[Array, "#n"], alpha: Float[Array, ""]
    ) -> Float[Array, " n"]:
        """R(z) of each image, whose gradient is N."""
        tau = self.thresholds(sigma, alpha)[:, None, None].astype(z.dtype)
        energy = self._energy(self.responses(z))
        return jnp.sum(tau * (jnp.sqrt(jnp.square(tau) + energy + TINY) - tau), (1, 2, 3))

    def thresholds(
        self, sigma: Float[Array, "#n"], alpha: Float[Array, ""]
    ) -> Float[Array, "#n g"]:
        """tau of every group, for each image."""
        log_sigma = alpha + jnp.log(jnp.maximum(sigma, 1e-6))
        return jnp.exp(self.levels + self.powers * log_sigma[:, None])

    def responses(self, z: Float[Array, "n h w c"]) -> Float[Array, "n h w f"]:
        """W z.

        As one product with all patches of the image: on a CPU the transpose of that is five times
        faster than a convolution with three outputs.
        """
        size, around = len(self.filters), len(self.filters) // 2
        z = jnp.pad(z, ((0, 0), (around, around), (around, around), (0, 0)), mode="symmetric")
        height, width = z.shape[1] - size + 1, z.shape[2] - size + 1
        z = jnp.concatenate([z[:, i : i + height] for i in range(size)], -1)
        z = jnp.concatenate([z[:, :, j : j + width] for j in range(size)], -1)
        kernel = self.filters.transpose(1, 0, 2, 3).reshape(-1, self.filters.shape[3])
        return jnp.matmul(z, kernel.astype(z.dtype), precision="highest")

    def _energy(self, responses: Float[Array, "n h w f"]) -> Float[Array, "n h w g"]:
        groups = self.groups.T.astype(responses.dtype)
        return jnp.matmul(jnp.square(responses), groups, precision="highest")


_from_params = jax.jit(ConvexRidge.from_params)


def squared_norm(filters: Float[Array, "k k c f"]) -> Float[Array, ""]:
    """An upper bound of |W|^2, for 7 x 7 filters of three channels at most 13 % too large.

    The norm of a filter bank is the largest of its c x f matrices at all frequencies. Of the
    c x c matrices A = W W^H,  tr(A^p)^(1/p)  with p = 32 bounds the eigenvalues; and a
    trigonometric polynomial of degree d is at most 1 / cos(pi d / n) times the largest of its
    values at n equidistant points, along each axis. All of it is differentiable. (Ehlich & Zeller,
    "Schwankung von Polynomen zwischen Gitterpunkten", Math. Z. 86, 1964.)

    >>> import jax.numpy as jnp
    >>> from isrrescnet_jax.prior.ridge import squared_norm
    >>> difference = jnp.zeros((3, 3, 1, 1)).at[1, 1:].set(jnp.array([[[-1.0]], [[1.0]]]))
    >>> 4 <= float(squared_norm(difference)) < 4.1
    True
    """
    n = FREQUENCIES
    spectrum = jnp.fft.rfft2(filters, (n, n), axes=(0, 1))
    a = jnp.einsum("uvif,uvjf->uvij", spectrum, jnp.conj(spectrum), precision="highest")
    size = jnp.trace(a, axis1=2, axis2=3).real
    size = size + jax.lax.stop_gradient(1e-6 * jnp.max(size)) + 1e-18  # filters are 0 at 0
    a = a / size[..., None, None]
    for _ in range(SQUARINGS):
        a = jnp.einsum("uvij,uvjk->uvik", a, a, precision="highest")
    power = jnp.trace(a, axis1=2, axis2=3).real
    largest = size * jnp.maximum(power, 1e-30) ** (0.5**SQUARINGS)
    return jnp.max(largest) / np.cos(np.pi * (len(filters) - 1) / n) ** 2


def init_ridge(
    key: Key[Array, ""], filters: int = 16, groups: int = 16, size: int = 7, channels: int = 3
) -> dict[str, Array]:
    """Parameters to train: waves of random directions, three in four of them grey.

    >>> import jax
    >>> from isrrescnet_jax.prior.ridge import init_ridge
    >>> sum(a.size for a in init_ridge(jax.random.key(0)).values())
    3408

    Args:
        key: of the draw.
        filters, groups: how many, before they are mirrored.
        size: of the filters, odd.
        channels: of the images.
    """
    keys = jax.random.split(key, 5)
    rate = jnp.pi * jax.random.uniform(keys[0], (filters,), minval=0.15, maxval=0.85)
    angle = jax.random.uniform(keys[1], (filters,), maxval=jnp.pi / 2)
    phase = jax.random.uniform(keys[2], (filters,), maxval=2 * jnp.pi)
    at = jnp.arange(size) - size // 2
    rows, columns = at[:, None, None], at[None, :, None]
    window = jnp.exp(-(rows**2 + columns**2) / (size / 2) ** 2)
    waves = window * jnp.cos(rate * (rows * jnp.sin(angle) + columns * jnp.cos(angle)) + phase)
    colors = jax.random.normal(keys[3], (channels, filters))
    colors = jnp.where(jnp.arange(filters) % 4 == 3, colors - colors.mean(0), 1 + 0.1 * colors)
    alone = jnp.zeros((FLIPS, groups, filters)).at[0].set(4 * jnp.eye(groups, filters))
    levels = jnp.log(jnp.geomspace(0.01, 0.1, groups))
    return {
        "filters": waves[:, :, None] * colors / size,
        "groups": alone,
        "levels": jax.random.permutation(keys[4], levels),
        "powers": jnp.full(groups, 0.54),  # softplus of which is 1
    }


def shipped_params() -> dict[str, np.ndarray]:
    """The parameters of `ConvexRidge.shipped`, to train on from; `experiments/contractive.py` did.

    >>> from isrrescnet_jax.prior.ridge import shipped_params
    >>> sorted(shipped_params())
    ['filters', 'groups', 'levels', 'powers']
    """
    path = resources.files("isrrescnet_jax") / "assets" / "priors" / "ridge.safetensors"
    return tensors.read(Path(str(path)))[0]
