"""`isrrescnet info`."""

import dataclasses
import sys

from .. import __version__
from ..cache import cache_limit, cache_size, clear_cache
from ..files import cache_folder
from ..messages import counted


@dataclasses.dataclass(frozen=True)
class Info:
    """Show versions, devices, shipped weights and the cache folder."""

    clear_cache: bool = False
    """Remove compiled programs and low-resolution images that were kept, and show nothing else."""

    def run(self) -> int:
        """Print them."""
        folder = cache_folder()
        if self.clear_cache:
            freed = clear_cache(folder) if folder else 0
            print(f"{freed / 1e6:.1f} MB removed from {folder or 'no folder: nothing is kept'}")
            return 0
        import flax
        import jax

        from ..weights import load_weights_and_metadata, shipped_weights

        print(f"isrrescnet-jax {__version__}, jax {jax.__version__}, flax {flax.__version__}")
        print(f"Python {sys.version.split()[0]}")
        print("devices:", ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()))
        sizes = [size / 1e6 for size in (cache_size(folder), cache_limit())] if folder else []
        kept = "{}, {:.1f} of {:.0f} MB".format(folder, *sizes) if folder else "not kept"
        print("compiled programs:", kept)
        for name, path in shipped_weights().items():
            weights, metadata = load_weights_and_metadata(name)
            config = weights.config
            print(
                f"weights {name}: depth {config.depth}, {config.feedback_steps} feedback steps, "
                f"{counted(config.iterations, 'iteration')}, {config.physics} physics, "
                f"{'noise input, ' if config.noise_input else ''}"
                f"{path.stat().st_size / 1e6:.1f} MB"
            )
            for key, value in metadata.items():
                print(f"    {key}: {value}")
        return 0
