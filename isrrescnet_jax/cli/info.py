"""`isrrescnet info`."""

import dataclasses
import sys

from .. import __version__
from ..files import cache_folder


@dataclasses.dataclass(frozen=True)
class Info:
    """Show versions, devices, shipped weights and the cache folder."""

    def run(self) -> int:
        """Print them."""
        import flax
        import jax

        from ..weights import load_weights_and_metadata, shipped_weights

        print(f"isrrescnet-jax {__version__}, jax {jax.__version__}, flax {flax.__version__}")
        print(f"Python {sys.version.split()[0]}")
        print("devices:", ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()))
        print("compiled programs:", cache_folder() or "not kept")
        for name, path in shipped_weights().items():
            weights, metadata = load_weights_and_metadata(name)
            config = weights.config
            print(
                f"weights {name}: depth {config.depth}, {config.feedback_steps} feedback steps, "
                f"{config.iterations} iterations, {config.physics} physics, "
                f"{'noise input, ' if config.noise_input else ''}"
                f"{path.stat().st_size / 1e6:.1f} MB"
            )
            for key, value in metadata.items():
                print(f"    {key}: {value}")
        return 0
