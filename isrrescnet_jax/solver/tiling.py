"""The same residual, tile by tile, for images whose features do not fit into memory.

Outside of the network everything has three channels or fewer, so only the network runs in tiles.
A tile of the output depends on the input within `config.halo` pixels. Each tile is therefore
computed from a window with that halo, moved inwards where it would leave the image: the edges of a
window are then either edges of the image, where the network's own reflection is right, or too far
away to matter. The result equals the untiled one up to rounding; there are no seams.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..prior.network import LearnedPrior
from ..prior.projection import project


def window_starts(length: int, tile: int, halo: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Window length, and the starts of the windows and of the tiles along one axis."""
    count = -(-length // tile)
    # The last tile is moved back to end with the image; it repeats some of the one before.
    tiles = np.minimum(np.arange(count) * tile, max(length - tile, 0))
    window = min(tile + 2 * halo, length)
    return window, np.clip(tiles - halo, 0, length - window), tiles


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TiledPrior:
    """A learned prior that runs its network on tiles; equal to `prior` itself.

    Attributes:
        prior: the learned prior.
        tile: side of the square tiles in high-resolution pixels. Memory is that of the network on
            (tile + 2 halo)^2 pixels; work grows by (1 + 2 halo / tile)^2.
    """

    prior: LearnedPrior
    tile: int = dataclasses.field(metadata={"static": True})

    def residual(self, z: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """`prior.residual(z)`, one tile after the other."""
        if self.tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, not {self.tile}")
        n, h, w, c = z.shape
        halo = self.prior.config.halo
        window_h, window_rows, tile_rows = window_starts(h, self.tile, halo)
        window_w, window_columns, tile_columns = window_starts(w, self.tile, halo)
        tile_h, tile_w = min(self.tile, h), min(self.tile, w)
        grid = [
            np.stack(np.meshgrid(np.arange(n), rows, columns, indexing="ij"), -1).reshape(-1, 3)
            for rows, columns in ((window_rows, window_columns), (tile_rows, tile_columns))
        ]

        def one_tile(out: Array, starts: tuple[Array, Array]) -> tuple[Array, None]:
            window_start, tile_start = starts
            window = lax.dynamic_slice(z, (*window_start, 0), (1, window_h, window_w, c))
            r = self.prior.residual(window)
            offset = tile_start - window_start
            r = lax.dynamic_slice(r, (0, offset[1], offset[2], 0), (1, tile_h, tile_w, c))
            return lax.dynamic_update_slice(out, r, (*tile_start, 0)), None

        out, _ = lax.scan(one_tile, jnp.zeros_like(z), jax.tree.map(jnp.asarray, tuple(grid)))
        return out

    def __call__(
        self, z: Float[Array, "n h w c"], sigma: Float[Array, " n"], alpha: Float[Array, ""]
    ) -> Any:
        """N(z; sigma, alpha), its norm taken over the whole image."""
        return project(self.residual(z), sigma, alpha)
