"""Digests of benchmark images, by which training recognises them.

    python -m experiments.benchmark_hashes BENCHMARKS > isrrescnet_jax/assets/benchmarks.json

BENCHMARKS holds NAME/xS/HR/*.png for every data set and scale, as papers share them.
"""

import json
import sys
from pathlib import Path

from isrrescnet_jax import images
from isrrescnet_jax.data.looks import crops, digest


def hashes(folder: Path) -> dict[str, list[str]]:
    """By data set and image, of what each becomes when it is cut to multiples of the scales."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*/x*/HR/*.png")):
        name = f"{path.parents[2].name} {path.stem.split('_SRF')[0]}"
        found.setdefault(name, set()).update(map(digest, crops(images.read_rgb(path))))
    return {name: sorted(digests) for name, digests in found.items()}


if __name__ == "__main__":
    print(json.dumps(hashes(Path(sys.argv[1])), indent=1))
