"""The pictures of the README: the photograph it upscales, and before/after.

    python experiments/readme_figure.py

The photograph is scikit-image's `astronaut` (Eileen Collins, by NASA, in the public domain),
reduced by `degrade`; the original serves as the truth for the PSNR in the captions.
"""

from pathlib import Path

import numpy as np
from skimage import data

import isrrescnet_jax as isr
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.evaluation.figures import compare
from isrrescnet_jax.images import Picture, write

FOLDER = Path(__file__).parent.parent / "examples"
SCALE = 4


def main() -> None:
    """Write examples/astronaut.png and examples/before_after.png."""
    truth = data.astronaut()
    before = degrade(truth, SCALE)
    after = isr.upscale(before, SCALE)
    FOLDER.mkdir(exist_ok=True)
    write(Picture(before.astype(np.float32)), FOLDER / "astronaut.png")
    figure = FOLDER / "before_after.png"
    titles = ("input", f"ISRResCNet x{SCALE}")
    compare(before, after, figure, truth=truth, titles=titles, crop=(176, 64, 112, 112))


if __name__ == "__main__":
    main()
